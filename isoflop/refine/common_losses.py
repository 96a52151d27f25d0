"""The budget that a sweep lacks where its families reach no common loss, or hardly one: a gap is read at equal loss."""

import math
from collections.abc import Iterator, Mapping

from isoflop.place.sizes import choose_sizes, two_digits
from isoflop.refine.evidence import Evidence
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.missing_minima import WINDOW
from isoflop.refine.proposal import Kind, Proposal, flops_of
from isoflop.refine.rungs import non_embedding, rungs
from isoflop.sweep import FEWEST_SIZES
from isoflop.wording import short_number
from mdm_jax.spec import Family

FARTHEST = 100.0
"""A law is followed beyond its budgets by at most this factor in compute: a first step where more is needed."""
FEWEST_INSIDE = 2
"""Minima of each family inside the other's losses; with fewer the gap rests on an end of one of them."""


def common_losses(evidence: Evidence, further: FurtherRuns) -> Iterator[Proposal]:
    """One more budget where the families reach no common loss, or hardly one: the cheaper of the two ways."""
    if any(family not in evidence.laws for family in (Family.ARM, Family.MDM)):
        return
    losses = {family: _losses(evidence, further, family) for family in (Family.ARM, Family.MDM)}
    spans = {family: (min(own), max(own)) for family, own in losses.items()}
    low = max(span[0] for span in spans.values())
    high = min(span[1] for span in spans.values())
    inside = {family: sum(low <= loss <= high for loss in own) for family, own in losses.items()}
    if min(inside.values()) >= FEWEST_INSIDE:
        return
    said = f"{inside[Family.ARM]} ARM and {inside[Family.MDM]} MDM minima lie in the losses that both reached"
    if low >= high:
        said = "the families' loss ranges do not overlap, so that no gap can be read"
    arm, mdm = (f"{span[0]:.4g} to {span[1]:.4g}" for span in (spans[Family.ARM], spans[Family.MDM]))
    why = f"{said} (ARM {arm}, MDM {mdm})"
    pairs = ((Family.ARM, Family.MDM), (Family.MDM, Family.ARM))
    ways = [way for family, other in pairs if (way := _new_curve(evidence, further, family, other, spans, why))]
    yield from sorted(ways, key=lambda way: way.flops)[:1]


def _losses(evidence: Evidence, further: FurtherRuns, family: Family) -> list[float]:
    """The best loss at each of a family's planned budgets: measured, or by its law where there is no minimum yet."""
    measured = {f"{m.budget:.6g}": m.loss for m in evidence.usable_minima(family)}
    law = evidence.laws[family].loss
    expected = {f"{budget:.6g}": law(budget) for budget in further.budgets(family)}
    return list((expected | measured).values())


def _new_curve(
    evidence: Evidence,
    further: FurtherRuns,
    family: Family,
    other: Family,
    spans: Mapping[Family, tuple[float, float]],
    why: str,
) -> Proposal | None:
    """A budget at which the family is expected in the middle of the losses that only the other family has reached."""
    (low, high), (its_low, its_high) = spans[family], spans[other]
    gap = (max(high, its_low), its_high) if its_high > high else (its_low, min(low, its_high))
    if gap[0] >= gap[1]:
        return None
    loss, law = math.sqrt(gap[0] * gap[1]), evidence.laws[family]
    if not law.loss.exponent < 0:
        return None
    low_budget, high_budget = law.flops[0] / FARTHEST, law.flops[1] * FARTHEST
    budget = two_digits(min(max(law.loss.inverse(loss), low_budget), high_budget))
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
