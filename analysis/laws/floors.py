"""How well the minima determine a fitted floor: its interval, which is printed wherever the floor is.

The interval includes all floors at which the best law passes an F-test at 5% (profile likelihood, Bates and Watts 1988,
ch. 6; one degree of freedom against those that the points leave). The floor is undetermined if the interval reaches 0
or the lowest loss, or if the points leave no degree of freedom. A power law, or losses that fall no further, then
describe the same points.
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis.laws.floor_solver import HIGHEST, Saturated, fit_floors
from analysis.sampling import LEVEL

EXACT = 1e-8
"""Scatter of log loss below which points lie on their law but for rounding, which tests nothing."""
AT_ZERO, AT_LOWEST = 1e-3, 0.998
"""A floor below the one share of the lowest loss, or above the other, ran to an end of its range."""


@dataclass(frozen=True)
class Floor:
    """A family's floor, nats per token, and what the data tell of it; nan without a floor."""

    value: float = math.nan
    given: bool = False
    interval: tuple[float, float] = (math.nan, math.nan)
    """95% interval of a fitted floor."""
    at_bound: bool = False
    """The fitted floor ran to an end of its range, 0 or the lowest loss."""
    undetermined: bool = False
    """The floor or an end of its interval is at an end of its range."""


def fitted_floor(log_c: list[np.ndarray], log_l: list[np.ndarray], best: Saturated) -> Floor:
    """The floor of fitted laws; `log_c` and `log_l` hold the minima, [1, B] each, of the families that share it."""
    value, lowest, interval = float(best.floor[0]), lowest_loss(log_l), _interval(log_c, log_l, best)
    return Floor(value, False, interval, is_at_bound(value, lowest), reaches_bound(interval, value, lowest))


def is_at_bound(floor: float, lowest: float) -> bool:
    """Whether a fitted floor ran to 0 or to the lowest loss, the ends of its range."""
    return floor < AT_ZERO * lowest or floor > AT_LOWEST * lowest


def reaches_bound(interval: tuple[float, float], floor: float, lowest: float) -> bool:
    """Whether a fitted floor or an end of its interval is at 0 or at the lowest loss."""
    return any(is_at_bound(value, lowest) for value in (floor, *interval))


def _interval(log_c: list[np.ndarray], log_l: list[np.ndarray], best: Saturated) -> tuple[float, float]:
    """Ends of the floors, nats per token, that an F-test does not reject; 0 to the lowest loss without dof."""
    from scipy.optimize import root_scalar
    from scipy.special import fdtri

    highest = HIGHEST * lowest_loss(log_l)
    points = sum(x.shape[1] for x in log_c)
    dof = points - 2 * len(log_c) - 1
    if dof < 1:
        return 0.0, highest
    most = max(float(best.cost[0]), points * EXACT**2) * (1 + float(fdtri(1, dof, LEVEL)) / dof)
    floor = float(best.floor[0])

    def excess(tried: float) -> float:
        return float(fit_floors(log_c, log_l, np.array([tried])).cost[0]) - most

    ends = [end if excess(end) <= 0 else root_scalar(excess, bracket=(floor, end)).root for end in (0.0, highest)]
    return float(ends[0]), float(ends[1])


def lowest_loss(log_l: list[np.ndarray]) -> float:
    """The lowest of all families' losses."""
    return min(float(np.exp(values.min())) for values in log_l)
