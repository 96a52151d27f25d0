"""The doubts that a referee would have about a sweep: each is a finding with its number and its remedy."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.checks.disagreement import disagreements, law_rows
from analysis.checks.finding import Finding, Severity, in_order
from analysis.checks.floors import floor_findings
from analysis.checks.runs import check_runs
from analysis.checks.single_runs import single_run_findings
from analysis.gap.curve import GapCurve
from analysis.laws.frontier import overlap
from analysis.minima.bootstrap import Bootstrap
from analysis.minima.curves import ONE_SIZE
from analysis.minima.fit import IsoFlopFit
from analysis.minima.scatter import scatter_lines, scatter_of
from analysis.runs.columns import ROLES
from analysis.runs.load import as_runs, numbers, records, select, usable_runs
from analysis.wording import CONVENTIONS, family_name, plural, scientific, significant
from mdm_jax.files.results import FLOP_COLUMNS

FEWEST_BUDGETS = 4
OFF_CENTRE = 0.5
NEAR_SIZES = 0.05
LOST_DRAWS = 0.025
WIDE_STEP = 5.5
"""A step between budgets, as a factor. Below it the interpolation errs by .2% at most."""
CERTAIN = 0.01
"""A probability below this makes the scatter a warning: one clean family in a hundred has it."""
ONE_BUDGET = 1e-5
"""Budgets that differ by a smaller share are one by rounding."""


def check(
    runs: pd.DataFrame,
    fit: IsoFlopFit | None = None,
    draws: Bootstrap | None = None,
    gaps: Sequence[GapCurve] = (),
) -> list[Finding]:
    """Findings, each with its number and its remedy; the gravest first.

    Args:
        runs: from `read_runs`, any table with its needed columns, or a fit's own `runs`, which say more of why a run is
            left out.
        fit: from `fit_isoflop`, for edge minima, few budgets, close sizes, ranges of loss that do not overlap, scatter
            between budgets, and single runs that lie off their curve or decide the gap.
        draws: its bootstrap, for budgets that draws lose.
        gaps: from `compute_gap`, for losses near a fitted floor, and laws that exclude each other.
    """
    findings = check_runs(as_runs(runs))
    if fit is not None:
        for family in fit.families:
            findings += [*_minima(fit, family), *_budgets(fit, family), *_sizes(fit, family), *_noise(fit, family)]
        findings += [*_overlaps(fit), *_merged(fit), *_partial_flops(fit), *_scatter(fit)]
        findings += single_run_findings(fit)
    if draws is not None:
        findings += _lost_draws(draws)
    findings += [*floor_findings(gaps), *disagreements(law_rows(gaps))]
    return in_order(findings)


def _merged(fit: IsoFlopFit) -> list[Finding]:
    """Budgets that differ from run to run and are read as one."""
    ends = [(float(b.min()), float(b.max())) for b in (numbers(fit.runs.iloc[c.rows], "budget") for c in fit.cells)]
    spread = [high / low - 1 for low, high in ends]
    merged = [share for share in spread if share > ONE_BUDGET]
    if not merged:
        return []
    known = len(np.unique([f"{value:.6g}" for value in numbers(usable_runs(fit.runs), "budget")]))
    message = (
        f"{known} budgets are read as {len({cell.budget for cell in fit.cells})}: those of "
        f"{plural(len(merged), 'curve')} differ from run to run, by up to {max(merged):.2%}"
    )
    remedy = "nothing, if these are the FLOPs that whole steps gave; else map the planned budget"
    return [Finding(Severity.NOTE, "merged_budgets", message, max(merged), remedy)]


def _scatter(fit: IsoFlopFit) -> list[Finding]:
    """Minima that lie off every smooth law by more than the runs' errors explain."""
    scatter = scatter_of(fit)
    out = []
    for side, message in zip(scatter.values(), scatter_lines(scatter, fit.recipe.scatter == "add"), strict=True):
        if side.p < CERTAIN:
            if side.bends:
                code, remedy = "loss_bends", "read the interpolated gap; no law here goes through such a bend"
            else:
                code = "budget_scatter"
                remedy = "look for what differs from budget to budget, such as learning rate, batch size or data"
            ratio = side.chi2 / side.dof
            out.append(Finding(Severity.WARNING, code, f"{message}; p = {side.p:.2g}", ratio, remedy))
    return out


def _partial_flops(fit: IsoFlopFit) -> list[Finding]:
    """Conventions under which some of the usable minima have no FLOPs, and so are missing."""
    out = []
    for convention, column in FLOP_COLUMNS.items():
        known = {family: np.isfinite(numbers(fit.minima_of(family), column)) for family in fit.families}
        if not any(there.any() for there in known.values()):
            continue
        for family, there in known.items():
            if not there.all():
                message = (
                    f"{family_name(family)}: {CONVENTIONS[convention]} are known for {there.sum()} of "
                    f"{len(there)} usable minima; the others are in no law "
                    "and no gap that is counted so"
                )
                remedy = f"give {column} of every run of a budget"
                out.append(Finding(Severity.WARNING, "partial_flops", message, float(there.sum()), remedy))
    return out


def _noise(fit: IsoFlopFit, family: str) -> list[Finding]:
    """A noise that nothing tells."""
    noise, name = fit.noise[family], family_name(family)
    if math.isfinite(noise.sd) or not any(cell.fitted for cell in fit.cells_of(family)):
        return []
    message = f"{name}: the {fit.curve} curve leaves no residuals, so nothing tells the noise and there is no interval"
    remedy = "repeat some runs with other seeds, give noise_sd, or fit a quadratic or cubic"
    return [Finding(Severity.WARNING, "unknown_noise", message, 0.0, remedy)]


def _minima(fit: IsoFlopFit, family: str) -> list[Finding]:
    """Budgets without a usable minimum, off-centre grids, and curves too flat to tell their minimum."""
    out = []
    for row in records(select(fit.minima, fit.minima["family"] == family)):
        name = f"{family_name(family)} at {scientific(row['budget'])} FLOPs"
        if row["status"] == "edge":
            message = f"{name}: {row['reason']}; the budget enters no law"
            remedy = f"run {'smaller' if 'smallest' in row['reason'] else 'larger'} {_sizes_of(fit)} at this budget"
            out.append(Finding(Severity.WARNING, "edge_minimum", message, row["x_opt"], remedy))
        elif row["status"] == "no_minimum":
            bend = significant(row["curvature"], 2)
            message = f"{name}: {row['reason']} (its curvature is {bend} nats), so no size is best"
            remedy = "run sizes at both ends, and look for runs that went wrong"
            out.append(Finding(Severity.WARNING, "no_minimum", message, row["curvature"], remedy))
        elif row["status"] == "too_few":
            message = f"{name}: {row['reason']}; the budget enters no law"
            remedy = f"run more {_sizes_of(fit)} at this budget"
            out.append(Finding(Severity.WARNING, "too_few_sizes", message, float(row["n_sizes"]), remedy))
        elif abs(row["off_centre"]) > OFF_CENTRE:
            side, end = ("smaller", "lower") if row["off_centre"] < 0 else ("larger", "upper")
            share = f"{abs(row['off_centre']):.0%}"
            message = f"{name}: the minimum lies {share} of the way from the grid's centre to its {end} end"
            instead = ", or fit --curve cubic: an off-centre parabola is biased" if fit.curve == "quadratic" else ""
            remedy = f"run {side} {_sizes_of(fit)}{instead}"
            out.append(Finding(Severity.NOTE, "off_centre", message, row["off_centre"], remedy))
        if row["status"] == "ok" and row["curvature"] < 2 * row["curvature_se"]:
            ratio = row["curvature"] / row["curvature_se"]
            message = f"{name}: the curvature is only {ratio:.2g} standard errors from flat"
            remedy = "run sizes further apart, or repeat runs with other seeds"
            out.append(Finding(Severity.WARNING, "flat_curve", message, ratio, remedy))
    return out


def _sizes_of(fit: IsoFlopFit) -> str:
    return "token counts" if fit.x == "tokens" else "sizes"


def _budgets(fit: IsoFlopFit, family: str) -> list[Finding]:
    """Too few budgets for a law, and losses that rise with compute."""
    rows, out = fit.minima_of(family), []
    if len(rows) < FEWEST_BUDGETS:
        few = plural(len(rows), "usable budget")
        message = f"{family_name(family)}: {few}, which hardly test a law of two parameters"
        remedy = f"have at least {FEWEST_BUDGETS}; until then trust the interpolated gap only"
        out.append(Finding(Severity.WARNING, "few_budgets", message, float(len(rows)), remedy))
    rise = float(np.diff(numbers(rows, "loss_opt")).max(initial=-1.0))
    if rise >= 0:
        beaten = int(fit.frontier(family).beaten.sum())
        message = (
            f"{family_name(family)}: the best loss rises by {significant(rise)} nats from one budget to the next; the "
            f"interpolated gap leaves out {beaten} of the minima, which a cheaper budget beats"
        )
        remedy = "look for undertrained or unstable runs at the larger budget"
        out.append(Finding(Severity.WARNING, "loss_rises", message, rise, remedy))
    step = float(np.exp(np.diff(np.log(numbers(rows, "budget"))).max(initial=0.0)))
    if step > WIDE_STEP:
        message = (
            f"{family_name(family)}: budgets stand up to a factor {step:.3g} apart; between them the interpolated gap "
            "is off by up to .7% at a factor 10 and 4% at 30 where losses have floors, which no interval holds"
        )
        remedy = "add a budget in between, or read the gap near a budget of either family"
        out.append(Finding(Severity.NOTE, "wide_budgets", message, step, remedy))
    return out


def _sizes(fit: IsoFlopFit, family: str) -> list[Finding]:
    """Sizes so close that they count as one."""
    out = []
    for cell in fit.cells_of(family):
        own = np.unique(np.round(np.log(numbers(fit.runs.iloc[cell.rows], fit.x)), 9))
        steps = np.diff(own)
        close = steps[steps < np.log1p(NEAR_SIZES)]
        if len(close):
            where = f"{family_name(family)} at {scientific(cell.budget)} FLOPs"
            pairs = f"{plural(len(close), 'pair')} of sizes differ{'s' * (len(close) == 1)}"
            message = f"{where}: {pairs} by less than {NEAR_SIZES:.0%}, the closest by {np.expm1(close.min()):.1%}"
            if cell.sizes < len(own):
                message += f"; sizes within {ONE_SIZE - 1:.0%} are read as one, {len(own)} as {cell.sizes}"
            remedy = "spread the sizes evenly in log N; near-equal ones only repeat a point"
            out.append(Finding(Severity.NOTE, "near_duplicate_sizes", message, float(np.expm1(close.min())), remedy))
    return out


def _overlaps(fit: IsoFlopFit) -> list[Finding]:
    """Whether both families were measured at one loss, and by how many minima."""
    if any(role not in fit.families or not len(fit.minima_of(role)) for role in ROLES):
        return []
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    shared = overlap(arm, mdm)
    if shared is None:
        apart = max(mdm.loss_range[0] - arm.loss_range[1], arm.loss_range[0] - mdm.loss_range[1])
        message = (
            f"the families' loss ranges do not overlap, they lie {apart:.3g} nats apart: every gap is extrapolated"
        )
        remedy = "add larger budgets to the family with the higher loss, or smaller ones to the other"
        return [Finding(Severity.ERROR, "no_overlap", message, apart, remedy)]
    inside = [int(((side.loss >= shared[0]) & (side.loss <= shared[1])).sum()) for side in (arm, mdm)]
    if min(inside) >= 2:
        return []
    message = (
        f"the loss ranges overlap from {shared[0]:.4g} to {shared[1]:.4g} only, "
        f"with {inside[0]} ARM and {inside[1]} MDM minima in it"
    )
    remedy = "choose budgets so that at least two minima of each family lie in the other's range"
    return [Finding(Severity.NOTE, "thin_overlap", message, shared[1] - shared[0], remedy)]


def _lost_draws(draws: Bootstrap) -> list[Finding]:
    out = []
    for family, family_draws in draws.families.items():
        worst = float(family_draws.lost.max())
        if worst > LOST_DRAWS:
            budget = float(family_draws.budgets[int(family_draws.lost.argmax())])
            where = f"{family_name(family)} at {scientific(budget)} FLOPs"
            message = f"{where}: {worst:.1%} of the bootstrap draws have no usable minimum"
            remedy = "run sizes further apart, or repeat runs; until then these draws go through the other budgets"
            out.append(Finding(Severity.WARNING, "lost_draws", message, worst, remedy))
    return out
