"""The trunk over a window of positions, with kept keys and values elsewhere, against a forward pass written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, sharp_model, tokens

from mdm_jax.devices.sharding import place, split_over_data
from mdm_jax.model.attention import attend_reference
from mdm_jax.model.cached import fill_cache, layer_modulations, split_layers
from mdm_jax.model.layers import look_up, rms_norm, rope
from mdm_jax.model.transformer import Transformer, after_attention, hidden, queries_keys_values
from mdm_jax.model.window import read_window
from mdm_jax.spec import Attention, HardwareSpec, ModelSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MODEL = ModelSpec(n_layers=2, d_model=8, n_heads=2, d_ffn=16, vocab_size=12)
TIMED = dataclasses.replace(MODEL, time_conditioning=True)
B, L = 4, 9
LENGTHS = np.array([9, 6, 9, 4], np.int32)
WINDOWS = np.array([[0, 1, 2], [5, 1, 9], [8, 3, 4], [9, 9, 9]])  # L is padding


def rows(seed: int) -> np.ndarray:
    """Rows of tokens and MASK."""
    return np.where(np.random.default_rng(seed).random((B, L)) < 0.5, MODEL.vocab_size, tokens((B, L), 12, seed))


def changed_within(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows at the begin of a block, and the same ones with other tokens in their windows."""
    old_BL, new_BL = rows(0), rows(1)
    inside_BL = np.array([[i in window for i in range(L)] for window in windows])
    return old_BL, np.where(inside_BL, new_BL, old_BL)


def model_with(spec: ModelSpec, mesh_model: int) -> Transformer:
    """A sharp model; with time conditioning, the weights that begin at zero are random."""
    weights = sharp_model(spec, mesh_model)
    if spec.time_conditioning:
        shape = weights.blocks.modulation[...].shape
        weights = jax.tree.map(jnp.copy, weights)
        weights.blocks.modulation[...] = 0.3 * jax.random.normal(jax.random.key(1), shape)
    return jax.jit(place)(weights)


def windowed(spec: ModelSpec, old_BL, new_BL, windows, mesh=(1, 1), suffix=False) -> np.ndarray:
    with on_mesh(*mesh):

        @jax.jit
        def run(weights, old_BL, new_BL, windows, lengths):
            old_BL, new_BL, windows, lengths = split_over_data((old_BL, new_BL, windows, lengths))
            layers = split_layers(weights, spec)
            cache = fill_cache(weights, layers, old_BL, spec, lengths)
            return read_window(weights, layers, new_BL, windows, cache, spec, lengths, suffix)

        return np.asarray(run(model_with(spec, mesh[1]), old_BL, new_BL, windows, LENGTHS))


def written_out(spec: ModelSpec, old_BL, new_BL, windows) -> np.ndarray:
    """Hidden states of all positions: each layer's keys and values outside of the window are those of the old rows."""
    inside = jnp.asarray([[[[i in window]] for i in range(L)] for window in windows]).reshape(B, L, 1, 1)
    lengths = jnp.asarray(LENGTHS)
    with on_mesh():

        @jax.jit
        def run(weights):
            layers = split_layers(weights, spec)
            times = [layer_modulations(weights, layers, jnp.asarray(z), spec, lengths) for z in (old_BL, new_BL)]
            old, new = (look_up(weights.embed[...], jnp.asarray(z), jnp.float32) for z in (old_BL, new_BL))
            for block, old_time, new_time in zip(layers, *times, strict=True):
                q0, k0, v0 = queries_keys_values(block, old, jnp.float32, old_time)
                q1, k1, v1 = queries_keys_values(block, new, jnp.float32, new_time)
                k, v = jnp.where(inside, k1, k0), jnp.where(inside, v1, v0)
                full = Attention.BIDIRECTIONAL
                o0 = attend_reference(rope(q0), rope(k0), v0, full, lengths)
                o1 = attend_reference(rope(q1), rope(k), v, full, lengths)
                old = after_attention(block, old, o0, old_time)
                new = after_attention(block, new, o1, new_time)
            return rms_norm(new, weights.norm_final[...])

        return np.asarray(run(model_with(spec, 1)))


def assert_equal_inside(found_BWD: np.ndarray, whole_BLD: np.ndarray, windows: np.ndarray) -> None:
    for found_WD, whole_LD, window in zip(found_BWD, whole_BLD, windows, strict=True):
        kept = window < L
        np.testing.assert_allclose(found_WD[kept], whole_LD[window[kept]], atol=2e-5)


@pytest.mark.parametrize(("spec", "mesh"), [(MODEL, (1, 1)), (MODEL, (2, 2)), (TIMED, (1, 1))])
def test_a_window_equals_the_pass_whose_other_keys_and_values_are_old(spec, mesh):
    old_BL, new_BL = changed_within(WINDOWS)
    found_BWD = windowed(spec, old_BL, new_BL, WINDOWS, mesh)
    assert np.isfinite(found_BWD).all()
    assert_equal_inside(found_BWD, written_out(spec, old_BL, new_BL, WINDOWS), WINDOWS)


@pytest.mark.parametrize("mesh", [(1, 1), pytest.param((2, 2), marks=pytest.mark.slow)])
def test_the_end_of_a_row_may_take_the_place_of_what_was_kept(mesh):
    """The windows begin at different positions; the last one is empty, as in a row that has ended."""
    windows = np.array([[5, 6, 7, 8], [3, 4, 5, 9], [8, 9, 9, 9], [9, 9, 9, 9]])
    old_BL, new_BL = changed_within(windows)
    found_BWD = windowed(MODEL, old_BL, new_BL, windows, mesh, suffix=True)
    assert np.isfinite(found_BWD).all()
    assert_equal_inside(found_BWD, written_out(MODEL, old_BL, new_BL, windows), windows)


def forward(spec: ModelSpec, rows_BL) -> np.ndarray:
    with on_mesh():
        run = jax.jit(lambda weights, z: hidden(weights, z, spec, HardwareSpec(), jnp.asarray(LENGTHS)))
        return np.asarray(run(model_with(spec, 1), rows_BL))


def test_a_window_of_the_rows_that_filled_the_cache_equals_the_forward_pass():
    assert_equal_inside(windowed(TIMED, rows(0), rows(0), WINDOWS), forward(TIMED, rows(0)), WINDOWS)


def test_a_model_of_one_layer_is_exact_and_a_deeper_one_is_not():
    old_BL, new_BL = changed_within(WINDOWS)
    one = dataclasses.replace(MODEL, n_layers=1)
    assert_equal_inside(windowed(one, old_BL, new_BL, WINDOWS), forward(one, new_BL), WINDOWS)
    found_BWD, whole_BLD = windowed(MODEL, old_BL, new_BL, WINDOWS), forward(MODEL, new_BL)
    assert abs(found_BWD[0] - whole_BLD[0, WINDOWS[0]]).max() > 1e-2


def test_a_window_of_the_whole_row_is_exact():
    windows = np.tile(np.random.default_rng(3).permutation(L), (B, 1))
    windows = np.where(windows < LENGTHS[:, None], windows, L)
    assert_equal_inside(windowed(MODEL, rows(0), rows(1), windows), forward(MODEL, rows(1)), windows)
