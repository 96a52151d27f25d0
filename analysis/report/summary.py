"""All numbers of a report, computed once: fits, gaps under every law and FLOP convention, laws, findings."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.checks.finding import Finding, in_order
from analysis.checks.holdout import largest_held_out
from analysis.checks.likelihoods import likelihood_findings
from analysis.checks.sweep import check
from analysis.gap.curve import GapCurve, gap_between, quoted_loss
from analysis.gap.laws import pair_of, usable_laws
from analysis.gap.likelihoods import LikelihoodGaps, gap_by_likelihood
from analysis.gap.sensitivity import DEFAULT_LAWS, gap_sensitivity
from analysis.gap.surfaces import Surfaces, fit_surfaces
from analysis.laws.frontier import overlap
from analysis.laws.names import LawName
from analysis.minima.bootstrap import Bootstrap, bootstrap, fit_law, law_interval
from analysis.minima.cells import QUANTITIES, Recipe, without_window
from analysis.minima.fit import IsoFlopFit, fit_recipe
from analysis.minima.scatter import Scatter, scatter_of, scatter_said
from analysis.report.losses import Losses, describe_losses
from analysis.runs.load import as_runs, numbers, usable_runs
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT
from mdm_jax.files.results import FLOP_COLUMNS

HEADLINE_CONVENTIONS = ("smdm_6nd", "exact")


@dataclass(frozen=True, eq=False)
class LawRow:
    """One power law of one family under one FLOP convention."""

    convention: str
    family: str
    quantity: str
    coefficient: float
    exponent: float
    exponent_t: tuple[float, float]
    """Student-t interval from the scatter of the minima around the line."""
    exponent_bootstrap: tuple[float, float]
    """Percentile interval from the scatter of the runs."""
    residual_sd: float
    dof: int


@dataclass(frozen=True, eq=False)
class Summary:
    """What a report says."""

    source: str
    """The name of what the runs were read from."""
    fit: IsoFlopFit
    draws: Bootstrap
    level: float
    conventions: tuple[str, ...]
    """FLOP conventions under which both families have two minima with known FLOPs."""
    overlap: tuple[float, float] | None
    """Lowest and highest loss that both families reach, nats per token."""
    target: float | None
    """The headline's loss: the middle of the overlap, or of the space between the ranges; None with no gap at all."""
    gaps: dict[tuple[str, str], GapCurve]
    """The gap at the target loss, by (convention, law)."""
    curves: dict[tuple[str, str], GapCurve]
    """The gap over the whole range of losses, by (convention, law)."""
    at_arm: dict[tuple[str, str], GapCurve]
    """The gap at the ARM's largest budget and at ten times that, by (convention, law)."""
    laws: tuple[LawRow, ...]
    findings: tuple[Finding, ...]
    sensitivity: pd.DataFrame
    """The gap at the target loss under every curve, convention and law, see `gap_sensitivity`."""
    no_parametric: dict[str, str]
    """Why there is no parametric gap under a convention, by convention."""
    heldout: pd.DataFrame
    """Each family's largest budget as the smaller ones predict it, see `largest_held_out`."""
    scatter: dict[str, Scatter]
    """How far each family's minima lie off a smooth law."""
    likelihoods: LikelihoodGaps | None
    """The gap under each likelihood of the MDM; None with no gap at all, or if no run was evaluated by another one."""
    losses: Losses

    @property
    def runs(self) -> pd.DataFrame:
        """The run table; `excluded_reason` says why no fit uses a run."""
        return self.fit.runs

    @property
    def used_runs(self) -> int:
        """How many runs the fits use."""
        return len(usable_runs(self.fit.runs))

    @property
    def usable_budgets(self) -> int:
        """How many budgets have a usable minimum, both families together."""
        return sum(len(self.fit.minima_of(family)) for family in self.fit.families)

    @property
    def scatter_said(self) -> list[str]:
        """A sentence on each family's scatter; none for unit="budget", whose draws include it anyway."""
        return scatter_said(self.fit, self.draws.unit)

    @property
    def model_spread(self) -> tuple[float, float] | None:
        """The lowest and the highest ratio that the laws give at ten times the ARM's largest budget, or None."""
        if not self.conventions:
            return None
        ratios = [float(gap.ratio[1]) for (c, _), gap in self.at_arm.items() if c == self.conventions[0]]
        known = [ratio for ratio in ratios if np.isfinite(ratio)]
        return (min(known), max(known)) if len(known) >= 2 else None

    @property
    def headline(self) -> dict[str, GapCurve]:
        """The gap at the target loss under the headline's conventions: interpolated where the ranges overlap."""
        law = LawName.INTERPOLATED if self.overlap else LawName.POWER_LAW
        return {c: self.gaps[c, law] for c in HEADLINE_CONVENTIONS if (c, law) in self.gaps}


def summarise(
    runs: pd.DataFrame,
    n: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
    unit: str = UNIT,
    source: str = "",
    recipe: Recipe | None = None,
) -> Summary:
    """Everything a report needs from a run table.

    Args:
        runs: from `read_runs`.
        n: bootstrap draws.
        seed: of the bootstrap.
        level: of all intervals.
        unit: of the bootstrap, "run" or "budget".
        source: how the report names where the runs came from.
        recipe: of the IsoFLOP curves; None for the usual one.

    Raises:
        ValueError: no run can be fitted, or an argument is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must be between 0 and 1")
    fit = fit_recipe(as_runs(runs), recipe or Recipe())
    draws = bootstrap(fit, unit=unit, n=n, seed=seed)
    sides = {c: (fit.frontier("arm", c), fit.frontier("mdm", c)) for c in FLOP_COLUMNS}
    usable = {c: pair for c, pair in sides.items() if min(len(side.loss) for side in pair) >= 2}
    first = next(iter(usable.values()), None)
    shared = overlap(*first) if first else None
    target = quoted_loss(*first) if first else None
    gaps: dict[tuple[str, str], GapCurve] = {}
    curves: dict[tuple[str, str], GapCurve] = {}
    at_arm: dict[tuple[str, str], GapCurve] = {}
    refusals: dict[str, str] = {}
    surfaces = fit_surfaces(without_window(fit.runs), n, seed) if usable else Surfaces(None)
    for convention, pair in usable.items():
        assert target is not None
        laws = [pair_of(pair, law, None, draws, level) for law in usable_laws(pair, DEFAULT_LAWS)]
        try:
            laws.append(surfaces.pair(pair, level))
        except ValueError as unable:  # no surface, or FLOPs per token that no function of N describes
            refusals[convention] = str(unable)
        for law in laws:
            key = convention, law.name.value
            gaps[key] = gap_between(law, "loss", np.array([target]), level)
            curves[key] = gap_between(law, "loss", None, level)
            at_arm[key] = gap_between(law, "flops", pair[0].flops.max() * np.array([1.0, 10.0]), level)
    table = pd.DataFrame()
    if target is not None:
        table = gap_sensitivity(
            fit, "loss", target, conventions=tuple(usable), draws=draws, level=level, surfaces=surfaces
        )
    likelihoods = gap_by_likelihood(fit, draws, tuple(usable), level) if usable else None
    findings = [*check(fit.runs, fit, draws, list(gaps.values())), *likelihood_findings(likelihoods)]
    return Summary(
        source=source,
        fit=fit,
        draws=draws,
        level=level,
        conventions=tuple(usable),
        overlap=shared,
        target=target,
        gaps=gaps,
        curves=curves,
        at_arm=at_arm,
        laws=tuple(_laws(fit, draws, level)),
        findings=tuple(in_order(findings)),
        sensitivity=table,
        no_parametric=refusals,
        heldout=largest_held_out(fit, level, {surface.family: surface for surface in surfaces.fits or ()}),
        scatter=scatter_of(fit),
        likelihoods=likelihoods,
        losses=describe_losses(fit.runs),
    )


def _laws(fit: IsoFlopFit, draws: Bootstrap, level: float) -> list[LawRow]:
    rows = []
    for convention, column in FLOP_COLUMNS.items():
        for quantity in QUANTITIES:
            for family in fit.families:
                law = fit_law(fit, family, quantity, convention)
                if law is None or len(np.unique(numbers(fit.minima_of(family), column))) < 2:
                    continue
                sampled = (math.nan, math.nan)
                if family in draws.families:
                    sampled = law_interval(draws.power_laws(family, quantity, convention), level)["exponent"]
                interval = law.intervals(level)["exponent"]
                fitted, scatter = (law.coefficient, law.exponent, interval), (law.residual_sd, law.dof)
                rows.append(LawRow(convention, family, quantity, *fitted, sampled, *scatter))
    return rows
