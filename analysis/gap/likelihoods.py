"""The gap under each likelihood of the MDM, side by side: the same runs, the same machinery, another loss column.

The gap under the NELBO compares a bound with the ARM's likelihood. Under a chain rule in one order both sides are exact
likelihoods. Each gap is read at its own quoted loss, as the report's headline is, and at one loss that all reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.gap.curve import GapCurve, compute_gap, quoted_loss
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.names import LawName
from analysis.minima.bootstrap import Bootstrap, bootstrap
from analysis.minima.cells import without_window
from analysis.minima.fit import IsoFlopFit, fit_recipe
from analysis.runs.likelihoods import evaluated_by, left_out_said, with_likelihood
from analysis.runs.load import numbers
from analysis.sampling import LEVEL
from analysis.wording import family_name
from mdm_jax.results import LIKELIHOOD_COLUMNS

FEWEST = 2
"""Usable minima of each family that a gap needs."""


@dataclass(frozen=True, eq=False)
class LikelihoodFit:
    """The sweep as one likelihood of the MDM sees it."""

    likelihood: str
    fit: IsoFlopFit
    draws: Bootstrap
    left_out: str
    """The MDM runs that were not evaluated by it, as text; empty without any."""

    @property
    def runs(self) -> int:
        """The number of MDM runs in the fit."""
        return sum(len(cell.rows) for cell in self.fit.cells_of("mdm"))

    def sides(self, convention: str) -> tuple[Frontier, Frontier]:
        """The minima of the ARM and of the MDM."""
        return self.fit.frontier("arm", convention), self.fit.frontier("mdm", convention)

    def gap(self, convention: str, loss: float, level: float) -> GapCurve:
        """The gap at a loss: interpolated if the families' losses overlap, else by two power laws."""
        sides = self.sides(convention)
        law = LawName.POWER_LAW if overlap(*sides) is None else LawName.INTERPOLATED
        return compute_gap(*sides, law=law.value, grid=np.array([loss]), draws=self.draws, level=level)


@dataclass(frozen=True, eq=False)
class LikelihoodGaps:
    """The gap under each likelihood, [1] each, by (convention, likelihood)."""

    fits: tuple[LikelihoodFit, ...]
    """The NELBO's first. Likelihoods under which a family has fewer than two usable minima are not among them."""
    own: dict[tuple[str, str], GapCurve]
    """At the likelihood's own quoted loss."""
    common_range: tuple[float, float] | None
    """The losses, nats per token, that the ARM and the MDM under each likelihood reach; None if there are none."""
    common: dict[tuple[str, str], GapCurve]
    """At the common loss; empty if there is none."""
    differences: pd.DataFrame
    """See `differences_by_budget`."""
    refused: dict[str, str]
    """Likelihoods that some runs were evaluated by and that give no gap, with the reason."""

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
    fits, refused = [LikelihoodFit("nelbo", fit, draws, "")], dict[str, str]()
    for name in known:
        try:
            fits.append(_fitted(fit, draws, name, conventions[0]))
        except ValueError as error:  # too few runs were evaluated by it so far; the others' gaps stand
            refused[name] = str(error)
    own, common = dict[tuple[str, str], GapCurve](), dict[tuple[str, str], GapCurve]()
    shared = _common_range([one.sides(conventions[0]) for one in fits])
    gaps = LikelihoodGaps(tuple(fits), own, shared, common, differences_by_budget(fit), refused)
    for convention in conventions:
        for one in fits:
            key = convention, one.likelihood
            own[key] = one.gap(convention, quoted_loss(*one.sides(conventions[0])), level)
            if gaps.common_loss is not None:
                common[key] = one.gap(convention, gaps.common_loss, level)
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


def _fitted(fit: IsoFlopFit, draws: Bootstrap, likelihood: str, convention: str) -> LikelihoodFit:
    """The fit under a likelihood.

    Raises:
        ValueError: no run can be fitted, or a family has too few usable minima.
    """
    runs = with_likelihood(without_window(fit.runs), likelihood)
    other = fit_recipe(runs, fit.recipe)
    for family in ("arm", "mdm"):
        found = len(other.frontier(family, convention).loss)
        if found < FEWEST:
            left_out = left_out_said(runs)
            few = f"{family_name(family)}: {found} usable minima, a gap needs {FEWEST}"
            raise ValueError(f"{few}; {left_out}" if left_out else few)
    return LikelihoodFit(likelihood, other, bootstrap(other, draws.unit, draws.n, draws.seed), left_out_said(runs))


def _common_range(pairs: Sequence[tuple[Frontier, Frontier]]) -> tuple[float, float] | None:
    """The losses that all frontiers reach; None if there are none."""
    ranges = [side.loss_range for pair in pairs for side in pair]
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    return (low, high) if low < high else None
