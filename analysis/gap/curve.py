"""The compute gap: how many times the FLOPs of the ARM the MDM needs for the same loss.

The gap is one function of two laws, `gap_between`; `gap/laws.py` says which laws there are. Outside the losses that
both families reached, a ratio is an extrapolation of at least one law, and `support` says so.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from analysis.gap.laws import LawPair, pair_of
from analysis.laws.frontier import Frontier, overlap
from analysis.minima.bootstrap import Bootstrap, check_draws
from analysis.sampling import LEVEL
from analysis.tables import gap_point_row, html_table
from analysis.wording import LAWS, significant, with_interval

INTERPOLATED, EXTRAPOLATED = "interpolated", "extrapolated"
GRID_POINTS = 61
SHOWN_POINTS = 5
"""Points of a curve that a notebook's table shows."""
ROUNDING = 1e-12
"""Log losses this far apart are the same."""


@dataclass(frozen=True, repr=False)
class GapPoint:
    """The compute ratio MDM / ARM at one loss (nats per token), its interval and its support; nan where unknown."""

    law: str
    convention: str
    loss: float
    flops_arm: float
    flops_mdm: float
    ratio: float
    lower: float
    upper: float
    support: str
    """"interpolated" where both families' minima reach the loss, else "extrapolated"."""

    def __str__(self) -> str:
        place = f"at a loss of {significant(self.loss, 4)} nats per token"
        if np.isnan(self.ratio):
            return f"no gap {place}: the law ({LAWS[self.law]}) says nothing there"
        known = "both families measured" if self.support == INTERPOLATED else "extrapolated"
        return f"gap {with_interval(self.ratio, self.lower, self.upper)} {place} ({LAWS[self.law]}, {known})"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table([gap_point_row(self)])


@dataclass(frozen=True, eq=False)
class GapCurve:
    """Compute ratio MDM / ARM at equal loss, [G] each; nan where the law says nothing."""

    pair: LawPair = field(repr=False)
    """Both families' laws, which the curve was read from."""
    grid_of: str
    """What the grid holds: "loss", or the ARM's "flops"."""
    law: str
    convention: str
    level: float
    loss: np.ndarray
    """nats per token."""
    flops_arm: np.ndarray
    flops_mdm: np.ndarray
    ratio: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    """Percentile interval of the draws; nan without draws, 0 or inf where too many draws are unknown."""
    support: np.ndarray
    """"interpolated" where both families' minima reach the loss, else "extrapolated"."""
    unknown: np.ndarray
    """Share of draws that give no ratio; half of them count below, half above."""
    overlap: tuple[float, float] | None
    floor: float
    """The floor of both families, nats per token; nan where they have none or differ."""
    floor_at_bound: bool
    """A fitted floor ran to an end of its range: the data do not determine it."""
    floors: tuple[float, float]
    """The ARM's and the MDM's."""
    floor_intervals: tuple[tuple[float, float], tuple[float, float]]
    """95% interval of the ARM's and of the MDM's fitted floor, nats per token; nan for laws without one."""
    floor_undetermined: bool
    """A fitted floor is at an end of its range, or its interval reaches one: the ratio rests on it all the same."""

    def at(self, loss: float) -> GapPoint:
        """The gap at a loss (nats per token) on the grid or not, with its interval and its support.

        Raises:
            ValueError: the loss is not a finite positive number.
        """
        if not 0 < loss < np.inf:
            raise ValueError(f"loss = {loss}: must be a finite positive number, in nats per token")
        return gap_between(self.pair, "loss", np.array([loss]), self.level).points()[0]

    def points(self) -> list[GapPoint]:
        """The curve, point by point."""
        columns = self.loss, self.flops_arm, self.flops_mdm, self.ratio, self.lower, self.upper
        rows = zip(*(column.tolist() for column in columns), self.support.tolist(), strict=True)
        return [GapPoint(self.law, self.convention, *row) for row in rows]

    def as_dict(self) -> dict[str, Any]:
        """What a file holds of the curve, with `grid_of` as "at"."""
        names = [item.name for item in fields(self) if item.name not in ("pair", "grid_of")]
        return {"at": self.grid_of} | {name: getattr(self, name) for name in names}

    def _repr_html_(self) -> str:
        points = self.points()
        shown = np.unique(np.linspace(0, len(points) - 1, SHOWN_POINTS).round().astype(int))
        return html_table([gap_point_row(points[i]) for i in shown])


def compute_gap(
    arm: Frontier,
    mdm: Frontier,
    at: str = "loss",
    law: str = "interpolated",
    grid: np.ndarray | None = None,
    draws: Bootstrap | None = None,
    level: float = LEVEL,
    floor: float | None = None,
) -> GapCurve:
    """Ratio of compute, C_MDM / C_ARM, at equal loss, with its interval and its support.

    For the surfaces' gap see `parametric_gap`, for all laws side by side `gap_sensitivity`.

    Args:
        arm: the ARM's minima, `fit.frontier("arm", convention)`.
        mdm: the MDM's, under the same convention.
        at: what `grid` holds: "loss" (nats per token) or "flops" (the ARM's FLOPs, read at the loss it reaches there).
        law: "interpolated" (a monotone cubic through the minima; only where both families were measured),
            "piecewise_linear", "power_law" (the published way), "shared_floor", "own_floors" or "given_floor".
        grid: where to evaluate, [G]; by default the overlap of the loss ranges, for laws the union of them.
        draws: bootstrap of the fit that the minima come from; gives the interval.
        level: of the interval.
        floor: nats per token, for law="given_floor".

    Raises:
        ValueError: an unknown `at` or law, conventions that differ, fewer than two minima a family, no overlap to
            interpolate in, a floor that is missing, superfluous or not below every loss, families that are swapped,
            or draws that are too few for the level or of another fit than the minima.
    """
    check_arguments(at, level)
    return gap_between(pair_of((arm, mdm), law, floor, draws, level), at, grid, level)


def gap_between(pair: LawPair, at: str, grid: np.ndarray | None, level: float) -> GapCurve:
    """The gap between two laws; `at`, `grid` and `level` as in `compute_gap`, and with the same errors."""
    check_arguments(at, level)
    log_l, log_c = _grid(pair, at, grid)
    log_arm, log_mdm = (law.log_flops(log_l)[0] for law in pair.laws)
    shared = overlap(*pair.sides)
    measured = np.zeros(len(log_l), bool) if shared is None else _within(log_l, *np.log(shared))
    lower, upper, unknown = _interval(pair, log_l, log_c, level)
    readable = _within(log_l, *pair.support)
    log_arm, log_mdm, lower, upper = (np.where(readable, v, np.nan) for v in (log_arm, log_mdm, lower, upper))
    arm, mdm = pair.floors
    return GapCurve(
        pair=pair,
        grid_of=at,
        law=pair.name.value,
        convention=pair.sides[0].convention,
        level=level,
        loss=np.exp(log_l),
        flops_arm=np.exp(log_arm),
        flops_mdm=np.exp(log_mdm),
        ratio=np.exp(log_mdm - log_arm),
        lower=lower,
        upper=upper,
        support=np.where(measured, INTERPOLATED, EXTRAPOLATED),
        unknown=unknown,
        overlap=shared,
        floor=arm.value if arm.value == mdm.value else float("nan"),
        floor_at_bound=arm.at_bound or mdm.at_bound,
        floors=(arm.value, mdm.value),
        floor_intervals=(arm.interval, mdm.interval),
        floor_undetermined=arm.undetermined or mdm.undetermined,
    )


def middle_of_overlap(arm: Frontier, mdm: Frontier) -> float | None:
    """The headline's loss, nats per token: the middle, in log loss, of what both families reached; None if nothing."""
    shared = overlap(arm, mdm)
    return None if shared is None else float(np.sqrt(shared[0] * shared[1]))


def quoted_loss(arm: Frontier, mdm: Frontier) -> float:
    """The loss at which a gap is quoted: the middle, in log loss, of the overlap or of the space between the ranges."""
    middle = middle_of_overlap(arm, mdm)
    if middle is not None:
        return middle
    low = min(arm.loss_range[1], mdm.loss_range[1])
    high = max(arm.loss_range[0], mdm.loss_range[0])
    return float(np.sqrt(low * high))


def check_arguments(at: str, level: float) -> None:
    """Raises a ValueError for an unknown `at`, or a level out of range."""
    if at not in ("loss", "flops"):
        raise ValueError(f"at = {at!r}: must be 'loss' or 'flops'")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must be between 0 and 1")


def _within(log_l: np.ndarray, low: float, high: float) -> np.ndarray:
    return (log_l >= low - ROUNDING) & (log_l <= high + ROUNDING)


def _grid(pair: LawPair, at: str, grid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Log losses [G] of the grid, and with at="flops" the ARM's log FLOPs [G]."""
    arm = pair.laws[0]
    if grid is not None:
        given = np.asarray(grid, np.float64)
        if given.ndim != 1 or not len(given) or not (np.isfinite(given).all() and (given > 0).all()):
            raise ValueError("grid: must be a list of finite positive numbers")
        values = np.log(given)
    else:
        lows, highs = np.log([side.loss_range for side in pair.sides]).T
        ends = np.clip([lows.min(), highs.max()], *pair.support)
        if at == "flops":
            ends = arm.log_flops(ends[::-1])[0]
        values = np.linspace(ends[0], ends[1], GRID_POINTS)
    return (values, None) if at == "loss" else (arm.log_loss(values)[0], values)


def _interval(
    pair: LawPair, log_l: np.ndarray, log_c: np.ndarray | None, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower, upper, share of unknown draws), [G] each: at log losses, or where given at the ARM's log FLOPs.

    At the ARM's FLOPs every draw reaches a loss of its own. Holding the loss there instead, intervals were 6 to 7% too
    narrow under power laws, and covered 179 of 200 simulated truths where these covered 184.
    """
    if pair.drawn is None:
        nothing = np.full(len(log_l), np.nan)
        return nothing, nothing, nothing
    arm, mdm = pair.drawn
    if log_c is None:
        return percentile_interval(mdm.log_flops(log_l) - arm.log_flops(log_l), level)
    return percentile_interval(mdm.log_flops(arm.log_loss(log_c)) - log_c, level)


def percentile_interval(log_values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interval of exp(values) over the draws [n, G], [G] each, and the share of draws that are unknown.

    An unknown draw could lie on either side: half of them count below all others and half above, so that with more than
    1 - level of them unknown the interval is (0, inf).

    Raises:
        ValueError: too few draws for the level.
    """
    check_draws(len(log_values), level)
    ranked = np.sort(np.where(np.isfinite(log_values), log_values, np.nan), axis=0)
    n, columns = len(ranked), np.arange(ranked.shape[1])
    known = np.isfinite(ranked).sum(0)
    tail, half = (1 - level) / 2, (n - known) / 2
    first = np.floor(tail * (n - 1) - half).astype(int)
    last = np.ceil((1 - tail) * (n - 1) - half).astype(int)
    lower = np.where(first < 0, -np.inf, ranked[np.clip(first, 0, n - 1), columns])
    upper = np.where(last >= known, np.inf, ranked[np.clip(last, 0, n - 1), columns])
    return np.exp(lower), np.exp(upper), 1 - known / n
