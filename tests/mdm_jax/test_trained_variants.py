"""`load` of runs with a column for MASK or with time conditioning: they are read as other models are."""

import dataclasses
import functools

import enumerated
import jax
import numpy as np
import pytest
from tiny_runs import on_mesh

from mdm_jax import load
from mdm_jax.files.storage import as_path
from mdm_jax.model.transformer import hidden
from mdm_jax.spec import EvaluationSpec, HardwareSpec, LevelSampler, ModelSpec, ObjectiveSpec, RunSpec, Variant, to_json
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import init_state
from mdm_jax.trained.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")
FREE = ObjectiveSpec(Variant.D3PM, LevelSampler.STRATIFIED, time_steps=50, carry_over=False, zero_masking=False)


@functools.partial(jax.jit, static_argnums=1)
def told_logits(params, spec: ModelSpec, tokens_BL, share_B):
    return hidden(params, tokens_BL, spec, HardwareSpec(), level_B=share_B) @ params.head[...]


def logits_at_share(opened: Model, tokens_BL: np.ndarray) -> np.ndarray:
    """The logits of a model that is told each row's share of masks."""
    share_B = (tokens_BL == 257).mean(1).astype(np.float32)
    with on_mesh():
        return np.asarray(told_logits(opened._params, opened.spec, tokens_BL.astype(np.int32), share_B))


def conditionals(opened: Model, rows_SL: np.ndarray) -> np.ndarray:
    return enumerated.log_softmax(logits_at_share(opened, rows_SL))


def test_the_mask_column_is_left_out_and_time_is_the_share_of_masks(tmp_path):
    model = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_ffn=32, mask_column=True, time_conditioning=True)
    spec = RunSpec(model, FREE, evaluation=EvaluationSpec(batch=4))
    spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, data_hash="d" * 64, seq_len=40))
    with on_mesh():
        state = init_state(spec)
        weight = state.params.blocks.modulation[...]
        state.params.blocks.modulation[...] = 0.3 * jax.random.normal(jax.random.key(0), weight.shape)
        state.params.head[...] = 4 * state.params.head[...]
        saved = Checkpoints(as_path(tmp_path / "checkpoints"), Identity(spec.spec_hash, "d" * 64))
        saved.save(3, state)
        saved.close()
    (tmp_path / "spec.json").write_text(to_json(spec) + "\n")
    opened = load(tmp_path)
    assert opened.spec == dataclasses.replace(spec.model, mask_column=False)
    assert state.params.head.shape == (16, 258)
    for length in (5, 40):  # padding does not change the share of masks
        tokens_1L = np.resize([3, 1, 257, 257, 2, 9, 257, 4], (1, length))
        np.testing.assert_allclose(opened.logits(tokens_1L), logits_at_share(opened, tokens_1L), atol=2e-5)
    given, log_p = (np.array([3, 1, 9], np.int32), np.array([7, 2], np.int32)), functools.partial(conditionals, opened)
    methods = "left_to_right", "confidence", "any_order"
    one, other, exact = (-opened.loglikelihood([given], name)[0].loglikelihood for name in methods)
    assert one == pytest.approx(enumerated.left_to_right(log_p, *given, 257), rel=1e-5)
    assert other == pytest.approx(enumerated.confidence(log_p, *given, 257)[0], rel=1e-5)
    assert exact == pytest.approx(enumerated.any_order(log_p, *given, 257), rel=1e-5)
    nelbo = opened.nelbo(["ab"], draws=200)  # and EOS
    exact = -opened.loglikelihood([([], [97, 98, 256])], "any_order")[0].loglikelihood
    assert abs(nelbo.nats - exact) < 4 * nelbo.se_mc < 0.1 * exact
    with pytest.raises(ValueError, match="time_conditioning = True: must be false: these formats"):
        opened.export(tmp_path / "exported")
