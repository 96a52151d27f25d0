"""Sizes around an expected optimum, so that a minimum is interior and the losses of two families overlap.

A quadratic needs sizes on both sides of its minimum, and the optimum is known beforehand only to a factor of about two.
So a curve has at least seven sizes within a factor of four of the expected optimum. They are spread evenly in log N and
are centred for each family by itself. A gap between families is read at equal loss, so each family needs at least three
budgets whose expected loss lies inside the other's range.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from isoflop.sweep import FEWEST_SIZES

FEWEST_BUDGETS = 3
FEWEST_ON_A_SIDE = 2
"""Sizes on each side of the expected optimum. With fewer, the minimum may lie at the edge of the sizes."""


def choose_sizes(params: Mapping[str, int], n_opt: float, window: float, count: int) -> tuple[str, ...]:
    """Names of `count` sizes, smallest first, that lie most evenly in log N over `n_opt / window` to `n_opt * window`.

    If fewer than `count` lie there, the nearest sizes outside are added.

    Args:
        params: non-embedding parameters by name.
        n_opt: the expected optimum, in parameters.
        window: a factor above 1.
        count: number of sizes; 0 takes every size in the window.
    """
    offset = {name: math.log(n / n_opt) for name, n in sorted(params.items(), key=lambda item: item[1])}
    nearest = sorted(offset, key=lambda name: abs(offset[name]))
    inside = [name for name in nearest if abs(offset[name]) <= math.log(window)]
    wanted = count or max(len(inside), FEWEST_SIZES)
    if len(inside) <= wanted:
        chosen = set(nearest[:wanted])
        return tuple(name for name in offset if name in chosen)
    candidates = [name for name in offset if name in set(inside)]
    return tuple(candidates[i] for i in _most_even([offset[name] for name in candidates], math.log(window), count))


def _most_even(positions: Sequence[float], half: float, count: int) -> tuple[int, ...]:
    """Indices of the `count` sorted positions that are nearest, in squares, to even steps from -half to half.

    Dynamic programming: `best[j]` is the best choice for the targets so far among the first j positions.
    """
    targets = [half * (2 * i / (count - 1) - 1) for i in range(count)]
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())] * (len(positions) + 1)
    for i, target in enumerate(targets):
        row: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())] * (len(positions) + 1)
        for j in range(i, len(positions)):
            cost, chosen = best[j]
            row[j + 1] = min(row[j], (cost + (positions[j] - target) ** 2, (*chosen, j)), key=lambda entry: entry[0])
        best = row
    return best[-1][1]


def sides(params: Iterable[int], n_opt: float, window: float) -> tuple[int, int]:
    """The numbers of sizes within the factor `window` below the expected optimum, and at or above it."""
    reach, offsets = math.log(window), [math.log(n / n_opt) for n in params]
    return sum(-reach <= x < 0 for x in offsets), sum(0 <= x <= reach for x in offsets)


def are_few(below: int, above: int, fewest: int = FEWEST_SIZES) -> bool:
    """Whether there are fewer than `fewest` sizes within the window, or too few on one side of the optimum."""
    return below + above < fewest or min(below, above) < FEWEST_ON_A_SIDE


def inside_count(losses: Sequence[float], others: Sequence[float]) -> int:
    """The number of a family's expected losses that lie strictly inside the range of the other's."""
    return sum(min(others) < loss < max(others) for loss in losses) if others else 0
