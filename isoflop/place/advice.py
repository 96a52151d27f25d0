"""Advice: what is expected of each curve of a sweep, and what its plan should say about its own weaknesses.

It looks at curves however they came about, placed by the rule or written by hand. Nothing here refuses a plan: a sweep
may have its reasons, and a prior may be wrong.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isoflop.ladder import find_size
from isoflop.place.expand import forecast_of, ladder, parameters, placed_budgets
from isoflop.place.forecast import FARTHEST, Expected, Forecast
from isoflop.place.prior import covered
from isoflop.placement import FEWEST_BUDGETS, FEWEST_ON_A_SIDE, FEWEST_SIZES, choose_sizes, inside_count
from isoflop.sweep import CurveSpec, SweepSpec
from isoflop.wording import short_number
from mdm_jax.spec import Family, FlopConvention, RunSpec

BARELY_BEYOND = 1.1
"""Up to this factor beyond a prior's points nothing is said."""
MOST_NAMED = 5


@dataclass(frozen=True)
class CurveForecast:
    """One budget of one family: what the prior expects, and where its sizes lie."""

    group: str
    family: Family
    budget: float
    convention: FlopConvention
    held_out: bool
    expected: Expected
    sizes: tuple[int, ...]
    """Non-embedding parameters of the curve's sizes, each once, smallest first."""
    below: int
    """Sizes within the window below the expected optimum."""
    above: int


@dataclass(frozen=True)
class Advice:
    """What a plan says beside its tables. Warnings come with a remedy; notes say what the numbers rest on."""

    curves: tuple[CurveForecast, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def advise(template: RunSpec, sweep: SweepSpec) -> Advice:
    """What is expected of the curves of an expanded sweep, and which of the rules of placement they break.

    Args:
        template: the run that all cells share.
        sweep: from `curves.expand`.

    Raises:
        ValueError: the prior cannot be read, or a size is unknown.
    """
    forecast = forecast_of(template, sweep)
    if not any(curve.family in forecast.prior.families for curve in sweep.curves):
        none = f"{_unchecked(forecast, len(sweep.curves))}: it has neither family of this sweep"
        return Advice((), (), (none, *_repeats(sweep)))
    curves = tuple(_forecasts(template, sweep, forecast))
    near = [curve for curve in curves if curve.expected.beyond <= FARTHEST]
    warnings = []
    for group in dict.fromkeys(curve.group for curve in curves):
        own = [curve for curve in near if curve.group == group]
        warnings += [said for curve in own for said in _sizes(sweep, template, curve)]
        warnings += _overlap(forecast, own)
    notes = [*_footing(forecast, near), *_repeats(sweep)]
    if len(near) < len(curves):
        away = _unchecked(forecast, len(curves) - len(near))
        notes.insert(0, f"{away}: too far away; give --prior with the fits.json of an earlier report nearby")
    return Advice(tuple(near), tuple(warnings), tuple(notes))


def _forecasts(template: RunSpec, sweep: SweepSpec, forecast: Forecast) -> Iterator[CurveForecast]:
    """One for each group, family, budget and convention, in the order in which they first appear."""
    together: dict[tuple, list[CurveSpec]] = {}
    for curve in sweep.curves:
        if curve.family in forecast.prior.families:
            key = (curve.group, curve.family, curve.budget, curve.convention or sweep.convention)
            together.setdefault(key, []).append(curve)
    for (group, family, budget, convention), curves in together.items():
        names = dict.fromkeys(name for curve in curves for name in curve.sizes)
        params = parameters(tuple(find_size(name, sweep.own_sizes) for name in names), template)
        expected = dataclasses.replace(forecast, convention=convention).at(family, budget)
        reach = math.log(sweep.placement.window)
        offsets = [math.log(n / expected.n_opt) for n in params.values()]
        below, above = sum(-reach <= x < 0 for x in offsets), sum(0 <= x <= reach for x in offsets)
        held_out = not group and budget in placed_budgets(sweep, forecast, family, held_out=True)
        sizes = tuple(sorted(set(params.values())))
        yield CurveForecast(group, family, budget, convention, held_out, expected, sizes, below, above)


def _sizes(sweep: SweepSpec, template: RunSpec, curve: CurveForecast) -> Iterator[str]:
    """Warns of a curve with too few sizes around its expected optimum, or too few on one side of it."""
    inside, window = curve.below + curve.above, sweep.placement.window
    fewest = min(FEWEST_SIZES, sweep.placement.holdout_sizes) if curve.held_out else FEWEST_SIZES
    if inside >= fewest and min(curve.below, curve.above) >= FEWEST_ON_A_SIDE:
        return
    n_opt, few = curve.expected.n_opt, f"{FEWEST_ON_A_SIDE} on each side"
    counted = (
        f"{inside} size{'' if inside == 1 else 's'} within x{window:g} of the expected optimum {short_number(n_opt)}"
    )
    yield (
        f"{_name(curve)}: {counted}, {curve.below} below and {curve.above} above it; wanted are {fewest}, with {few}:"
        f" {_remedy(sweep, template, curve)}"
    )


def _remedy(sweep: SweepSpec, template: RunSpec, curve: CurveForecast) -> str:
    """Sizes of the ladder that the curve lacks, on the side that is short; or where to add some to the ladder."""
    n_opt, window = curve.expected.n_opt, sweep.placement.window
    short = [side for side, count in ((-1, curve.below), (1, curve.above)) if count < FEWEST_ON_A_SIDE] or [-1, 1]
    inside = {
        n: m for n, m in parameters(ladder(sweep), template).items() if abs(math.log(m / n_opt)) <= math.log(window)
    }
    ideal = choose_sizes(inside, n_opt, window, FEWEST_SIZES)
    for names in (ideal, inside):
        new = [n for n in names if inside[n] not in curve.sizes and (1 if inside[n] >= n_opt else -1) in short]
        if new:
            return f"add {', '.join(new)}"
    low, high = n_opt * window ** min(0, min(short)), n_opt * window ** max(0, max(short))
    between = f"from {short_number(low)} to {short_number(high)}"
    return f"the ladder has no others there: add sizes LAYERSxWIDTH {between} (sweep.placement.sizes)"


def _overlap(forecast: Forecast, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """Warns of a family of which too few budgets are expected inside the other's losses."""
    losses = {f: [c.expected.loss for c in curves if c.family is f] for f in dict.fromkeys(c.family for c in curves)}
    for family, other in itertools.permutations(losses, 2):
        inside = inside_count(losses[family], losses[other])
        if inside >= FEWEST_BUDGETS:
            continue
        high, low = max(losses[other]), min(losses[other])
        convention = next(c.convention for c in curves if c.family is family)
        here = dataclasses.replace(forecast, convention=convention)
        reach = [f"{here.budget_for(family, loss):.2g}" for loss in (high, low)]
        name, others = family.value.upper(), other.value.upper()
        group = f"group {curves[0].group}: " if curves[0].group else ""
        yield (
            f"{group}{inside} of {len(losses[family])} {name} budgets are expected inside the {others}'s losses"
            f" ({high:.3f} to {low:.3f}), wanted are {FEWEST_BUDGETS}: {name} budgets between {reach[0]} and"
            f" {reach[1]} are (sweep.placement.{family.value}_budgets; --overlap {other.value} derives them)"
        )


def _footing(forecast: Forecast, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """Notes on what the expectations rest on."""
    prior = forecast.prior
    if not curves:
        return
    said = f"expected: from the prior {prior.source} ({covered(prior)} FLOPs under {prior.convention.value})"
    others = sorted({c.convention.value for c in curves} - {prior.convention.value})
    said += f", converted to {' and '.join(others)} at the size where both counts agree" if others else ""
    yield said
    far = {(c.family, c.budget): c.expected.beyond for c in curves if c.expected.beyond > BARELY_BEYOND}
    if far:
        farthest = sorted(far, key=lambda key: -far[key])[:MOST_NAMED]
        named = ", ".join(f"{family.value} at {budget:g} (x{far[family, budget]:.3g})" for family, budget in farthest)
        rest = f" and {len(far) - MOST_NAMED} more curves" if len(far) > MOST_NAMED else ""
        yield f"expected beyond the prior's points, by a factor in compute: {named}{rest}"
    vocab = forecast.template.model.vocab_size
    if prior.vocab_size not in (None, vocab):
        yield f"the prior's losses are per token of a vocabulary of {prior.vocab_size}; this one has {vocab}"


def _repeats(sweep: SweepSpec) -> Iterator[str]:
    """Notes on what the sweep will not be able to say."""
    if not sweep.placement.holdout_budgets:
        fix = "--holdout places one" if sweep.placement.asked else "a curve at a larger budget is one"
        yield f"no held-out budget above the grid: laws are tested only by leaving out a budget of the grid; {fix}"
    if len(sweep.seeds) == 1 and not any(len(curve.seeds) for curve in sweep.curves):
        yield (
            "one seed a cell: noise from run to run can be judged only from the scatter around the curves"
            " (sweep.placement.replicate_seeds repeats the cells next to an optimum, sweep.seeds all)"
        )


def _unchecked(forecast: Forecast, curves: int) -> str:
    prior = forecast.prior
    which = f"{curves} curve(s)"
    return f"sizes and overlap of {which} are not checked against the prior {prior.source} ({covered(prior)} FLOPs)"


def _name(curve: CurveForecast) -> str:
    group = f" in {curve.group}" if curve.group else ""
    return f"{curve.family.value} at {curve.budget:g}{group}"
