"""The Monte Carlo estimate of the NELBO of a target given its prompt, in the count form, with an honest error.

A group of 8 draws has 4 strata of the number of masked tokens K. The draws of a stratum mask K and n + 1 - K tokens:
the second draw masks all tokens that the first one does not, and one more, so each draw alone is a uniform set of its
size, and the two together score every token. The groups of a pair are independent. So the spread of the groups' means
gives the standard error, whatever the strata and the complements save.

The draws of a pair depend only on its ids, the seed and the number of the group, not on the other pairs or on its
place among them. Draws are added in rounds until the error is small enough or the budget is used.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mdm_jax.evaluate.likelihood.any_order import all_sets
from mdm_jax.evaluate.likelihood.masked import MaskSets, estimates
from mdm_jax.evaluate.likelihood.requests import Pair, Requests

GROUP_DRAWS = 8
LEAST_GROUPS = 2
FIRST_GROUPS, MOST_GROWTH = 8, 4
"""Groups before the first look at the error, and the most by which a round multiplies the groups."""


def group_of_draws(pair: Pair, index: int, seed: int, group: int) -> MaskSets:
    """The masks of one group. Their weighted nats are an unbiased estimate of the NELBO."""
    rng, tokens, strata = np.random.default_rng([seed, group, pair.digest]), len(pair.target), GROUP_DRAWS // 2
    u_P = (np.arange(strata) + rng.random(strata)) / strata
    count_P = np.minimum((u_P * tokens).astype(np.int64), tokens - 1) + 1
    mask_Mn = complementary_masks(count_P, rng.random((strata, tokens)).argsort(1).argsort(1))
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
        draws: the most draws of another pair, rounded up to whole groups, of which there are at least two.
        max_se: the error in nats at which no more draws are added; 0 uses all draws.
        seed: chooses the draws.
    """
    most, batches = max(LEAST_GROUPS, -(-draws // GROUP_DRAWS)), requests.batches(rows=2)
    first = min(most, FIRST_GROUPS) if max_se > 0 else most
    means: list[list[float]] = [[] for _ in requests.pairs]
    wanted = {p: 1 if p in exact else first for p in range(len(means))}
    while wanted:
        sets: list[MaskSets] = []
        for p, groups in wanted.items():
            pair, done = requests.pairs[p], len(means[p])
            all_of_it = [all_sets(p, len(pair.target))] if p in exact else None
            sets += all_of_it or [group_of_draws(pair, p, seed, group) for group in range(done, groups)]
        for of_one, mean in zip(sets, estimates(requests, sets, batches), strict=True):
            means[of_one.pair].append(float(mean))
        further = ((p, _groups_wanted(means[p], most, max_se)) for p in wanted if p not in exact)
        wanted = {p: groups for p, groups in further if groups > len(means[p])}
    return [
        Bound(x[0], 0.0, 0) if p in exact else Bound(float(np.mean(x)), standard_error(x), GROUP_DRAWS * len(x))
        for p, x in enumerate(means)
    ]


def standard_error(means: list[float]) -> float:
    """The standard error of the mean of independent groups."""
    return float(np.std(means, ddof=1)) / math.sqrt(len(means))


def _groups_wanted(means: list[float], most: int, max_se: float) -> int:
    """The groups after which the error will probably be small enough; the present number if it is so now."""
    error, now = standard_error(means), len(means)
    if max_se <= 0 or error <= max_se:
        return now
    return min(most, math.ceil(now * min(MOST_GROWTH, max(1.25, (error / max_se) ** 2))))
