"""Proposals that narrow intervals: the gap's for the fewest FLOPs, and those of the least certain optimal sizes.

Runs are chosen one after the other. Each is the run that reduces the variance most for its FLOPs, given those before.
Candidates are the ladder's sizes within a factor of four of each minimum, and further seeds of the curve's sizes. Among
candidates that are about equally good, the size with the fewest runs is taken, because all seeds of a size share the
error of the fitted curve's form. Planned runs without a result count as done, and are not proposed again.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from isoflop.ladder import Size
from isoflop.refine.evidence import Evidence, Knowledge, Minimum
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.missing_minima import WINDOW
from isoflop.refine.proposal import Kind, Limits, Proposal, flops_of
from isoflop.refine.rungs import non_embedding, rungs, size_of
from mdm_jax.spec import Family, RunSpec

LEAST_GAIN = 0.03
"""Share of the gap's variance. A run that reduces the variance by less is not proposed."""
NEARLY_BEST = 0.9
"""Share of the best value. Candidates above it count as equally good."""
WIDE_SIZE = 0.2
"""Standard error of log N* above which a further run is proposed."""


@dataclass(frozen=True)
class Candidate:
    """A further run at one size of one curve with a usable minimum."""

    minimum: Minimum
    size: Size
    run: RunSpec

    @property
    def curve(self) -> tuple[str, float]:
        """Family and budget, as the analysis names the curve."""
        return self.minimum.family.value, self.minimum.budget

    @property
    def n(self) -> float:
        """Non-embedding parameters."""
        return float(non_embedding(self.size))


class Candidates:
    """Runs that could be next on the curves with a usable minimum."""

    def __init__(self, evidence: Evidence, further: FurtherRuns) -> None:
        """Finds the sizes near each minimum."""
        self._further = further
        self._near: list[tuple[Minimum, Size, float]] = []
        self._runs: dict[tuple[Family, float, str], list[RunSpec]] = defaultdict(list)
        self._made: dict[tuple[Family, float, str, int], list[RunSpec]] = {}
        for family in Family:
            ladder = rungs([run for run in evidence.plan if run.family is family]).values()
            for minimum in evidence.usable_minima(family):
                own = further.planned(family, minimum.budget)
                for run in own:
                    self._runs[family, minimum.budget, size_of(run).name].append(run)
                near = [s for s in ladder if abs(math.log(non_embedding(s) / minimum.n_opt)) <= math.log(WINDOW)]
                self._near += [(minimum, size, own[0].cell.budget or minimum.budget) for size in near if own]

    def __iter__(self) -> Iterator[Candidate]:
        """A candidate for each size of each curve, with the next free seed."""
        for minimum, size, budget in self._near:
            runs = self._runs[minimum.family, minimum.budget, size.name]
            key = minimum.family, budget, size.name, 1 + max((run.seed for run in runs), default=-1)
            if key not in self._made:
                self._made[key] = self._further.make_all(minimum.family, budget, [size], seed=key[-1])
            yield from (Candidate(minimum, size, run) for run in self._made[key])

    def use(self, chosen: Candidate) -> None:
        """Counts the candidate's run as planned, so that its size has another next seed."""
        self._runs[chosen.minimum.family, chosen.minimum.budget, chosen.size.name].append(chosen.run)

    def best(self, gains: list[tuple[float, Candidate]]) -> tuple[float, Candidate]:
        """The (gain, candidate) with the highest gain for its FLOPs, or a nearly best one whose size has fewer runs."""
        values = [gain / flops_of([candidate.run]) for gain, candidate in gains]
        good = [(value, *pair) for value, pair in zip(values, gains, strict=True) if value >= NEARLY_BEST * max(values)]

        def fewest_then_best(found: tuple[float, float, Candidate]) -> tuple[int, float]:
            value, _, candidate = found
            return len(self._runs[candidate.minimum.family, candidate.minimum.budget, candidate.size.name]), -value

        return min(good, key=fewest_then_best)[1:]


def with_unfinished(evidence: Evidence) -> Knowledge:
    """What is known after the planned runs."""
    known = evidence.knowledge
    for run in evidence.unfinished:
        for family, budget in known.curves:
            same = run.cell.budget is not None and math.isclose(run.cell.budget, budget, rel_tol=1e-5)
            if same and family == run.family.value:
                known = known.with_run(family, budget, float(non_embedding(size_of(run))))
    return known


def sharper_gap(
    candidates: Candidates, known: Knowledge, limits: Limits, factor: Callable[[Knowledge], float]
) -> tuple[list[Proposal], Knowledge]:
    """Runs that narrow the gap's interval, until limits or gains are used up, and what is known after them.

    The runs on one curve are one proposal. The reductions of different curves add up, so their order does not matter:
    the largest reduction for its FLOPs comes first.
    """
    start, now = known, known
    curves: dict[tuple[str, float], list[Candidate]] = {}
    while now.gap_variance > 0:
        gains = [(now.gap_gain(*c.curve, c.n), c) for c in candidates if limits.fits([c.run])]
        worth = [(gain, c) for gain, c in gains if gain >= LEAST_GAIN * now.gap_variance]
        if not worth:
            break
        best = candidates.best(worth)[1]
        now = now.with_run(*best.curve, best.n)
        curves.setdefault(best.curve, []).append(best)
        candidates.use(best)
        limits.use([best.run])

    def reduction_per_flop(curve: Sequence[Candidate]) -> float:
        return (start.gap_variance - _with(start, curve).gap_variance) / flops_of([c.run for c in curve])

    ranked = sorted(curves.values(), key=reduction_per_flop, reverse=True)
    proposals, known = [], start
    for curve in ranked:
        proposals.append(_for_gap(curve, known, _with(known, curve), factor))
        known = _with(known, curve)
    return proposals, known


def _with(known: Knowledge, curve: Sequence[Candidate]) -> Knowledge:
    return functools.reduce(lambda state, candidate: state.with_run(*candidate.curve, candidate.n), curve, known)


def _for_gap(
    curve: Sequence[Candidate], before: Knowledge, after: Knowledge, factor: Callable[[Knowledge], float]
) -> Proposal:
    """The proposal of these runs on one curve. `factor` gives the half width of the gap's interval."""
    runs = tuple(candidate.run for candidate in curve)
    gain = before.gap_variance - after.gap_variance
    these = "this run reduces" if len(runs) == 1 else "these runs reduce"
    why = (
        f"its minimum causes {before.gap_share(*curve[0].curve):.0%} of the variance of the log gap;"
        f" {these} the whole variance by {gain / before.gap_variance:.0%}"
    )
    effect = f"the gap's 95% interval from a factor of {factor(before):.3f} to {factor(after):.3f}"
    return Proposal(Kind.GAP, runs, why, effect, gain / flops_of(runs))


def sharper_sizes(candidates: Candidates, known: Knowledge, limits: Limits) -> Iterator[Proposal]:
    """A run of each family at the budget with the least certain optimal size, if its error exceeds `WIDE_SIZE`."""
    for family in Family:
        keys = [key for key in known.curves if key[0] == family.value]
        widest = max(keys, key=lambda key: known.size_sd(*key), default=None)
        if widest is None or known.size_sd(*widest) < WIDE_SIZE:
            continue
        own = (c for c in candidates if c.curve == widest and limits.fits([c.run]))
        gains = [(known.size_gain(*c.curve, c.n), c) for c in own]
        if not gains:
            continue
        gain, best = candidates.best(gains)
        after = known.with_run(*best.curve, best.n).size_sd(*widest)
        now = known.size_sd(*widest)
        why = f"N* is least certain here, to a factor of {math.exp(now):.2f} (one standard error)"
        effect = f"N* to a factor of {math.exp(after):.2f}"
        candidates.use(best)
        yield Proposal(Kind.SIZE, (best.run,), why, effect, gain / flops_of([best.run]))
