"""All numbers of a report, computed once: fits, gaps under every law and FLOP convention, laws, findings."""

import importlib.metadata
import math
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.checks.holdout import QUANTITIES, largest_held_out
from analysis.checks.sweep import Finding, check
from analysis.gap import GapCurve, compute_gap, middle_of_overlap
from analysis.gap.laws import usable_laws
from analysis.gap.sensitivity import DEFAULT_LAWS, gap_sensitivity
from analysis.gap.surfaces import fit_surfaces
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.names import LawName
from analysis.minima.bootstrap import Bootstrap, bootstrap, fit_law, law_interval
from analysis.minima.cells import Recipe, without_window
from analysis.minima.fit import IsoFlopFit, fit_recipe
from analysis.minima.scatter import scatter_of
from analysis.options import plain
from analysis.runs.load import numbers, records, usable_runs
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT
from mdm_jax.results import FLOP_COLUMNS

SCHEMA_VERSION = 1
HEADLINE_CONVENTIONS = ("smdm_6nd", "exact")
PACKAGES = ("mdm-jax", "numpy", "scipy", "pandas", "matplotlib")


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
    fit: IsoFlopFit
    draws: Bootstrap
    level: float
    conventions: tuple[str, ...]
    """Those under which both families' minima have FLOPs."""
    overlap: tuple[float, float] | None
    target: float | None
    """The headline's loss: the middle of the overlap, else of the space between the ranges; None without both."""
    gaps: dict[tuple[str, str], GapCurve]
    """The gap at the target loss, by (convention, law)."""
    curves: dict[tuple[str, str], GapCurve]
    """Over the whole range of losses."""
    at_arm: dict[tuple[str, str], GapCurve]
    """The gap at the ARM's largest budget and at ten times that, by (convention, law)."""
    laws: tuple[LawRow, ...]
    findings: tuple[Finding, ...]
    sensitivity: pd.DataFrame
    """The gap at the target loss under every curve, convention and law, see `gap_sensitivity`."""
    no_parametric: dict[str, str]
    """The reason, by convention, why there is no parametric gap under it; empty where there are all."""
    heldout: pd.DataFrame
    """Each family's largest budget as the smaller ones predict it, see `largest_held_out`."""

    @property
    def runs(self) -> pd.DataFrame:
        """The run table, with why each run that is left out is."""
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
    def model_spread(self) -> tuple[float, float] | None:
        """Lowest and highest ratio that laws give at ten times the ARM's largest budget: what no interval holds."""
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
    fit = fit_recipe(runs, recipe or Recipe())
    draws = bootstrap(fit, unit=unit, n=n, seed=seed)
    sides = {c: (fit.frontier("arm", c), fit.frontier("mdm", c)) for c in FLOP_COLUMNS}
    usable = {c: pair for c, pair in sides.items() if min(len(side.loss) for side in pair) >= 2}
    first = next(iter(usable.values()), None)
    shared = overlap(*first) if first else None
    target = _target(*first) if first else None
    gaps: dict[tuple[str, str], GapCurve] = {}
    curves, at_arm = dict(gaps), dict(gaps)
    refusals: dict[str, str] = {}
    surfaces, refusal = fit_surfaces(without_window(fit.runs), n, seed) if usable else (None, "")
    for convention, (arm, mdm) in usable.items():
        assert target is not None
        reach = arm.flops.max() * np.array([1.0, 10.0])
        for law in usable_laws((arm, mdm), DEFAULT_LAWS):
            key, rest = (convention, law), {"law": law, "draws": draws, "level": level}
            gaps[key] = compute_gap(arm, mdm, grid=np.array([target]), **rest)
            curves[key] = compute_gap(arm, mdm, **rest)
            at_arm[key] = compute_gap(arm, mdm, at="flops", grid=reach, **rest)
        if surfaces is None:
            refusals[convention] = refusal
            continue
        key, pair = (convention, LawName.PARAMETRIC.value), (arm, mdm)
        try:
            gaps[key] = surfaces.gap(pair, "loss", np.array([target]), level)
            curves[key] = surfaces.gap(pair, "loss", None, level)
            at_arm[key] = surfaces.gap(pair, "flops", reach, level)
        except ValueError as unable:  # FLOPs per token that no function of N describes
            refusals[convention] = str(unable)
    findings = check(fit.runs, fit, draws, list(gaps.values()))
    rows = _laws(fit, draws, level)
    fitted = surfaces, refusal
    table = pd.DataFrame()
    if target is not None:
        table = gap_sensitivity(
            fit, "loss", target, conventions=tuple(usable), draws=draws, level=level, surfaces=fitted
        )
    known = {surface.family: surface for surface in surfaces.fits} if surfaces is not None else {}
    return Summary(
        source, fit, draws, level, tuple(usable), shared, target, gaps, curves, at_arm, tuple(rows), tuple(findings),
        table, refusals, largest_held_out(fit, level, known),
    )  # fmt: skip


def _target(arm: Frontier, mdm: Frontier) -> float:
    middle = middle_of_overlap(arm, mdm)
    if middle is not None:
        return middle
    low = min(arm.loss_range[1], mdm.loss_range[1])
    high = max(arm.loss_range[0], mdm.loss_range[0])
    return float(np.sqrt(low * high))


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
                rows.append(LawRow(convention, family, quantity, law.coefficient, law.exponent, interval, sampled,
                                   law.residual_sd, law.dof))  # fmt: skip
    return rows


def versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found


def as_json(summary: Summary) -> dict[str, Any]:
    """All numbers as plain JSON types; unknown ones are null, and an interval's open end is "inf" or "-inf"."""
    draws = summary.draws
    tree = {
        "schema_version": SCHEMA_VERSION,
        "source": summary.source,
        "versions": versions(),
        "bootstrap": {"unit": draws.unit, "draws": draws.n, "seed": draws.seed, "level": summary.level},
        "fit": vars(summary.fit.recipe),
        "conventions": list(summary.conventions),
        "overlap_loss": summary.overlap,
        "headline": {"loss": summary.target, "gap": {c: _point(g) for c, g in summary.headline.items()}},
        "gap_at_headline_loss": [_point(gap) for gap in summary.gaps.values()],
        "gap_at_arm_flops": [_curve(gap) for gap in summary.at_arm.values()],
        "gap_curves": [_curve(gap) for gap in summary.curves.values()],
        "model_spread_at_ten_times_the_arms_largest_budget": summary.model_spread,
        "no_parametric_gap_because": summary.no_parametric,
        "holdout": records(summary.heldout),
        "sensitivity": records(summary.sensitivity),
        "minima": records(summary.fit.minima),
        "coefficients": records(summary.fit.coefficients),
        "scatter": {family: vars(side) | {"p": side.p} for family, side in scatter_of(summary.fit).items()},
        "noise": {family: vars(noise) for family, noise in summary.fit.noise.items()},
        "laws": [vars(row) for row in summary.laws],
        "lost_draws": {f: {"lost": d.lost, "outside": d.outside} for f, d in draws.families.items()},
        "findings": [vars(finding) for finding in summary.findings],
        "runs": {"all": len(summary.runs), "used": summary.used_runs},
    }
    return plain(tree)


def _point(gap: GapCurve) -> dict[str, Any]:
    return {key: value[0] if isinstance(value, np.ndarray) else value for key, value in gap.as_dict().items()}


def _curve(gap: GapCurve) -> dict[str, Any]:
    return gap.as_dict()
