"""The Monte Carlo estimate of the NELBO of a target given its prompt, in the count form, with an honest error.

A group of 8 draws has 4 strata of the number of masked tokens K. The draws of a stratum mask K and n + 1 - K tokens:
the second draw masks all tokens that the first one does not, and one more, so each draw alone is a uniform set of its
size, and the two together score every token. The groups of a pair are independent, and so are the strata of a group. So
the spread over the groups within each stratum gives the standard error, whatever the strata and the complements save.
It has about three times the degrees of freedom that the spread of the groups' means has. With so few groups that
matters: a noisy error is too small on average, most of all where the draws end because it is small.

The draws of a pair depend only on its ids, the seed and the number of the group, not on the other pairs or on its
place among them. Draws are added in rounds until the error is small enough or the budget is used.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

from mdm_jax.evaluate.likelihood.any_order import all_sets
from mdm_jax.evaluate.likelihood.masked import MaskSets, estimates
from mdm_jax.evaluate.likelihood.requests import Pair, Requests

GROUP_DRAWS = 8
STRATA = GROUP_DRAWS // 2
LEAST_GROUPS = 3
"""The mean reported error of two groups would be a tenth too small."""
FIRST_GROUPS, MOST_GROWTH = 8, 4
"""Groups before the first look at the error, and the most by which a round multiplies the groups."""


def group_of_draws(pair: Pair, index: int, seed: int, group: int) -> MaskSets:
    """The masks of one group. Their weighted nats are an unbiased estimate of the NELBO."""
    rng, tokens = np.random.default_rng([seed, group, pair.digest]), len(pair.target)
    u_P = (np.arange(STRATA) + rng.random(STRATA)) / STRATA
    count_P = np.minimum((u_P * tokens).astype(np.int64), tokens - 1) + 1
    mask_Mn = complementary_masks(count_P, rng.random((STRATA, tokens)).argsort(1).argsort(1))
    return MaskSets(index, mask_Mn, tokens / mask_Mn.sum(1) / GROUP_DRAWS)


def complementary_masks(count_P: Int[np.ndarray, "P"], rank_Pn: Int[np.ndarray, "P n"]) -> Bool[np.ndarray, "M n"]:
    """Two masks for each count K in 1..n and order of the tokens: the first K, and the last n + 1 - K of them."""
    count_P1 = count_P[:, None]
    return np.stack([rank_Pn < count_P1, rank_Pn >= count_P1 - 1], 1).reshape(-1, rank_Pn.shape[1])


@dataclass(frozen=True)
class Bound:
    """The NELBO of a target in nats, its standard error, and the Monte Carlo draws used, 0 if it is exact."""

    nats: float
    se_mc: float
    draws: int


def bounds(requests: Requests, exact: set[int], draws: int, max_se: float, seed: int) -> list[Bound]:
    """The NELBO of the target of every pair.

    Args:
        requests: the pairs and the model.
        exact: the pairs whose sets of masked tokens are all enumerated.
        draws: the most draws of another pair, rounded up to whole groups, of which there are at least three.
        max_se: the error in nats at which no more draws are added; 0 uses all draws.
        seed: chooses the draws.
    """
    most, batches = max(LEAST_GROUPS, -(-draws // GROUP_DRAWS)), requests.batches(rows=2)
    first = min(most, FIRST_GROUPS) if max_se > 0 else most
    found: list[list[np.ndarray]] = [[] for _ in requests.pairs]
    wanted = {p: 1 if p in exact else first for p in range(len(found))}
    while wanted:
        sets: list[MaskSets] = []
        for p, groups in wanted.items():
            pair = requests.pairs[p]
            if p in exact:
                sets.append(all_sets(p, len(pair.target)))
            else:
                sets += [group_of_draws(pair, p, seed, group) for group in range(len(found[p]), groups)]
        for of_one, nats in zip(sets, estimates(requests, sets, batches), strict=True):
            found[of_one.pair].append(nats)
        further = ((p, _groups_wanted(np.stack(found[p]), most, max_se)) for p in wanted if p not in exact)
        wanted = {p: groups for p, groups in further if groups > len(found[p])}
    return [Bound(float(x[0].sum()), 0.0, 0) if p in exact else _bound(np.stack(x)) for p, x in enumerate(found)]


def _bound(nats_GJ: Float64[np.ndarray, "G J"]) -> Bound:
    return Bound(float(nats_GJ.sum(1).mean()), standard_error(nats_GJ), GROUP_DRAWS * len(nats_GJ))


def standard_error(nats_GJ: Float64[np.ndarray, "G J"]) -> float:
    """The standard error of the mean over groups of the sum over strata. All summands are independent."""
    return math.sqrt(float(nats_GJ.var(0, ddof=1).sum()) / len(nats_GJ))


def _groups_wanted(nats_GJ: Float64[np.ndarray, "G J"], most: int, max_se: float) -> int:
    """The groups after which the error will probably be small enough; the present number if it is so now."""
    error, now = standard_error(nats_GJ), len(nats_GJ)
    if max_se <= 0 or not error > max_se:  # NaN is not greater than anything
        return now
    return min(most, math.ceil(now * min(MOST_GROWTH, max(1.25, (error / max_se) ** 2))))
