"""The loop of an MDM's samplers: idle steps, programs, blocks, EOS and guidance."""

import dataclasses

import numpy as np
import pytest
from canvases import MASKED, assert_ended_at_first_eos, canvas, fill, placed
from enumerated import log_softmax
from sampler_chains import p_value, predictions
from tiny_runs import on_mesh, sharp_model

from mdm_jax.sample.canvas import WHOLE_ROW, Filled
from mdm_jax.sample.denoise import begin_denoising, denoise, denoise_on
from mdm_jax.sample.rules.ancestral import ANCESTRAL
from mdm_jax.sample.rules.confidence import PROBABILITY
from mdm_jax.sample.rules.first_hitting import FIRST_HITTING
from mdm_jax.sample.rules.remask import REMASK_CONFIDENCE
from mdm_jax.sample.trunk_cache import TrunkCache

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MODEL = dataclasses.replace(MASKED, vocab_size=12)
V, L = MODEL.vocab_size, 8


@pytest.mark.parametrize("rule", [ANCESTRAL, REMASK_CONFIDENCE])
def test_passing_over_idle_steps_changes_no_bit(rule):
    rows = canvas(np.full((1, L), V), steps=40, bound=0.0)
    found, every = fill(rows, rule, MODEL), fill(rows, rule, MODEL, skip_idle=False)
    np.testing.assert_array_equal(found.ids_BL, every.ids_BL)
    np.testing.assert_array_equal(found.nats_BL, every.nats_BL)
    assert found.forwards_B[0] <= L


@pytest.mark.parametrize("cache", [TrunkCache.NONE, TrunkCache.DUAL])
def test_some_steps_at_a_time_give_the_same_rows_on_any_mesh(cache):
    rows, how = canvas(np.full((4, L), V), steps=6, block=3), (MODEL, FIRST_HITTING, cache, 3)
    whole = fill(rows, FIRST_HITTING, MODEL, (2, 2), cache=cache, window=3)
    with on_mesh(2, 2):
        weights, seen = placed(sharp_model(MODEL, 2)), list[Filled]()
        state = begin_denoising(weights, rows, *how)
        for _ in range(3):
            state, found = denoise_on(weights, rows, state, 2, *how)
            seen.append(found)
    hidden = [int((np.asarray(found.ids_BL) == V).sum()) for found in seen]
    assert 4 * L > hidden[0] > hidden[1] > hidden[2] == 0
    np.testing.assert_array_equal(seen[-1].ids_BL, whole.ids_BL)
    np.testing.assert_array_equal(seen[-1].forwards_B, whole.forwards_B)
    np.testing.assert_allclose(seen[-1].nats_BL, whole.nats_BL, atol=1e-5)


def test_the_settings_of_rows_share_one_program():
    before = denoise._cache_size()  # type: ignore[attr-defined]
    for steps, block, temperature in ((2, 3, 1.0), (8, WHOLE_ROW, 0.0), (8, 1, 2.0)):
        fill(canvas(np.full((3, L), V), steps, block, temperature=temperature), FIRST_HITTING, MODEL)
    assert denoise._cache_size() == before + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(("steps", "block", "expected"), [(8, WHOLE_ROW, 8), (3, WHOLE_ROW, 3), (4, 4, 4), (5, 3, 5)])
def test_counted_steps_are_the_forward_passes(steps, block, expected):
    """Blocks of 3, 3 and 2 tokens have 2, 2 and 1 of 5 steps."""
    found = fill(canvas(np.full((2, L), V), steps, block), PROBABILITY, MODEL)
    assert found.forwards_B.tolist() == [expected] * 2


def test_blocks_of_one_token_go_from_left_to_right():
    """Each token at the temperature 0 is the likeliest one given those before it."""
    found = fill(canvas(np.full((1, 4), 3), 4, 1, temperature=0.0), FIRST_HITTING).ids_BL[0]
    for i in range(4):
        seen = tuple(np.where(np.arange(4) < i, found, 3).tolist())
        assert predictions(MASKED, 4)[seen][i].argmax() == found[i]


def test_a_row_ends_at_its_first_eos_and_its_text_does_not_change():
    ends = canvas(np.full((64, L), V), L, 1, eos=3, temperature=3.0)
    found = fill(ends, FIRST_HITTING, MODEL)
    whole = fill(dataclasses.replace(ends, eos_B=np.full(64, -1, np.int32)), FIRST_HITTING, MODEL)
    assert_ended_at_first_eos(found, whole, eos=3)


def test_an_eos_that_was_given_does_not_end_a_row():
    given = np.full((1, L), V)
    given[0, 1] = 3
    found = fill(canvas(given, 7, eos=3, temperature=0.0), FIRST_HITTING, MODEL)
    other = fill(canvas(given, 7, temperature=0.0), FIRST_HITTING, MODEL)
    assert found.ids_BL[0, 0] == other.ids_BL[0, 0]


@pytest.mark.parametrize("w", [0.0, 1.5])
def test_guidance_draws_from_the_guided_prediction(w):
    """The prompt is 2, 1 and position 1 is drawn; without the prompt the row is all MASK."""
    V3 = MASKED.vocab_size
    start, bare = (2, V3, 1), (V3,) * 3
    logits = predictions(MASKED, 3)
    guided_V = logits[bare][1] + (w + 1) * (logits[start][1] - logits[bare][1])
    expected = {(2, token, 1): p for token, p in enumerate(np.exp(log_softmax(guided_V)))}
    found = fill(canvas(np.tile(start, (20_000, 1)), guidance=w), FIRST_HITTING)
    assert p_value(np.asarray(found.ids_BL), expected) > 1e-3
    assert (found.forwards_B == 2).all()
    plain = {(2, token, 1): p for token, p in enumerate(np.exp(log_softmax(logits[start][1])))}
    assert (p_value(np.asarray(found.ids_BL), plain) > 1e-3) == (w == 0)
