"""The gap under each likelihood of the MDM, side by side: the same runs, the same machinery, another loss column.

The gap under the NELBO compares a bound with the ARM's likelihood. Under a chain rule in one order both sides are exact
likelihoods. Each gap is read at its own quoted loss, as the report's headline is, and at one loss that all reach.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.gap.curve import INTERPOLATED, GapCurve, compute_gap, percentile_interval, quoted_loss
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.names import LawName
from analysis.minima.bootstrap import Bootstrap, bootstrap
from analysis.minima.cells import without_window
from analysis.minima.fit import IsoFlopFit, fit_recipe
from analysis.runs.likelihoods import evaluated_by, left_out, with_likelihood
from analysis.runs.load import numbers
from analysis.sampling import LEVEL
from analysis.wording import family_name
from mdm_jax.files.results import LIKELIHOOD_COLUMNS

FEWEST = 2
"""Usable minima of each family that a gap needs."""


@dataclass(frozen=True, eq=False)
class LikelihoodFit:
    """The sweep as one likelihood of the MDM sees it."""

    likelihood: str
    fit: IsoFlopFit
    draws: Bootstrap
    left_out: dict[str, str]
    """Reasons by run_id of the MDM runs that have no loss under the likelihood."""

    @property
    def runs(self) -> int:
        """The number of MDM runs in the fit."""
        return sum(len(cell.rows) for cell in self.fit.cells_of("mdm"))

    def sides(self, convention: str) -> tuple[Frontier, Frontier]:
        """The minima of the ARM and of the MDM."""
        return self.fit.frontier("arm", convention), self.fit.frontier("mdm", convention)

    def gap(self, convention: str, loss: float, level: float) -> GapCurve | None:
        """The gap at a loss: interpolated if the families' losses overlap, else by two power laws.

        None if a family has fewer than two minima whose FLOPs are known under the convention.
        """
        sides = self.sides(convention)
        if min(len(side.loss) for side in sides) < FEWEST:
            return None
        law = LawName.POWER_LAW if overlap(*sides) is None else LawName.INTERPOLATED
        return compute_gap(*sides, law=law.value, grid=np.array([loss]), draws=self.draws, level=level)

    def measured_gap(self, convention: str, loss: float, level: float) -> GapCurve | None:
        """The interpolated gap at a loss; None if not both families reach it under the convention."""
        gap = self.gap(convention, loss, level)
        return gap if gap is not None and gap.support[0] == INTERPOLATED else None

    def paired_with(self, other: "LikelihoodFit") -> bool:
        """Whether a draw of both fits takes the errors that the same MDM run has in each.

        The bootstrap draws residuals by their place in the list of the family's runs, so both lists must be of the same
        runs. It draws normal errors, which say nothing about how the two losses of a run move together, for a given
        noise and for Akima's curve.
        """
        if self.draws.unit == "run" and (self.fit.curve == "akima" or self.fit.recipe.known_noise("mdm") is not None):
            return False
        return self._drawn_runs() == other._drawn_runs()

    def _drawn_runs(self) -> list[list[str]]:
        """The run_ids of each of the MDM's budgets that errors are drawn for: all with a curve, or the usable ones."""
        cells = self.fit.cells_of("mdm", "ok" if self.draws.unit == "budget" else None)
        return [list(self.fit.runs["run_id"].iloc[cell.rows]) for cell in cells if cell.fitted]


@dataclass(frozen=True)
class Refusal:
    """Why a likelihood gives no gap."""

    reason: str
    left_out: dict[str, str]
    """See `LikelihoodFit`."""


@dataclass(frozen=True, eq=False)
class LikelihoodGaps:
    """The gap under each likelihood, [1] each, by (convention, likelihood).

    A convention is absent where too few minima of a likelihood have known FLOPs under it.
    """

    fits: tuple[LikelihoodFit, ...]
    """The NELBO's first. Likelihoods under which a family has fewer than two usable minima are not among them."""
    own: dict[tuple[str, str], GapCurve]
    """The gap at the likelihood's own quoted loss."""
    common_range: tuple[float, float] | None
    """The losses, nats per token, that the ARM and the MDM under each likelihood reach; None if there are none."""
    common: dict[tuple[str, str], GapCurve]
    """The gap at the common loss; empty if there is none."""
    shares: dict[tuple[str, str], tuple[float, float, float]]
    """The share of the NELBO's gap that remains at the common loss, as (share, lower, upper).

    At equal loss the ARM's compute cancels, so a share compares the MDM with itself. Both fits redraw the errors of the
    same runs, so a draw moves both. The interval is nan if the draws are not paired, see `LikelihoodFit.paired_with`.
    """
    differences: pd.DataFrame
    """See `differences_by_budget`."""
    refused: dict[str, Refusal]
    """Likelihoods that some runs were evaluated by and that give no gap."""

    @property
    def common_loss(self) -> float | None:
        """The middle, in log loss, of the common range, nats per token; None if there is none."""
        return None if self.common_range is None else float(np.sqrt(np.prod(self.common_range)))


def gap_by_likelihood(
    fit: IsoFlopFit, draws: Bootstrap, conventions: Sequence[str], level: float = LEVEL
) -> LikelihoodGaps | None:
    """The gap under the NELBO and each exact likelihood; None if no run has another likelihood than its loss.

    Args:
        fit: of the table as it is, with the NELBO as the MDM's loss and two usable minima of each family.
        draws: its bootstrap; the other likelihoods' have the same unit, number of draws and seed.
        conventions: FLOP conventions, at least one, under which the minima's FLOPs are known.
        level: of the intervals.
    """
    known = evaluated_by(fit.runs)[1:]
    if not known:
        return None
    fits, refused = [LikelihoodFit("nelbo", fit, draws, {})], dict[str, Refusal]()
    for name in known:
        found = _fitted(fit, draws, name, conventions[0])
        if isinstance(found, Refusal):  # too few runs were evaluated by it so far; the others' gaps stand
            refused[name] = found
        else:
            fits.append(found)
    shared = _common_range([one.sides(conventions[0]) for one in fits])
    gaps = LikelihoodGaps(tuple(fits), {}, shared, {}, {}, differences_by_budget(fit), refused)
    for convention, one in itertools.product(conventions, fits):
        key = convention, one.likelihood
        own = one.gap(convention, quoted_loss(*one.sides(conventions[0])), level)
        if own is not None:
            gaps.own[key] = own
        common = None if gaps.common_loss is None else one.measured_gap(convention, gaps.common_loss, level)
        if common is not None:
            gaps.common[key] = common
            of = gaps.common.get((convention, "nelbo"))
            if of is not None:
                gaps.shares[key] = _share(common, of, one.paired_with(fits[0]))
    return gaps


def differences_by_budget(fit: IsoFlopFit) -> pd.DataFrame:
    """How far each exact likelihood lies below or above the NELBO, nats per token, over the MDM runs of a budget.

    Columns: likelihood, budget, runs, mean, sd (over the runs; nan for one), lowest, highest. A negative difference is
    a lower loss than the NELBO's. It includes the Monte Carlo error of the NELBO.
    """
    rows = []
    for name, (column, _) in LIKELIHOOD_COLUMNS.items():
        difference = numbers(fit.runs, column) - numbers(fit.runs, "loss")
        for cell in fit.cells_of("mdm"):
            own = difference[cell.rows]
            own = own[np.isfinite(own)]
            if len(own):
                sd = float(own.std(ddof=1)) if len(own) > 1 else float("nan")
                ends = {"lowest": float(own.min()), "highest": float(own.max())}
                row = {"likelihood": name, "budget": cell.budget, "runs": len(own), "mean": float(own.mean())}
                rows.append(row | {"sd": sd} | ends)
    return pd.DataFrame(rows)


def _fitted(fit: IsoFlopFit, draws: Bootstrap, likelihood: str, convention: str) -> LikelihoodFit | Refusal:
    """The fit under a likelihood, or why no run can be fitted or a family has too few usable minima."""
    runs = with_likelihood(without_window(fit.runs), likelihood)
    try:
        other = fit_recipe(runs, fit.recipe)
    except ValueError as error:
        return Refusal(str(error), left_out(runs))
    for family in ("arm", "mdm"):
        found = len(other.frontier(family, convention).loss)
        if found < FEWEST:
            few = f"{family_name(family)}: {found} usable minima"
            return Refusal(f"{few}, a gap needs {FEWEST}", left_out(runs))
    return LikelihoodFit(likelihood, other, bootstrap(other, draws.unit, draws.n, draws.seed), left_out(runs))


def _share(gap: GapCurve, of: GapCurve, paired: bool) -> tuple[float, float, float]:
    """How much of the gap `of` another gap at the same loss is, with the interval of paired draws."""
    share = float(gap.ratio[0] / of.ratio[0])
    if gap.pair.drawn is None or of.pair.drawn is None or not paired:
        return share, math.nan, math.nan
    drawn = [pair.drawn[1].log_flops(np.log(gap.loss)) for pair in (gap.pair, of.pair) if pair.drawn is not None]
    lower, upper, _ = percentile_interval(drawn[0] - drawn[1], gap.level)
    return share, float(lower[0]), float(upper[0])


def _common_range(pairs: Sequence[tuple[Frontier, Frontier]]) -> tuple[float, float] | None:
    """The losses that all frontiers reach; None if there are none."""
    ranges = [side.loss_range for pair in pairs for side in pair]
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    return (low, high) if low < high else None
