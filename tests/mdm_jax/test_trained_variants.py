"""`load` of runs with a column for MASK or with time conditioning: they are read as other models are."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_runs import on_mesh

from mdm_jax import load
from mdm_jax.files.storage import as_path
from mdm_jax.spec import EvaluationSpec, LevelSampler, ModelSpec, ObjectiveSpec, RunSpec, Variant, to_json
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.seal import Identity
from mdm_jax.train.state import init_state

pytestmark = pytest.mark.usefixtures("compiled_quickly")
FREE = ObjectiveSpec(Variant.D3PM, LevelSampler.STRATIFIED, time_steps=50, carry_over=False, zero_masking=False)


def test_the_mask_column_is_left_out_and_time_is_the_share_of_masks(tmp_path):
    model = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_ffn=32, mask_column=True, time_conditioning=True)
    spec = RunSpec(model, FREE, evaluation=EvaluationSpec(batch=4))
    spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, data_hash="d" * 64, seq_len=8))
    with on_mesh():
        state = init_state(spec)
        weight = state.params.blocks.modulation[...]
        state.params.blocks.modulation[...] = 0.3 * jax.random.normal(jax.random.key(0), weight.shape)
        saved = Checkpoints(as_path(tmp_path / "checkpoints"), Identity(spec.spec_hash, "d" * 64))
        saved.save(3, state)
        saved.close()
    (tmp_path / "spec.json").write_text(to_json(spec) + "\n")
    opened = load(tmp_path)
    assert opened.spec == dataclasses.replace(spec.model, mask_column=False)
    assert state.params.head.shape == (16, 258)
    tokens_1L = np.array([[3, 1, 257, 257, 2, 9, 257, 4]])
    assert opened.logits(tokens_1L).shape == (1, 8, 257)
    nelbo = opened.nelbo(["eight by"], draws=4)
    assert 0.5 * np.log(257) < nelbo.nats_per_token < 2 * np.log(257)
    with pytest.raises(ValueError, match="time_conditioning = True: must be false: these formats"):
        opened.export(tmp_path / "exported")
