"""Proposes a budget if the families reach no common loss, or hardly any. A gap is read at equal loss."""

import math
from collections.abc import Iterator, Mapping

from isoflop.place.sizes import choose_sizes
from isoflop.refine.evidence import Evidence
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.missing_minima import WINDOW
from isoflop.refine.proposal import Kind, Proposal, flops_of
from isoflop.refine.rungs import non_embedding, rungs
from isoflop.sweep import FEWEST_SIZES
from isoflop.wording import rounded, short_number
from mdm_jax.spec import Family

FARTHEST = 100.0
"""A law is extrapolated beyond its budgets by at most this factor in compute."""
FEWEST_INSIDE = 2
"""Minima of each family inside the other's losses. With fewer, the gap rests on the end of a family's range."""


def common_losses(evidence: Evidence, further: FurtherRuns) -> Iterator[Proposal]:
    """A new budget of the family that reaches more common losses for fewer FLOPs, if there are too few of them."""
    if any(family not in evidence.laws for family in (Family.ARM, Family.MDM)):
        return
    losses = {family: _losses(evidence, further, family) for family in (Family.ARM, Family.MDM)}
    ranges = {family: (min(own), max(own)) for family, own in losses.items()}
    low = max(lowest for lowest, _ in ranges.values())
    high = min(highest for _, highest in ranges.values())
    inside = {family: sum(low <= loss <= high for loss in own) for family, own in losses.items()}
    if min(inside.values()) >= FEWEST_INSIDE:
        return
    finding = f"{inside[Family.ARM]} ARM and {inside[Family.MDM]} MDM minima lie in the losses that both reached"
    if low >= high:
        finding = "the families' loss ranges do not overlap, so that no gap can be read"
    arm, mdm = ("{:.4g} to {:.4g}".format(*ranges[family]) for family in (Family.ARM, Family.MDM))
    why = f"{finding} (ARM {arm}, MDM {mdm})"
    pairs = ((Family.ARM, Family.MDM), (Family.MDM, Family.ARM))
    ways = [way for family, other in pairs if (way := _new_curve(evidence, further, family, other, ranges, why))]
    yield from sorted(ways, key=lambda way: way.flops)[:1]


def _losses(evidence: Evidence, further: FurtherRuns, family: Family) -> list[float]:
    """The lowest loss at each of a family's planned budgets: measured, or by its law if there is no minimum yet."""
    measured = {f"{m.budget:.6g}": m.loss for m in evidence.usable_minima(family)}
    law = evidence.laws[family].loss
    expected = {f"{budget:.6g}": law(budget) for budget in further.budgets(family)}
    return list((expected | measured).values())


def _new_curve(
    evidence: Evidence,
    further: FurtherRuns,
    family: Family,
    other: Family,
    ranges: Mapping[Family, tuple[float, float]],
    why: str,
) -> Proposal | None:
    """A budget at which the family should reach the middle of the losses that only the other family has reached."""
    (low, high), (other_low, other_high) = ranges[family], ranges[other]
    missing = (max(high, other_low), other_high) if other_high > high else (other_low, min(low, other_high))
    if missing[0] >= missing[1]:
        return None
    loss, law = math.sqrt(missing[0] * missing[1]), evidence.laws[family]
    if not law.loss.exponent < 0:
        return None
    low_budget, high_budget = law.flops[0] / FARTHEST, law.flops[1] * FARTHEST
    budget = rounded(min(max(law.loss.inverse(loss), low_budget), high_budget), 2)
    if further.planned(family, budget):
        return None
    ladder = rungs([run for run in evidence.plan if run.family is family])
    affordable = {name: size for name, size in ladder.items() if further.make_all(family, budget, [size])}
    if len(affordable) < FEWEST_SIZES:
        return None
    sizes = {name: non_embedding(size) for name, size in affordable.items()}
    chosen = choose_sizes(sizes, law.n_opt(budget), WINDOW, FEWEST_SIZES)
    runs = tuple(further.make_all(family, budget, [affordable[name] for name in chosen]))
    effect = (
        f"the {family.value.upper()} at {law.loss(budget):.4g} nats there, N* near {short_number(law.n_opt(budget))}"
    )
    return Proposal(Kind.OVERLAP, runs, why, effect, 1 / flops_of(runs))
