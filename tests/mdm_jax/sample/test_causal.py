"""An ARM's samples: cached equals uncached, and the histogram is that of the chain rule."""

import dataclasses

import jax
import numpy as np
import pytest
from canvases import assert_ended_at_first_eos, canvas, placed
from enumerated import all_rows, log_softmax
from sampler_chains import p_value
from tiny_runs import on_mesh, sharp_model

from mdm_jax.model.transformer import hidden
from mdm_jax.objectives.arm import shifted
from mdm_jax.sample.canvas import Canvas, Filled
from mdm_jax.sample.causal import begin_continuing, continue_on, continue_rows
from mdm_jax.spec import Attention, ComputeDtype, HardwareSpec, ModelSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ARM = ModelSpec(n_layers=2, d_model=8, n_heads=2, d_ffn=16, vocab_size=12, attention=Attention.CAUSAL)
TINY = dataclasses.replace(ARM, vocab_size=3)
V, L, B = ARM.vocab_size, 8, 8


def fill(rows: Canvas, model: ModelSpec = ARM, mesh: tuple[int, int] = (1, 1), cached: bool = True) -> Filled:
    with on_mesh(*mesh):
        return jax.device_get(continue_rows(placed(sharp_model(model, mesh[1])), rows, model, cached))


def eight_rows() -> Canvas:
    """Rows that differ in prompt, length, temperature and seed."""
    draws = np.random.default_rng(1)
    prompts, lengths = np.array([0, 1, 4, 0, 7, 2, 3, 0]), np.array([8, 3, 5, 8, 8, 8, 6, 1])
    ids_BL = np.where(np.arange(L) < prompts[:, None], draws.integers(0, V, (B, L)), V)
    rows = canvas(ids_BL, eos=3, lengths=lengths)
    temperature_B = np.array([1, 0, 2, 1, 1, 0.5, 1, 1], np.float32)
    return dataclasses.replace(rows, filters=dataclasses.replace(rows.filters, temperature_B=temperature_B))


def test_the_cache_changes_nothing():
    rows = eight_rows()
    with_cache, without = fill(rows), fill(rows, cached=False)
    np.testing.assert_array_equal(with_cache.ids_BL, without.ids_BL)
    np.testing.assert_array_equal(with_cache.forwards_B, without.forwards_B)
    np.testing.assert_allclose(with_cache.nats_BL, without.nats_BL, atol=1e-5)


def test_the_cache_in_bfloat16_is_right_up_to_its_rounding():
    """Most rows agree at the temperature 0; a near tie may fall to either side."""
    half = dataclasses.replace(ARM, compute_dtype=ComputeDtype.BFLOAT16)
    rows = canvas(np.full((B, L), V), temperature=0.0)
    with_cache, without = fill(rows, half), fill(rows, half, cached=False)
    np.testing.assert_array_equal(with_cache.ids_BL[:, 0], without.ids_BL[:, 0])
    np.testing.assert_allclose(with_cache.nats_BL[:, 0], without.nats_BL[:, 0], atol=0.02)


def test_a_row_alone_equals_the_row_in_a_batch():
    rows = eight_rows()
    together = fill(rows)
    for b in range(B):
        alone = fill(jax.tree.map(lambda x, b=b: x[b : b + 1], rows))
        np.testing.assert_array_equal(alone.ids_BL[0], together.ids_BL[b])
        assert alone.forwards_B[0] == together.forwards_B[b]


def test_a_mesh_does_not_change_the_rows():
    rows = eight_rows()
    one, four = fill(rows), fill(rows, mesh=(2, 2))
    np.testing.assert_array_equal(one.ids_BL, four.ids_BL)
    np.testing.assert_allclose(one.nats_BL, four.nats_BL, atol=1e-5)


def test_some_tokens_at_a_time_give_the_same_rows_on_any_mesh():
    rows, whole = eight_rows(), fill(eight_rows(), mesh=(2, 2))
    with on_mesh(2, 2):
        weights = placed(sharp_model(ARM, 2))
        state, seen = begin_continuing(weights, rows, ARM), list[Filled]()
        while not np.asarray(state[0].done_B).all():
            state, found = continue_on(weights, rows, state, 3, ARM)
            seen.append(found)
    assert len(seen) == 3  # the longest row has 8 tokens
    np.testing.assert_array_equal(seen[-1].ids_BL, whole.ids_BL)
    np.testing.assert_allclose(seen[-1].nats_BL, whole.nats_BL, atol=1e-5)


def test_prompts_stay_and_no_start_token_is_left():
    rows = eight_rows()
    found, given_BL = fill(rows), np.asarray(rows.ids_BL)
    np.testing.assert_array_equal(np.where(given_BL < V, found.ids_BL, 0), np.where(given_BL < V, given_BL, 0))
    assert not ((found.ids_BL == V) & (np.arange(L) < np.asarray(rows.length_B)[:, None])).any()


def test_a_row_ends_at_its_first_eos():
    rows = canvas(np.full((64, L), V), eos=3, temperature=3.0)
    found = fill(rows)
    whole = fill(dataclasses.replace(rows, eos_B=np.full(64, -1, np.int32)))
    assert_ended_at_first_eos(found, whole, eos=3)


@pytest.mark.parametrize("prompt", [(), (2, 0)])
def test_the_histogram_is_that_of_the_chain_rule(prompt):
    length = 4
    rows_SL = np.array([row for row in all_rows(3, length) if tuple(row[: len(prompt)]) == prompt])
    with on_mesh():
        weights = sharp_model(TINY)
        logits = jax.jit(lambda z: hidden(weights, shifted(z, 3), TINY, HardwareSpec()) @ weights.head[...])(rows_SL)
    log_p_SL = np.take_along_axis(log_softmax(logits), rows_SL[..., None], -1)[..., 0]
    chances = np.exp(log_p_SL[:, len(prompt) :].sum(1))
    expected = dict(zip(map(tuple, rows_SL.tolist()), chances.tolist(), strict=True))
    start = [*prompt, *[3] * (length - len(prompt))]
    found = fill(canvas(np.tile(start, (20_000, 1)), seed=11), TINY)
    assert p_value(np.asarray(found.ids_BL), expected) > 1e-3
    nats_S = np.asarray(found.nats_BL).sum(1)
    each = {row: -np.log(p) for row, p in expected.items()}
    np.testing.assert_allclose(nats_S, [each[tuple(row)] for row in found.ids_BL.tolist()], atol=1e-4)
