"""The next runs of a sweep: the proposals of every kind, in order and within limits."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isoflop.refine.common_losses import common_losses
from isoflop.refine.evidence import OK, Evidence
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.missing_minima import repaired_minima, retries
from isoflop.refine.proposal import Limits, Proposal
from isoflop.refine.sharper import Candidates, sharper_gap, sharper_sizes, with_unfinished
from mdm_jax.spec import Family, RunSpec

MOST_RUNS = 12
MOST_NAMED = 3
MOST_SCATTER = 0.5
"""Share of the gap's variance. If scatter between budgets causes more, a note says that more runs do not help."""
RUNS_FOR_SIZES = 2
"""Runs that are reserved for the optimal sizes: one for each family."""


@dataclass(frozen=True)
class Refinement:
    """The proposals in order, the expected interval of the gap, and notes."""

    evidence: Evidence
    proposals: tuple[Proposal, ...]
    gap_factor: float
    """Half width of the gap's 95% interval, as a factor, after the planned runs; nan without a gap."""
    gap_factor_after: float
    """The same after the proposals for the gap."""
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """All proposed runs."""
        return tuple(run for proposal in self.proposals for run in proposal.runs)


def refine(evidence: Evidence, budget_flops: float = math.inf, max_runs: int = MOST_RUNS) -> Refinement:
    """The next runs of a sweep, within limits.

    Args:
        evidence: from `read_evidence`.
        budget_flops: most training FLOPs of all proposed runs together, under the plan's convention.
        max_runs: most runs of all proposals together.
    """
    further, limits = FurtherRuns(evidence.plan, evidence.usable), Limits(budget_flops, max_runs)
    chosen: list[Proposal] = []
    missing = [*repaired_minima(evidence, further)]
    for found in (common_losses(evidence, further), missing, retries(evidence)):
        chosen += [p for p in sorted(found, key=lambda p: -p.value) if limits.take(p)]
    known = with_unfinished(evidence)
    now = evidence.gap_factor(known) if known.gap_variance > 0 else math.nan
    candidates = Candidates(evidence, further)
    kept = min(RUNS_FOR_SIZES, limits.runs // 2)
    limits.runs -= kept
    sharper, known = sharper_gap(candidates, known, limits, evidence.gap_factor)
    chosen += sharper
    after = evidence.gap_factor(known) if sharper else now
    limits.runs += kept
    chosen += [p for p in sharper_sizes(candidates, known, limits) if limits.take(p)]
    notes = (*_notes(evidence, missing), *(f"left out by the limits: {line}" for line in limits.left_out))
    return Refinement(evidence, tuple(chosen), now, after, notes)


def _notes(evidence: Evidence, missing: Sequence[Proposal]) -> Iterator[str]:
    """Notes on runs to start or retry first, on curves that no proposal repairs, and on a missing gap."""
    unfinished, failed = evidence.unfinished, evidence.failed
    if unfinished:
        yield f"planned runs without a result: {_first_ids(unfinished)}; they count here as done, so start them first"
    if failed:
        yield f"failed: {_first_ids(failed)}; read their log.txt, then python -m isoflop.run DIR --retry-failed"
    if any(not run.cell.recipe for run in evidence.plan):
        yield "the plan names no recipe: new runs have the learning rate, batch and share of warm-up of the nearest run"
    repaired = {(p.family, f"{p.budget:.6g}") for p in missing}
    for minimum in (m for m in evidence.minima if m.status != OK):
        if (minimum.family, f"{minimum.budget:.6g}") not in repaired:
            name = f"{minimum.family.value} at {minimum.budget:g} FLOPs"
            yield f"{name}: {minimum.reason}; nothing to add: planned runs come first, or no size can spend the budget"
    present = [family for family in Family if any(m.family is family for m in evidence.minima)]
    if len(present) == 1:
        yield f"only the {present[0].value} has results: there is no gap to sharpen"
    elif not math.isfinite(evidence.loss):
        yield "no gap yet: it needs two usable minima of each family and a loss that both reach"
    elif evidence.knowledge.scatter_share > MOST_SCATTER:
        share = f"{evidence.knowledge.scatter_share:.0%} of the gap's variance"
        yield f"scatter between budgets is {share}, and further runs of these budgets do not reduce it: add budgets"
    elif not evidence.knowledge.gap_variance > 0:
        yield "the noise from run to run is unknown or zero: the gain from a run cannot be computed; repeat some seeds"


def _first_ids(runs: Sequence[RunSpec]) -> str:
    names = ", ".join(run.run_id for run in runs[:MOST_NAMED])
    return f"{len(runs)} ({names}{', …' if len(runs) > MOST_NAMED else ''})"
