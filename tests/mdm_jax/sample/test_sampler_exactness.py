"""Ancestral sampling and first hitting against enumeration: the histogram of many rows has the right probabilities."""

import numpy as np
import pytest
from canvases import MASKED, canvas, fill
from sampler_chains import chain, each_by_itself, one_at_random, p_value

from mdm_jax.sample.canvas import WHOLE_ROW
from mdm_jax.sample.rules.ancestral import ANCESTRAL
from mdm_jax.sample.rules.first_hitting import FIRST_HITTING
from mdm_jax.sample.rules.rule import Rule

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L = MASKED.vocab_size, 4
ROWS = 20_000
SMALLEST_P = 1e-3


def sampled(rule: Rule, steps: int, start=(V,) * L, block=WHOLE_ROW, **options) -> np.ndarray:
    return np.asarray(fill(canvas(np.tile(start, (ROWS, 1)), steps, block, **options), rule).ids_BL)


def any_order(start=(V,) * L, block=None):
    return chain(start, sum(token == V for token in start), one_at_random(MASKED, block))


def test_first_hitting_has_the_distribution_of_the_average_over_all_orders():
    assert p_value(sampled(FIRST_HITTING, L), any_order()) > SMALLEST_P


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_thousand_rows_have_it_too(seed):
    rows = np.concatenate([sampled(FIRST_HITTING, L, seed=(10 * seed + part) * ROWS) for part in range(10)])
    assert p_value(rows, any_order()) > SMALLEST_P


@pytest.mark.parametrize("steps", [1, 3])
def test_ancestral_sampling_has_the_distribution_of_its_chain(steps):
    expected = chain((V,) * L, steps, each_by_itself(MASKED, steps))
    assert p_value(sampled(ANCESTRAL, steps, seed=7), expected) > SMALLEST_P


def test_ancestral_chains_of_many_steps_approach_the_average_over_all_orders():
    """The two distributions differ by the chance that two tokens share a step, which falls as 1 / steps."""
    limit = any_order((V,) * 3)
    far = []
    for steps in (8, 32):
        found = chain((V,) * 3, steps, each_by_itself(MASKED, steps))
        far.append(sum(abs(found[row] - limit[row]) for row in limit))
    assert far[1] < far[0] / 3.5


def test_the_histogram_tells_one_step_from_one_token_a_step():
    """The test has power: the independent draws of a single step are another distribution."""
    assert p_value(sampled(ANCESTRAL, 1), any_order()) < 1e-9


def test_block_by_block_has_the_distribution_of_the_blockwise_chain():
    found = sampled(FIRST_HITTING, L, block=2)
    assert p_value(found, any_order(block=2)) > SMALLEST_P
    assert p_value(found, any_order()) < 1e-9


def test_given_tokens_stay_and_the_others_are_drawn_given_them():
    start = (V, 2, V, V)
    found = sampled(FIRST_HITTING, 3, start)
    assert (found[:, 1] == 2).all()
    assert p_value(found, any_order(start)) > SMALLEST_P
