"""Proposals for curves without a minimum inside their sizes, and for runs that diverged.

A parabola's minimum outside its sizes is a guess, so new sizes lie at most a factor of four beyond the edge. The law
through the family's other budgets, if there is one, is the better guess.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from isoflop.ladder import Size
from isoflop.place.sizes import FEWEST_ON_A_SIDE, choose_sizes
from isoflop.refine.evidence import EDGE, NO_MINIMUM, OK, TOO_FEW, Evidence, Minimum
from isoflop.refine.further_run import FurtherRuns
from isoflop.refine.proposal import Kind, Proposal, flops_of
from isoflop.refine.rungs import non_embedding, rungs, size_of
from isoflop.sweep import FEWEST_SIZES
from isoflop.wording import short_number
from mdm_jax.spec import RunSpec
from mdm_jax.spec.counting import count_parameters

WINDOW = 4.0
"""New sizes lie within this factor of the expected optimum, and at most this factor beyond an edge."""
MOST_BEYOND = 4
"""Most sizes that are proposed beyond an edge at once."""
WIDE_SPAN = 8.0
"""If sizes span this factor and show no minimum, noise is assumed to hide it."""


def repaired_minima(evidence: Evidence, further: FurtherRuns) -> Iterator[Proposal]:
    """Sizes or seeds for each budget without a usable minimum."""
    for minimum in (m for m in evidence.minima if m.status != OK):
        own = further.planned(minimum.family, minimum.budget)
        if not own:
            continue
        made = _repair(evidence, further, minimum, own)
        if made:
            spent = minimum.runs * minimum.budget
            expected, source = _expected(evidence, minimum)
            effect = f"N* near {short_number(expected)} ({source}); the laws can then use its {spent:.2e} FLOPs"
            sizes = f"sizes {short_number(minimum.n_low)} to {short_number(minimum.n_high)}"
            why = f"{minimum.status}: {minimum.reason} ({sizes})"
            yield Proposal(Kind.MINIMUM, tuple(made), why, effect, spent / flops_of(made))


def _repair(evidence: Evidence, further: FurtherRuns, minimum: Minimum, own: Sequence[RunSpec]) -> list[RunSpec]:
    """The runs to add to one curve; none if its unfinished runs are already the missing ones."""
    ladder = rungs([run for run in evidence.plan if run.family is minimum.family])
    planned = {size_of(run).name for run in own}
    budget = own[0].cell.budget or minimum.budget
    expected = _expected(evidence, minimum)[0]
    if minimum.status == EDGE:
        return _beyond_edge(evidence, further, minimum, ladder, own)
    if minimum.status == NO_MINIMUM and minimum.n_high / minimum.n_low >= WIDE_SPAN:
        return _seeds(further, minimum, budget, own, expected)
    sizes = {name: non_embedding(size) for name, size in ladder.items()}
    if minimum.status == NO_MINIMUM:
        ends = [name for name, n in sizes.items() if minimum.n_low / WINDOW <= n < minimum.n_low * 0.97][-2:]
        ends += [name for name, n in sizes.items() if minimum.n_high * 1.03 < n <= minimum.n_high * WINDOW][:2]
        wanted = [name for name in ends if name not in planned]
    else:
        if minimum.status == TOO_FEW and any(run in evidence.unfinished for run in own):
            return []
        wanted = [name for name in choose_sizes(sizes, expected, WINDOW, FEWEST_SIZES) if name not in planned]
    return further.make_all(minimum.family, budget, [ladder[name] for name in wanted])


def _expected(evidence: Evidence, minimum: Minimum) -> tuple[float, str]:
    """The expected best size, and its source: the law of the other budgets, the curve, or its best run."""
    law = evidence.laws.get(minimum.family)
    middle = math.sqrt(minimum.n_low * minimum.n_high)
    extrapolated = minimum.n_opt, "extrapolated from the curve"
    guess, source = extrapolated if math.isfinite(minimum.n_opt) else (minimum.n_best, "the best run")
    if law:
        guess, source = law.n_opt(minimum.budget), "by the law of the other budgets"
    if minimum.status == EDGE and (guess > middle) != (minimum.n_opt > middle):
        guess, source = extrapolated  # the law contradicts this budget's own runs
    inside = min(max(guess, minimum.n_low / WINDOW), minimum.n_high * WINDOW)
    return inside, source if inside == guess else f"at most a factor {WINDOW:g} beyond the sizes"


def _beyond_edge(
    evidence: Evidence, further: FurtherRuns, minimum: Minimum, ladder: dict[str, Size], own: Sequence[RunSpec]
) -> list[RunSpec]:
    """Sizes beyond the edge, about as far apart as the curve's, until enough lie beyond the expected optimum.

    Positions are log N, with the sign reversed if the optimum lies below the sizes.
    """
    up = minimum.n_opt > math.sqrt(minimum.n_low * minimum.n_high)
    sign = 1.0 if up else -1.0
    edge = sign * math.log(minimum.n_high if up else minimum.n_low)
    step = 0.7 * math.log(minimum.n_high / minimum.n_low) / max(minimum.n_sizes - 1, 1)
    waiting = [sign * math.log(count_parameters(run.model).non_embedding) for run in own if run in evidence.unfinished]
    optimum = sign * math.log(_expected(evidence, minimum)[0])
    lacking = FEWEST_ON_A_SIDE - sum(position > max(edge, optimum) for position in waiting)
    last, made = max([edge, *waiting]), []
    for size in ladder.values() if up else reversed(ladder.values()):
        position = sign * math.log(non_embedding(size))
        if lacking <= 0 or len(made) == MOST_BEYOND:
            break
        if position < last + min(max(step, math.log(1.15)), math.log(2)):
            continue
        runs = further.make_all(minimum.family, own[0].cell.budget or minimum.budget, [size])
        made += runs
        if runs:
            last, lacking = position, lacking - (position > optimum)
    return made


def _seeds(
    further: FurtherRuns, minimum: Minimum, budget: float, own: Sequence[RunSpec], expected: float
) -> list[RunSpec]:
    """Runs of another seed at both ends and next to the expected optimum, for a minimum that noise hides."""
    sizes = {size.name: size for size in map(size_of, own)}
    targets = (minimum.n_low, min(max(expected, minimum.n_low), minimum.n_high), minimum.n_high)
    names = [min(sizes, key=lambda name, n=n: abs(math.log(non_embedding(sizes[name]) / n))) for n in targets]
    seed = 1 + max(run.seed for run in own)
    return further.make_all(minimum.family, budget, [sizes[name] for name in dict.fromkeys(names)], seed)


def retries(evidence: Evidence) -> Iterator[Proposal]:
    """A run at half of the lowest learning rate for each cell whose runs all diverged."""
    diverged = {(_cell(run), run.optim.lr_peak) for run in evidence.diverged}
    done = {_cell(run) for run in evidence.plan if (_cell(run), run.optim.lr_peak) not in diverged}
    for run in sorted(evidence.diverged, key=lambda run: run.optim.lr_peak):
        if run.cell.budget is None or _cell(run) in done:
            continue
        done.add(_cell(run))
        slower = dataclasses.replace(run.optim, lr_peak=run.optim.lr_peak / 2)
        cell = dataclasses.replace(run.cell, parent_run_id="", parent_steps=0, refined=True)
        again = dataclasses.replace(run, optim=slower, cell=cell)
        why = f"{run.run_id} diverged at a learning rate of {run.optim.lr_peak:.3g}"
        effect = "fills the gap in its curve; the analysis takes the best rate of a cell"
        yield Proposal(Kind.RETRY, (again,), why, effect, 1 / flops_of([again]))


def _cell(run: RunSpec) -> tuple[object, ...]:
    return run.family, run.cell.budget, run.cell.group, run.model, run.seed
