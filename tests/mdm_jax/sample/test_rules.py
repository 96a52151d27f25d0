"""The rules that look at predictions, or take tokens back, against enumeration of their chains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from canvases import MASKED, canvas, fill
from sampler_chains import above_threshold, chain, p_value, surest_first, taking_back, within_entropy

from mdm_jax.sample.draw import Predicted
from mdm_jax.sample.rules.ancestral import ANCESTRAL
from mdm_jax.sample.rules.confidence import ENTROPY, MARGIN, PROBABILITY
from mdm_jax.sample.rules.remask import REMASK_CAP, REMASK_CONFIDENCE, REMASK_RESCALE
from mdm_jax.sample.rules.rule import View
from mdm_jax.sample.samplers import KINDS, Sampler

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L, ROWS = MASKED.vocab_size, 3, 20_000


@functools.cache
def sampled(sampler: Sampler, steps: int = 1, bound: float = 0.0) -> np.ndarray:
    return np.asarray(fill(canvas(np.full((ROWS, L), V), steps, bound=bound), KINDS[sampler].rule).ids_BL)


def nats(p_V, token):
    return -np.log(p_V[token])


def lead(p_V, _):
    low, high = np.sort(p_V)[-2:]
    return low - high


def entropy(p_V, _):
    return -(p_V * np.log(p_V)).sum()


SCORES = {Sampler.CONFIDENCE: nats, Sampler.MARGIN: lead, Sampler.ENTROPY: entropy}


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("sampler", SCORES)
def test_an_order_of_confidence_has_the_distribution_of_its_chain(sampler, steps):
    expected = chain((V,) * L, steps, surest_first(MASKED, steps, SCORES[sampler]))
    assert p_value(sampled(sampler, steps), expected) > 1e-3


def test_each_order_goes_by_its_own_score():
    """Position 0 has the likeliest drawn token, 1 the greatest lead, and 2 the least entropy."""
    predicted = Predicted(*(jnp.array(x) for x in ([0, 1, 2], [0.2, 0.3, 0.9], [0.1, 0.6, 0.5], [0.9, 0.8, 0.3])))
    every_L, none_L, one = jnp.ones(3, bool), jnp.zeros(3, bool), jnp.int32(1)
    view = View(every_L, none_L, jnp.zeros(3), one, jnp.int32(4), jnp.float32(0), 1e-4, predicted)
    for place, rule in enumerate((PROBABILITY, MARGIN, ENTROPY)):
        change = rule.choose(view, jax.random.key(0))
        assert np.flatnonzero(change.reveal_L).tolist() == [place]
        assert not change.hide_L.any()


@pytest.mark.parametrize("bound", [0.3, 0.6, 1.0])
def test_a_threshold_has_the_distribution_of_its_chain(bound):
    expected = chain((V,) * L, L, above_threshold(MASKED, bound))
    assert p_value(sampled(Sampler.THRESHOLD, bound=bound), expected) > 1e-3


@pytest.mark.parametrize("bound", [0.0, 0.5, 1.5])
def test_a_bound_of_entropy_has_the_distribution_of_its_chain(bound):
    expected = chain((V,) * L, L, within_entropy(MASKED, bound))
    assert p_value(sampled(Sampler.ENTROPY_BOUND, bound=bound), expected) > 1e-3


SIGMAS = {
    Sampler.REMASK_CAP: lambda eta, most: min(eta, most),
    Sampler.REMASK_RESCALE: lambda eta, most: eta * most,
}


@pytest.mark.parametrize("sampler", SIGMAS)
def test_remasking_has_the_distribution_of_its_chain(sampler):
    sigma = functools.partial(SIGMAS[sampler], 0.4)
    expected = chain((V,) * L, 4, taking_back(MASKED, 4, sigma))
    assert p_value(sampled(sampler, 4, 0.4), expected) > 1e-3
    assert p_value(sampled(Sampler.ANCESTRAL, 4), expected) < 1e-3


@pytest.mark.parametrize("rule", [REMASK_CAP, REMASK_RESCALE, REMASK_CONFIDENCE])
def test_remasking_at_zero_rate_is_ancestral_sampling(rule):
    rows = canvas(np.full((ROWS, L), V), 5)
    found, expected = fill(rows, rule), fill(rows, ANCESTRAL)
    np.testing.assert_array_equal(found.ids_BL, expected.ids_BL)
    np.testing.assert_array_equal(found.forwards_B, expected.forwards_B)
