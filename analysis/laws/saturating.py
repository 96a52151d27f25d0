"""Saturating power laws loss = floor + coefficient * C^exponent.

`laws/floor_solver.py` fits them, and `laws/floors.py` says how well the points determine the floor.
"""

import math
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from analysis.laws.floor_solver import fit_floors
from analysis.laws.floors import EXACT, Floor, fitted_floor, lowest_loss
from analysis.laws.law import Law
from analysis.laws.power_law import SlopeTest, checked_logs


@dataclass(frozen=True, eq=False)
class SaturatingPowerLaw(Law):
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

    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log loss at log FLOPs, of the same shape."""
        return np.asarray(np.log(self.floor + self.coefficient * np.exp(self.exponent * log_flops)))

    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log FLOPs that reach a log loss, of the same shape; nan at or below the floor."""
        return np.asarray((log_above(log_loss, self.floor) - np.log(self.coefficient)) / self.exponent)

    def prediction_interval(self, c: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Unknown, (nan, nan): the floor's own error is no straight line's."""
        nothing = np.full(len(c), np.nan)
        return nothing, nothing


@dataclass(frozen=True, eq=False)
class DrawnLaws(Law):
    """n draws of a family's law, log (loss - floor) = level + slope * log C; a draw whose loss does not fall has none.

    The fields are [n] each, the floor in nats per token; it is 0 for power laws.
    """

    level: np.ndarray
    slope: np.ndarray
    floor: np.ndarray

    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log loss [n, G] at log FLOPs, [G] or [n, G]."""
        return np.log(self.floor[:, None] + np.exp(self.level[:, None] + self._falling_slope * log_flops))

    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log FLOPs [n, G] that reach a log loss, [G] or [n, G]; nan at or below the floor."""
        return (log_above(log_loss, self.floor[:, None]) - self.level[:, None]) / self._falling_slope

    @property
    def _falling_slope(self) -> np.ndarray:
        return np.where(self.slope < 0, self.slope, np.nan)[:, None]


def log_above(log_loss: np.ndarray, floor: np.ndarray | float) -> np.ndarray:
    """Log of how far a loss lies above a floor; nan at or below it."""
    above = np.exp(log_loss) - floor
    return np.asarray(np.log(np.where(above > 0, above, np.nan)))


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
    if isinstance(floor, str):
        if sum(x.shape[1] for x in log_c) < 2 * len(groups) + 1:
            raise ValueError(f"floor = {floor!r}: needs at least {2 * len(groups) + 1} budgets in all")
        fitted = fit_floors(log_c, log_l)
        known = fitted_floor(log_c, log_l, fitted)
    else:
        if not 0 <= floor < (lowest := lowest_loss(log_l)):
            raise ValueError(f"floor = {floor}: must be from 0 to below the lowest loss, {lowest:.4g}")
        fitted = fit_floors(log_c, log_l, np.array([float(floor)]))
        known = Floor(float(floor), given=True)
    laws = [
        SaturatingPowerLaw(
            float(np.exp(level)), float(slope), known.value, known.at_bound, known.interval, known.undetermined
        )
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


def _rows(groups: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    logs = [checked_logs(c, loss) for c, loss in groups]
    return [x[None] for x, _ in logs], [z[None] for _, z in logs]
