"""The compute gap by parametric fits: the families' surfaces, each minimised over N and D at equal compute.

This law uses all runs, not only the minima, and gives each family its own floor. Near a floor the ratio grows without
bound or vanishes. Which of the two happens depends on the two floors, and no run reaches either.

FLOPs are counted by the minima's convention. Only 6 N D follows from N and D alone. Under another convention the FLOPs
per token are those of the runs, interpolated over N (`surface/frontier.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.gap.curve import GRID_POINTS, GapCurve, check_arguments, gap_between
from analysis.gap.laws import LawPair, Sides
from analysis.laws.floors import Floor, reaches_bound
from analysis.laws.frontier import Frontier
from analysis.laws.names import LawName
from analysis.minima.bootstrap import check_draws
from analysis.runs.columns import ROLES
from analysis.sampling import LEVEL, PARAMETRIC_DRAWS
from analysis.surface.bootstrap import ParametricDraws, bootstrap_parametric
from analysis.surface.fit import ParametricFit, fit_parametric
from analysis.wording import family_name


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
    """The ARM's and the MDM's fits and their draws, or the reason why a family has no surface."""

    fits: tuple[ParametricFit, ParametricFit] | None
    draws: tuple[ParametricDraws, ParametricDraws] | None = None
    reason: str = ""

    def pair(self, sides: Sides, level: float) -> LawPair:
        """Both frontiers, with FLOPs counted as in the minima; for the errors see `parametric_gap`."""
        if self.fits is None:
            raise ValueError(self.reason)
        for side, fit in zip(sides, self.fits, strict=True):
            if not len(side.loss):
                raise ValueError(f"{side.family}: no usable minimum, so nothing says where the gap is supported")
            if not fit.converged:
                raise ValueError(f"{side.family}: the parametric fit is not converged: {fit.reason}")
        arm, mdm = (fit.frontier(side.convention) for fit, side in zip(self.fits, sides, strict=True))
        drawn, intervals = None, [Floor().interval] * 2
        if self.draws is not None:
            first, second = self.draws
            if first.n != second.n:
                raise ValueError(f"draws: {first.n} and {second.n}; both families need the same number")
            check_draws(first.n, level)
            drawn = first.frontier(arm.cost), second.frontier(mdm.cost)
            intervals = [side.intervals()["E"] for side in self.draws]
        floors = [_floor(*known) for known in zip(self.fits, intervals, sides, strict=True)]
        return LawPair(LawName.PARAMETRIC, sides, (arm, mdm), drawn, (floors[0], floors[1]))

    def gap(self, sides: Sides, at: str, grid: np.ndarray | None, level: float) -> GapCurve:
        """The gap by these surfaces; for the arguments and errors see `parametric_gap`."""
        check_arguments(at, level)
        pair = self.pair(sides, level)
        if at == "flops" and grid is None:
            grid = np.geomspace(sides[0].flops.min(), sides[0].flops.max(), GRID_POINTS)
        return gap_between(pair, at, grid, level)


def fit_surfaces(runs: pd.DataFrame, draws: int, seed: int) -> Surfaces:
    """Both families' surfaces with draws (unit="run", at most PARAMETRIC_DRAWS), if both have one."""
    fits, doubts = fit_families(runs, ROLES)
    if doubts:
        family, doubt = next(iter(doubts.items()))
        return Surfaces(None, reason=f"{family_name(family)}: {doubt}")
    pair = fits["arm"], fits["mdm"]
    if not draws:
        return Surfaces(pair)
    arm, mdm = (bootstrap_parametric(fit, "run", min(draws, PARAMETRIC_DRAWS), seed) for fit in pair)
    return Surfaces(pair, (arm, mdm))


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
    return Surfaces(fits, draws).gap((arm, mdm), at, grid, level)


def _floor(fit: ParametricFit, interval: tuple[float, float], side: Frontier) -> Floor:
    """A surface's E with its interval over the draws, and whether the runs determine it."""
    undetermined = fit.floor_vanished or reaches_bound(interval, fit.E, side.loss_range[0])
    return Floor(fit.E, False, interval, fit.floor_vanished, undetermined)
