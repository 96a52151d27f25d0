"""Time conditioning: nothing at first, then each row by its own share of MASK; parameters and meshes as counted."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, put, run_spec, sharp_model, tokens

from mdm_jax.devices.sharding import place
from mdm_jax.model.conditioning import masked_share
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import (
    Attention,
    Family,
    HardwareSpec,
    LayerLoop,
    LevelSampler,
    ModelSpec,
    ObjectiveSpec,
    OptimSpec,
    Remat,
    RunSpec,
    Variant,
    pair,
)
from mdm_jax.spec.counting import count_parameters, forward_flops
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L, B = 5, 6, 8
PLAIN = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_ffn=32, vocab_size=V)
ONE = HardwareSpec()
TIMED = dataclasses.replace(PLAIN, time_conditioning=True)


def timed_model() -> Transformer:
    """A model whose modulation weights are no longer zero."""
    model = jax.tree.map(jnp.copy, sharp_model(TIMED))
    weight = model.blocks.modulation[...]
    model.blocks.modulation[...] = 0.3 * jax.random.normal(jax.random.key(1), weight.shape)
    return model


def rows() -> np.ndarray:
    rows_BL = tokens((B, L), V)
    for i in range(B):
        rows_BL[i, : i % (L + 1)] = V
    return rows_BL


@functools.partial(jax.jit, static_argnums=(0, 1))
def outputs(spec: ModelSpec, hardware: HardwareSpec, params, tokens_BL, length_B=None, level_B=None):
    return hidden(place(params), tokens_BL, spec, hardware, length_B, level_B)


def run(params, rows_BL, length_B=None, level_B=None, hardware=ONE, spec=TIMED) -> np.ndarray:
    return np.asarray(outputs(spec, hardware, params, jnp.asarray(rows_BL), length_B, level_B))


def test_share_of_masked_tokens():
    with on_mesh():
        share_B = jax.jit(lambda z, n: (masked_share(z, V), masked_share(z, V, n)))(rows(), jnp.full(B, 3))
    whole = [i % (L + 1) for i in range(B)]
    np.testing.assert_allclose(share_B[0], np.array(whole) / L, rtol=1e-6)
    np.testing.assert_allclose(share_B[1], np.minimum(whole, 3) / 3, rtol=1e-6)


def test_a_new_model_is_the_plain_one():
    """The other initial weights are shared, and zero modulation changes nothing."""
    with on_mesh():
        one, other = run(sharp_model(TIMED), rows()), run(sharp_model(PLAIN), rows(), spec=PLAIN)
    np.testing.assert_array_equal(one, other)


def test_each_row_is_conditioned_on_its_own_level():
    """Without a level it is the row's share of MASK; any other level gives other outputs, in that row alone."""
    with on_mesh():
        params, share_B = timed_model(), jnp.asarray((rows() == V).mean(1), jnp.float32)
        given, own = run(params, rows(), level_B=share_B), run(params, rows())
        np.testing.assert_allclose(given, own, rtol=1e-4, atol=1e-4)  # the sinusoids multiply rounding by 1000
        changed = run(params, rows(), level_B=share_B.at[2].add(0.1))
        moved_B = np.abs(changed - own).max((1, 2))
        assert moved_B[2] > 0.1
        assert np.delete(moved_B, 2).max() < 1e-5
        permuted = run(params, rows()[::-1])
        np.testing.assert_allclose(permuted[::-1], own, rtol=1e-5, atol=1e-5)


def test_padding_does_not_count_as_masked():
    with on_mesh():
        params, padded_BL = timed_model(), rows()
        padded_BL[:, 4:] = V
        whole = run(params, padded_BL, length_B=jnp.full(B, 4))
        alone = run(params, padded_BL[:, :4])
        np.testing.assert_allclose(whole[:, :4], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "hardware", [HardwareSpec(layers=LayerLoop.UNROLL), HardwareSpec(remat=Remat.FULL)], ids=["unroll", "remat"]
)
def test_layers_in_other_ways(hardware):
    with on_mesh():
        params = timed_model()
        np.testing.assert_allclose(run(params, rows(), hardware=hardware), run(params, rows()), rtol=1e-5, atol=1e-5)


def timed_run(**hardware) -> RunSpec:
    """Everything that a batch can have at once: levels, jumps, clean tokens, lengths and dropout."""
    base = run_spec(Family.MDM, PLAIN, L, optim=OptimSpec(global_batch=B), hardware=HardwareSpec(**hardware))
    free: dict[str, Any] = {"time_steps": 5, "carry_over": False, "zero_masking": False, "stochastic_length": 0.9}
    objective = ObjectiveSpec(Variant.D3PM, LevelSampler.STRATIFIED, **free)
    model = dataclasses.replace(TIMED, dropout=0.2, mask_column=True)
    return dataclasses.replace(base, model=model, objective=objective)


@functools.cache
def trained(data: int, model: int, micro: int) -> tuple[list[float], np.ndarray]:
    """Losses of three steps, and the modulation's weights after them."""
    spec = timed_run(mesh_data=data, mesh_model=model, microbatches=micro)
    with on_mesh(data, model):
        mesh, step = jax.sharding.get_mesh(), compile_step(spec)
        state, rate, losses = init_state(spec), learning_rate(spec.optim, spec.schedule), []
        for i in range(3):
            state, scalars = step(state, put(mesh, tokens((B, L), V, i)), rate)
            losses.append(float(scalars["loss"]))
        return losses, np.asarray(state.params.blocks.modulation[...])


@pytest.mark.parametrize("mesh", [(1, 1), pytest.param((2, 2), marks=pytest.mark.slow)])
def test_any_mesh_and_microbatches_train_the_same_weights(mesh):
    """Levels and dropout belong to rows of the global batch, so neither a mesh nor microbatches change them."""
    (one, weight), (other, other_weight) = trained(1, 1, 1), trained(*mesh, 2)
    assert other == pytest.approx(one, rel=1e-5)
    np.testing.assert_allclose(other_weight, weight, rtol=1e-3, atol=1e-6)
    assert np.abs(weight).max() > 1e-5


def test_parameters_and_flops_count_the_conditioning():
    with on_mesh():
        leaves = jax.tree.leaves(sharp_model(TIMED))
    assert sum(x.size for x in leaves) == count_parameters(TIMED).total
    extra = count_parameters(TIMED).non_embedding - count_parameters(PLAIN).non_embedding
    assert extra == 2 * 8 * 8 + 2 * 4 * 8 * 16
    objective = ObjectiveSpec()
    assert forward_flops(TIMED, objective, B, L) - forward_flops(PLAIN, objective, B, L) == 2 * extra * B


def test_what_an_arm_cannot_have_is_refused():
    with pytest.raises(ValueError, match=r"model\.time_conditioning = True: must be false for the ARM"):
        dataclasses.replace(TIMED, attention=Attention.CAUSAL)
    with pytest.raises(ValueError, match=r"model\.mask_column = True: must be false for the ARM"):
        ModelSpec(mask_column=True, attention=Attention.CAUSAL)
    with pytest.raises(ValueError, match=r"model\.mask_column = True: must be true if objective\.zero_mask"):
        RunSpec(model=ModelSpec(mask_column=True))
    with pytest.raises(ValueError, match=r"model\.dropout = 1\.0: must be at least 0 and below 1"):
        ModelSpec(dropout=1.0)
    timed = RunSpec(model=ModelSpec(time_conditioning=True, dropout=0.1))
    arm = pair(timed, Family.ARM)
    assert (arm.model.time_conditioning, arm.model.dropout) == (False, 0.1)
    assert pair(timed, Family.MDM) == timed
    assert timed.loss_label == "count:dropout0.1,timed"
    assert arm.loss_label == "nll:dropout0.1"
