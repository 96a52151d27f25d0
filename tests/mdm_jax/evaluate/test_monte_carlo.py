"""The Monte Carlo estimate of the NELBO: unbiased by enumeration, with an honest error, by draws of the pair's own."""

import collections
import itertools
import math

import jax
import numpy as np
import pytest
from tiny_runs import sharp_model

from mdm_jax.devices.sharding import make_mesh, place
from mdm_jax.evaluate.likelihood import monte_carlo
from mdm_jax.evaluate.likelihood.any_order import all_sets, forwards
from mdm_jax.evaluate.likelihood.monte_carlo import Bound, bounds, complementary_masks, group_of_draws
from mdm_jax.evaluate.likelihood.pairs import Options, score
from mdm_jax.evaluate.likelihood.requests import Pair, Requests
from mdm_jax.spec import Likelihood, ModelSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V = 5
MDM = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)
placed = jax.jit(place)
RANDOM = np.random.default_rng(1)
LONG = Pair(np.array([3, 1], np.int32), RANDOM.integers(0, V, 10).astype(np.int32))


def requests(pairs, guidance=None) -> Requests:
    mesh = make_mesh(1, 1, jax.devices()[:1])
    with jax.set_mesh(mesh):
        return Requests(placed(sharp_model(MDM)), MDM, pairs, 16, mesh, guidance)


def measured(pairs, draws=128, max_se=0.0, seed=0, guidance=None):
    """Nats, error and draws of each pair."""
    asked = requests(pairs, guidance)
    with jax.set_mesh(asked.mesh):
        return bounds(asked, set(), draws, max_se, seed)


def exact(pair, guidance=None) -> float:
    asked = requests([pair], guidance)
    with jax.set_mesh(asked.mesh):
        return bounds(asked, {0}, 2, 0.0, 0)[0].nats


def table(sets) -> dict[tuple[bool, ...], float]:
    """The total weight of each set of tokens."""
    total: dict = collections.defaultdict(float)
    for mask_n, weight in zip(sets.mask_Mn.tolist(), sets.weight_M, strict=True):
        total[tuple(mask_n)] += weight
    return {mask: weight for mask, weight in total.items() if any(mask)}


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_all_sets_have_the_weights_of_all_orders(tokens):
    """A set's weight counts the orders in which exactly this set is still masked when its tokens are next."""
    expected: dict = collections.defaultdict(float)
    for order in itertools.permutations(range(tokens)):
        for step in range(tokens):
            left = set(order[step:])
            # The next token is scored alone; by symmetry each token of the set is the next one equally often.
            expected[tuple(i in left for i in range(tokens))] += 1 / math.factorial(tokens) / len(left)
    found = table(all_sets(0, tokens))
    assert len(found) == forwards(tokens)
    assert found == pytest.approx(dict(expected), abs=1e-12)


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_the_expectation_over_counts_and_orders_is_that_of_all_sets(tokens):
    """The mean, over counts and orders of the tokens, of the weights that a pair of draws gives to each set."""
    ranks = np.array(list(itertools.permutations(range(tokens))))
    total: dict = collections.defaultdict(float)
    for count in range(1, tokens + 1):
        mask_Mn = complementary_masks(np.full(len(ranks), count), ranks)
        sizes = mask_Mn.reshape(-1, 2, tokens).sum((1, 2))
        assert (sizes == tokens + 1).all()
        for mask_n in mask_Mn:
            total[tuple(mask_n.tolist())] += tokens / mask_n.sum() / len(mask_Mn) / tokens
    assert dict(total) == pytest.approx(table(all_sets(0, tokens)), abs=1e-12)


def test_the_draws_of_a_group_are_uniform():
    """Over many groups, each count is as frequent as any other, and each token is masked equally often."""
    pair = Pair(np.zeros(0, np.int32), np.zeros(6, np.int32))
    masks = np.concatenate([group_of_draws(pair, 0, 0, group).mask_Mn for group in range(2000)])
    frequency = np.bincount(masks.sum(1), minlength=7)[1:] / len(masks)
    np.testing.assert_allclose(frequency, 1 / 6, atol=0.01)
    np.testing.assert_allclose(masks.mean(0), 7 / 12, atol=0.012)  # 4 sd, if draws were independent


def repeated(repetitions: int, **options) -> list[Bound]:
    """Evaluations of LONG that differ in their draws alone: of as many copies, each with a digest of its own."""
    copies = [Pair(LONG.prompt, LONG.target) for _ in range(repetitions)]
    for number, copy in enumerate(copies):
        vars(copy)["digest"] = number
    return measured(copies, **options)


BUDGETS = {"the default": (300, 128, 0), "fewest draws": (1000, 2, 0), "until an error": (1000, 1 << 14, 9)}


@pytest.mark.parametrize(("repetitions", "draws", "groups"), BUDGETS.values(), ids=BUDGETS)
def test_the_reported_error_is_the_spread_of_repeated_evaluations(repetitions, draws, groups):
    """Their spread has an error of 4%, or of 2.2%. `max_se` is the error of 9 groups: a third of the pairs get 8."""
    max_se = measured([LONG], 1 << 12)[0].se_mc * math.sqrt(512 / groups) if groups else 0.0
    found = repeated(repetitions, draws=draws, max_se=max_se)
    nats, errors = np.array([(one.nats, one.se_mc) for one in found]).T
    first = np.mean([one.draws == 8 * monte_carlo.FIRST_GROUPS for one in found])
    assert 0.2 < first < 0.6 if max_se else first == 0
    spread = nats.std(ddof=1)
    assert errors.mean() == pytest.approx(spread, rel=0.1)
    # To end the draws at a small error prefers small values a little, as with any skewed distribution.
    bias = 0.2 * spread if max_se else 0.0
    assert abs(nats.mean() - exact(LONG)) < 3.5 * spread / math.sqrt(repetitions) + bias
    assert 0.85 < np.mean(np.abs(nats - exact(LONG)) < 2 * errors) <= 0.98


def test_more_draws_come_closer_to_the_average_over_all_orders():
    target = exact(LONG)
    few, many = (measured([LONG], draws=draws)[0] for draws in (128, 4096))
    assert few.se_mc / 8 < many.se_mc < few.se_mc / 4
    assert abs(many.nats - target) < 3 * many.se_mc < 0.02 * target
    guided, w = measured([LONG], 2048, guidance=0.5)[0], 0.5
    assert abs(guided.nats - exact(LONG, w)) < 3 * guided.se_mc
    assert abs(exact(LONG, w) - target) > 0.1


def test_draws_depend_on_the_ids_and_the_seed_alone():
    others = [Pair(LONG.target[:n], LONG.target) for n in (1, 2, 3)]  # the same target after other prompts
    alone, among = measured([LONG]), measured([*others, LONG])
    assert among[3].nats == pytest.approx(alone[0].nats, rel=1e-6)
    assert measured([LONG])[0] == alone[0]
    assert measured([LONG], seed=1)[0].nats != alone[0].nats
    moved = Pair(LONG.prompt[:1], np.concatenate([LONG.prompt[1:], LONG.target]))
    assert moved.digest != LONG.digest


def test_draws_are_added_until_the_error_or_the_budget_is_reached():
    wanted = measured([LONG], draws=512)[0].se_mc
    pairs = [LONG, Pair(LONG.prompt, np.array([1, 1, 1, 1, 1, 1, 1, 1], np.int32))]
    found = measured(pairs, draws=1 << 14, max_se=wanted)
    assert all(one.se_mc <= wanted for one in found)
    assert 128 <= found[0].draws <= 2048
    assert found[0].draws != found[1].draws
    assert measured([LONG], draws=found[0].draws)[0].nats == pytest.approx(found[0].nats, rel=1e-6)
    assert measured([LONG], draws=100, max_se=1e-9)[0].draws == 104
    assert measured([LONG], draws=1 << 14, max_se=1e9)[0].draws == monte_carlo.FIRST_GROUPS * 8


def test_weights_with_nan_give_one_line():
    asked = requests([LONG, LONG])
    asked.params.norm_final[...] = asked.params.norm_final[...] * np.nan  # a copy: `placed` made it
    with jax.set_mesh(asked.mesh):
        for method in (Likelihood.NELBO, Likelihood.LEFT_TO_RIGHT, Likelihood.CONFIDENCE):
            with pytest.raises(ValueError, match=r"pairs\[0\]: log-likelihood = nan: must be finite") as raised:
                score(asked, Options(method))
            assert "\n" not in str(raised.value)
