"""The compute gap by parametric fits: the families' surfaces, each minimised over N and D at equal compute.

Of the laws it is the one that uses all runs, not only the minima, and it gives each family its own floor. Near either
floor the ratio grows without bound or vanishes, and which of the two is decided by a parameter that no run reaches.

Compute is counted by the minima's convention. Only 6 N D is a function of N and D; under another one a token costs what
the runs say that it costs, interpolated over N (`parametric_frontier`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.gap import EXTRAPOLATED, GRID_POINTS, INTERPOLATED, NO_FLOOR, GapCurve, percentile_interval
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.saturating import reaches_bound
from analysis.runs.columns import ROLES
from analysis.sampling import LEVEL, PARAMETRIC_DRAWS
from analysis.surface.bootstrap import ParametricDraws, bootstrap_parametric
from analysis.surface.fit import ParametricFit, fit_parametric
from analysis.surface.frontier import SurfaceFrontier
from analysis.wording import family_name

LAW = "parametric"


def fit_families(runs: pd.DataFrame, families: Iterable[str]) -> tuple[dict[str, ParametricFit], dict[str, str]]:
    """Converged surfaces by family, and for every other family why it has none."""
    fits, doubts = {}, {}
    for family in families:
        try:
            fit = fit_parametric(runs, family=family)
        except ValueError as error:  # too few runs or sizes for a surface: a finding, not the end of a report
            doubts[family] = str(error)
            continue
        if fit.converged:
            fits[family] = fit
        else:
            doubts[family] = fit.reason
    return fits, doubts


@dataclass(frozen=True, eq=False)
class Surfaces:
    """The ARM's and the MDM's converged fits, and their draws."""

    fits: tuple[ParametricFit, ParametricFit]
    draws: tuple[ParametricDraws, ParametricDraws] | None

    def gap(self, sides: tuple[Frontier, Frontier], at: str, grid: np.ndarray | None, level: float) -> GapCurve:
        """`parametric_gap` of these."""
        return parametric_gap(*sides, self.fits, at, grid, self.draws, level)


def fit_surfaces(runs: pd.DataFrame, draws: int, seed: int) -> tuple[Surfaces | None, str]:
    """Both families' surfaces with draws (unit="run", at most PARAMETRIC_DRAWS), or None and why one has none."""
    fits, doubts = fit_families(runs, ROLES)
    if doubts:
        family, doubt = next(iter(doubts.items()))
        return None, f"{family_name(family)}: {doubt}"
    pair = fits["arm"], fits["mdm"]
    if not draws:
        return Surfaces(pair, None), ""
    arm, mdm = (bootstrap_parametric(fit, "run", min(draws, PARAMETRIC_DRAWS), seed) for fit in pair)
    return Surfaces(pair, (arm, mdm)), ""


def parametric_gap(
    arm: Frontier,
    mdm: Frontier,
    fits: tuple[ParametricFit, ParametricFit],
    at: str = "loss",
    grid: np.ndarray | None = None,
    draws: tuple[ParametricDraws, ParametricDraws] | None = None,
    level: float = LEVEL,
) -> GapCurve:
    """Ratio of compute, C_MDM / C_ARM, at equal loss; nan at or below a floor.

    Args:
        arm: the ARM's minima, which say where the ratio is supported, and how FLOPs are counted.
        mdm: the MDM's, under the same convention.
        fits: of the ARM and of the MDM, converged.
        at: what `grid` holds: "loss" (nats per token) or "flops" (the ARM's).
        grid: where to evaluate, [G]; by default the union of the loss ranges.
        draws: bootstraps of the two fits, of equal length; they give the interval.
        level: of the interval.

    Raises:
        ValueError: an unknown `at`, conventions that differ or under which the runs tell no FLOPs per token, a fit that
            is not converged, no minima, or draws that differ in length or are too few for the level.
    """
    _check(arm, mdm, fits, at, draws, level)
    frontiers = [fit.frontier(arm.convention) for fit in fits]
    log_l = _log_losses(arm, mdm, frontiers[0], at, grid)
    log_arm, log_mdm = (frontier.log_flops(log_l)[0] for frontier in frontiers)
    shared = overlap(arm, mdm)
    inside = np.zeros(len(log_l), bool)
    if shared is not None:
        inside = (log_l >= np.log(shared[0]) - 1e-12) & (log_l <= np.log(shared[1]) + 1e-12)
    nothing = np.full(len(log_l), np.nan)
    lower, upper, unknown = nothing, nothing, nothing
    if draws is not None:
        drawn = [side.frontier(frontier.cost) for side, frontier in zip(draws, frontiers, strict=True)]
        if at == "loss":
            log_ratio = drawn[1].log_flops(log_l) - drawn[0].log_flops(log_l)
        else:  # the ARM's compute is held, and each draw reaches a loss of its own there
            log_ratio = drawn[1].log_flops(np.log(drawn[0].loss(log_arm))) - log_arm
        lower, upper, unknown = percentile_interval(log_ratio, level)
    floors, bound = (fits[0].E, fits[1].E), any(fit.floor_vanished for fit in fits)
    intervals = (NO_FLOOR, NO_FLOOR) if draws is None else (draws[0].intervals()["E"], draws[1].intervals()["E"])
    lowest = arm.loss_range[0], mdm.loss_range[0]
    undetermined = bound or any(map(reaches_bound, intervals, floors, lowest))
    return GapCurve(
        at, LAW, arm.convention, level, np.exp(log_l), np.exp(log_arm), np.exp(log_mdm), np.exp(log_mdm - log_arm),
        lower, upper, np.where(inside, INTERPOLATED, EXTRAPOLATED), unknown, shared, float("nan"), bound,
        floors, intervals, undetermined,
    )  # fmt: skip


def _check(
    arm: Frontier, mdm: Frontier, fits: tuple[ParametricFit, ParametricFit], at: str,
    draws: tuple[ParametricDraws, ParametricDraws] | None, level: float,
) -> None:  # fmt: skip
    if at not in ("loss", "flops"):
        raise ValueError(f"at = {at!r}: must be 'loss' or 'flops'")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must be between 0 and 1")
    if arm.convention != mdm.convention:
        raise ValueError(f"convention: arm counts {arm.convention}, mdm {mdm.convention}; they must be the same")
    for side, fit in zip((arm, mdm), fits, strict=True):
        if not len(side.loss):
            raise ValueError(f"{side.family}: no usable minimum, so nothing says where the gap is supported")
        if not fit.converged:
            raise ValueError(f"{side.family}: the parametric fit is not converged: {fit.reason}")
    if draws is not None and draws[0].n != draws[1].n:
        raise ValueError(f"draws: {draws[0].n} and {draws[1].n}; both families need the same number")


def _log_losses(
    arm: Frontier, mdm: Frontier, frontier: SurfaceFrontier, at: str, grid: np.ndarray | None
) -> np.ndarray:
    """Log losses [G] of the grid; `frontier` is the ARM's."""
    if grid is None:
        low, high = (pick(arm.loss_range[i], mdm.loss_range[i]) for i, pick in enumerate((min, max)))
        if at == "loss":
            return np.linspace(np.log(low), np.log(high), GRID_POINTS)
        return np.log(frontier.loss(np.log(np.geomspace(arm.flops.min(), arm.flops.max(), GRID_POINTS)))[0])
    given = np.asarray(grid, np.float64)
    if given.ndim != 1 or not len(given) or not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError("grid: must be a list of finite positive numbers")
    return np.log(given) if at == "loss" else np.log(frontier.loss(np.log(given))[0])
