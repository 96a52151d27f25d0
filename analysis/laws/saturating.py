"""Saturating power laws loss = floor + coefficient * C^exponent, and how well the points determine the floor.

`laws/floor_solver.py` fits them. A floor is read far below the points, so its interval is printed wherever it is: all
floors at which the best law fits the points no worse than an F-test at 5% allows (profile likelihood, Bates and Watts
1988, ch. 6; one degree of freedom against those that the points leave). Where that interval reaches 0 or the lowest
loss, or the points leave no degree of freedom, the floor is `floor_undetermined`: the power law, or losses that fall no
further, describe the same points.
"""

import math
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from analysis.laws.floor_solver import HIGHEST, Saturated, fit_floors
from analysis.laws.power_law import SlopeTest, checked_logs
from analysis.sampling import LEVEL

EXACT = 1e-8
"""Scatter of log loss below which points lie on their law but for rounding, which tests nothing."""
AT_ZERO, AT_LOWEST = 1e-3, 0.998
"""A floor below the one share of the lowest loss, or above the other, ran to an end of its range."""
PROFILED, ZOOMS = 17, 4
"""Floors that each of so many passes tries for the ends of an interval; the ends are known to 1e-4 of the range."""


@dataclass(frozen=True, eq=False)
class SaturatingPowerLaw:
    """loss = floor + coefficient * C^exponent."""

    coefficient: float
    exponent: float
    floor: float
    at_bound: bool
    """The fitted floor ran to 0 or up to the lowest loss: the data do not determine it."""
    floor_interval: tuple[float, float] = (math.nan, math.nan)
    """95% interval of a fitted floor, nats per token; nan where the floor was given or comes from elsewhere."""
    floor_undetermined: bool = False
    """A fitted floor is at an end of its range, or its interval reaches one."""

    def predict(self, c: np.ndarray | float) -> np.ndarray:
        """Loss (nats per token) at compute c (FLOPs)."""
        return np.asarray(self.floor + self.coefficient * np.asarray(c, np.float64) ** self.exponent)

    def invert(self, loss: np.ndarray | float) -> np.ndarray:
        """Compute c (FLOPs) that reaches the loss; nan at or below the floor."""
        above = np.asarray(loss, np.float64) - self.floor
        safe = np.where(above > 0, above, np.nan)
        return np.asarray(np.exp((np.log(safe) - np.log(self.coefficient)) / self.exponent))


@overload
def fit_saturating_power_law(
    c: list[np.ndarray], loss: list[np.ndarray], floor: Literal["shared"]
) -> list[SaturatingPowerLaw]: ...


@overload
def fit_saturating_power_law(
    c: np.ndarray, loss: np.ndarray, floor: float | Literal["free"] = "free"
) -> SaturatingPowerLaw: ...


def fit_saturating_power_law(
    c: np.ndarray | list[np.ndarray], loss: np.ndarray | list[np.ndarray], floor: float | str = "free"
) -> SaturatingPowerLaw | list[SaturatingPowerLaw]:
    """The law floor + k C^a, by least squares on log loss; with floor="shared" a list of laws, one a family.

    A law with a fitted floor is never worse, by the sum of squares of log loss, than the power law or one with a given
    floor, and laws with a floor each are never worse than laws that share one.

    Args:
        c: compute, FLOPs, [n]; with floor="shared" a list of such, one a family.
        loss: nats per token, as c.
        floor: "free" fits it, "shared" fits one for all families, a number fixes it.

    Raises:
        ValueError: fewer than three budgets for a free floor, a given floor at or above a loss, or bad numbers.
    """
    if isinstance(floor, str) and floor not in ("free", "shared"):
        raise ValueError(f"floor = {floor!r}: must be 'free', 'shared' or a number")
    shared = floor == "shared"
    groups = list(zip(c, loss, strict=True)) if shared else [(np.asarray(c), np.asarray(loss))]
    log_c, log_l = _rows(groups)
    lowest = _lowest(log_l)
    interval, undetermined = (math.nan, math.nan), False
    if isinstance(floor, str):
        if sum(x.shape[1] for x in log_c) < 2 * len(groups) + 1:
            raise ValueError(f"floor = {floor!r}: needs at least {2 * len(groups) + 1} budgets in all")
        fitted = fit_floors(log_c, log_l)
        interval = floor_interval(log_c, log_l, fitted)
        undetermined = reaches_bound(interval, float(fitted.floor[0]), lowest)
    else:
        if not 0 <= floor < lowest:
            raise ValueError(f"floor = {floor}: must be from 0 to below the lowest loss, {lowest:.4g}")
        fitted = fit_floors(log_c, log_l, np.array([float(floor)]))
    value = float(fitted.floor[0])
    bound = isinstance(floor, str) and floor_at_bound(value, lowest)
    laws = [
        SaturatingPowerLaw(float(np.exp(level)), float(slope), value, bound, interval, undetermined)
        for level, slope in zip(fitted.level[0], fitted.slope[0], strict=True)
    ]
    return laws if shared else laws[0]


def compare_saturating_slopes(c: list[np.ndarray], loss: list[np.ndarray]) -> SlopeTest:
    """The test that two families' laws floor + k C^a, which share the floor, have one exponent.

    An F-test of one exponent against two, with the floor fitted anew in each (five parameters with two exponents; t is
    the root of F, with the difference's sign). Unequal floors look to it like unequal exponents.

    Args:
        c: compute, FLOPs, [n] of either family.
        loss: nats per token, as c.

    Raises:
        ValueError: not two families, or impossible numbers in one of them.
    """
    from scipy.special import stdtr

    if len(c) != 2 or len(loss) != 2:
        raise ValueError(f"c, loss: {len(c)} and {len(loss)} families, must be two")
    log_c, log_l = _rows(list(zip(c, loss, strict=True)))
    own, one = fit_floors(log_c, log_l), fit_floors(log_c, log_l, one_slope=True)
    difference, rest = float(own.slope[0, 0] - own.slope[0, 1]), float(own.cost[0])
    extra = max(float(one.cost[0]) - rest, 0.0)
    dof = sum(x.shape[1] for x in log_c) - 5
    if dof < 1 or not rest > dof * EXACT**2:
        return SlopeTest(difference, float("nan"), float(dof), float("nan"), float("nan"))
    t = float(np.copysign(np.sqrt(extra * dof / rest), difference))
    se = abs(difference / t) if t else float("nan")
    return SlopeTest(difference, se, float(dof), t, float(2 * stdtr(dof, -abs(t))))


def floor_at_bound(floor: float, lowest: float) -> bool:
    """Whether a fitted floor ran to 0 or to the lowest loss, the ends of its range."""
    return floor < AT_ZERO * lowest or floor > AT_LOWEST * lowest


def reaches_bound(interval: tuple[float, float], floor: float, lowest: float) -> bool:
    """Whether a fitted floor or an end of its interval is at 0 or at the lowest loss."""
    return floor_at_bound(floor, lowest) or any(floor_at_bound(end, lowest) for end in interval)


def floor_interval(
    log_c: list[np.ndarray], log_l: list[np.ndarray], best: Saturated, level: float = LEVEL
) -> tuple[float, float]:
    """Ends of the floors, nats per token, that an F-test does not reject; 0 to the lowest loss without dof.

    Args:
        log_c: log FLOPs of the families' minima, [1, B] each.
        log_l: log losses, as log_c; the families share the floor.
        best: their fitted laws.
        level: of the interval.
    """
    from scipy.special import fdtri

    highest = HIGHEST * _lowest(log_l)
    points = sum(x.shape[1] for x in log_c)
    dof = points - 2 * len(log_c) - 1
    if dof < 1:
        return 0.0, highest
    rest = max(float(best.cost[0]), points * EXACT**2)
    most = rest * (1 + float(fdtri(1, dof, level)) / dof)
    floor = float(best.floor[0])
    return _crossing(log_c, log_l, floor, 0.0, most), _crossing(log_c, log_l, floor, highest, most)


def _crossing(log_c: list[np.ndarray], log_l: list[np.ndarray], inner: float, outer: float, most: float) -> float:
    """The farthest floor that costs less than `most`, between one that does (inner) and an end of the range (outer)."""
    for _ in range(ZOOMS):
        tried = np.linspace(inner, outer, PROFILED)
        rows, losses = ([np.broadcast_to(v, (PROFILED, v.shape[1])) for v in side] for side in (log_c, log_l))
        allowed = fit_floors(rows, losses, tried).cost <= most
        allowed[0] = True
        last = int(np.flatnonzero(allowed)[-1])
        if last == PROFILED - 1:
            return outer
        inner, outer = float(tried[last]), float(tried[last + 1])
    return inner


def _rows(groups: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    logs = [checked_logs(c, loss) for c, loss in groups]
    return [x[None] for x, _ in logs], [z[None] for _, z in logs]


def _lowest(log_l: list[np.ndarray]) -> float:
    return min(float(np.exp(values.min())) for values in log_l)
