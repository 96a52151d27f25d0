"""The trunk at some positions of each pair of rows gives what the whole trunk gives there, with the same gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import reshard
from tiny_runs import on_mesh, quick_compilation, sharp_model, tokens

from mdm_jax.devices.sharding import BATCH, BATCH_L, BATCH_LD, place
from mdm_jax.model.transformer import hidden
from mdm_jax.spec import HardwareSpec, LayerLoop, ModelSpec, Remat

SPEC = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_ffn=24, vocab_size=12)
ROWS, LENGTH, TAKEN = 8, 6, 5
UNROLLED = HardwareSpec(layers=LayerLoop.UNROLL)
POSITION_PM = np.stack([np.random.default_rng(i).permutation(2 * LENGTH)[:TAKEN] for i in range(ROWS // 2)])
"""In no order; a row may have all of its pair's positions, or none."""


def value_and_gradient(spec: ModelSpec, hardware: HardwareSpec, early: bool, mesh=(1, 1)):
    """A function of the outputs at the positions, taken before or after the end of the trunk, and its gradient."""
    ids_BL = tokens((ROWS, LENGTH), spec.vocab_size)

    def loss(model):
        seeds_B = reshard(jnp.arange(ROWS, dtype=jnp.uint32), BATCH)
        run = functools.partial(hidden, place(model), reshard(jnp.asarray(ids_BL), BATCH_L), spec, hardware)
        if early:
            h_PMD = run(seed_B=seeds_B, position_PM=reshard(jnp.asarray(POSITION_PM), BATCH_L))
        else:
            h_BLD = reshard(run(seed_B=seeds_B), jax.sharding.PartitionSpec(None, None, None))
            h_PlD = h_BLD.reshape(ROWS // 2, 2 * LENGTH, spec.d_model)
            h_PMD = reshard(jnp.stack([h_lD[at_M] for h_lD, at_M in zip(h_PlD, POSITION_PM, strict=True)]), BATCH_LD)
        assert h_PMD.shape == (ROWS // 2, TAKEN, spec.d_model)
        return jnp.sin(3 * h_PMD).sum()

    with quick_compilation(), on_mesh(*mesh):
        return jax.device_get(jax.jit(jax.value_and_grad(loss))(sharp_model(spec)))


@functools.cache
def whole(spec: ModelSpec):
    return value_and_gradient(spec, HardwareSpec(), early=False)


@pytest.mark.parametrize(
    ("spec", "hardware", "mesh"),
    [
        pytest.param(SPEC, UNROLLED, (1, 1), id="unrolled"),
        pytest.param(SPEC, UNROLLED, (2, 1), id="two devices"),
        pytest.param(SPEC, UNROLLED, (2, 2), id="four devices"),
        pytest.param(SPEC, dataclasses.replace(UNROLLED, remat=Remat.FULL), (1, 1), id="full"),
        pytest.param(SPEC, dataclasses.replace(UNROLLED, remat=Remat.DOTS, remat_layers=1), (1, 1), id="dots"),
        pytest.param(SPEC, HardwareSpec(), (1, 1), id="scan"),
        pytest.param(dataclasses.replace(SPEC, n_layers=1), UNROLLED, (1, 1), id="one layer"),
        pytest.param(dataclasses.replace(SPEC, dropout=0.2), UNROLLED, (1, 1), id="dropout"),
        pytest.param(dataclasses.replace(SPEC, time_conditioning=True), UNROLLED, (1, 1), id="time"),
    ],
)
def test_some_positions_have_the_values_and_gradients_of_the_whole(spec, hardware, mesh):
    found = value_and_gradient(spec, hardware, True, mesh)
    for expected, actual in zip(jax.tree.leaves(whole(spec)), jax.tree.leaves(found), strict=True):
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * scale)
