"""Findings about single runs: those that lie off their curve, and those that the gap hangs on."""

import math

from analysis.checks.finding import Finding, Severity
from analysis.checks.influence import Influence, influences
from analysis.checks.outliers import Outlier, outliers
from analysis.minima.fit import IsoFlopFit
from analysis.wording import family_name, scientific, significant

MOST_INFLUENCE = 1.0
"""Half widths of the gap's interval. In simulated clean sweeps the most influential of 50 to 70 runs moved the gap by
more than .8 of a half width in one of a hundred."""
EXCLUDE = "write the cause into the run's excluded_reason and it stays in the table, but in no fit"


def single_run_findings(fit: IsoFlopFit) -> list[Finding]:
    """Outliers, and runs without which the gap would leave its own interval."""
    off, moves = outliers(fit), {influence.row: influence for influence in influences(fit)}
    found, named = [_outlier_finding(fit, run, moves.get(run.row)) for run in off], {outlier.row for outlier in off}
    decisive = (m for m in moves.values() if m.half_widths > MOST_INFLUENCE or math.isnan(m.without))
    return found + [_influence_finding(fit, move) for move in decisive if move.row not in named]


def _outlier_finding(fit: IsoFlopFit, run: Outlier, move: Influence | None) -> Finding:
    side, name = "above" if run.off > 0 else "below", _run_name(fit, run.family, run.budget, run.row)
    message = (
        f"{name} lies {significant(abs(run.off), 2)} nats {side} the curve of "
        f"the other runs, {significant(abs(run.t), 2)} standard errors; it makes the family's residuals "
        f"{significant(run.swelling, 2)} times as large"
    )
    if move is not None:
        message += f"; {_gap_change(move)}"
    remedy = (
        f"look for what went wrong with it; if something did, {EXCLUDE}. Chance does this to one sweep in thirty, and "
        "far from the minimum the curve itself may miss it: --curve cubic or --window 4 tell"
    )
    return Finding(Severity.WARNING, "outlier_run", message, run.t, remedy)


def _influence_finding(fit: IsoFlopFit, move: Influence) -> Finding:
    message = f"{_run_name(fit, move.family, move.budget, move.row)} decides the gap: {_gap_change(move)}"
    if not math.isnan(move.half_widths):
        message += f", {significant(move.half_widths, 2)} half widths of its interval"
    remedy = f"repeat it with another seed, or run sizes next to it; if something went wrong with it, {EXCLUDE}"
    return Finding(Severity.WARNING, "influential_run", message, move.half_widths, remedy)


def _run_name(fit: IsoFlopFit, family: str, budget: float, row: int) -> str:
    return f"{family_name(family)} run {fit.runs['run_id'].iloc[row]} at {scientific(budget)} FLOPs"


def _gap_change(move: Influence) -> str:
    """The gap with the run and without it, in words."""
    if not math.isfinite(move.without):
        return f"without it there is no gap at a loss of {move.loss:.4g}"
    return (
        f"without it the gap at a loss of {move.loss:.4g} is {significant(move.without)}, with it "
        f"{significant(move.ratio)}"
    )
