"""Advice: what is expected of each curve of a sweep, and warnings about the sweep's weaknesses.

Advice covers all curves, placed by the rule or written by a person. It refuses no plan, because a sweep may have its
reasons and a prior may be wrong.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isoflop.ladder import find_size, ladder_between
from isoflop.place.expand import SMALLEST_BY_RULE, forecast_of, ladder, parameters, placed_budgets
from isoflop.place.forecast import FARTHEST, Expected, Forecast, rough_optimum
from isoflop.place.prior import flops_range
from isoflop.place.sizes import FEWEST_BUDGETS, FEWEST_ON_A_SIDE, are_few, choose_sizes, inside_count, sides
from isoflop.sweep import FEWEST_SIZES, CurveSpec, SweepSpec
from isoflop.wording import short_number
from mdm_jax.spec import Family, FlopConvention, RunSpec

BARELY_BEYOND = 1.1
"""Factor in compute. Budgets this little beyond a prior's points get no note."""
GUESS_MARGIN = 1.5
"""Factor in parameters. Sizes that miss a guessed optimum by less raise no alarm."""
MOST_NAMED = 3
LARGEST_BY_RULE = 1e12
"""Parameters. Larger sizes are not suggested."""
USUAL_EXPONENT = 0.6
"""N* grows about as this power of the budget. Both families' laws, published and ours, have .56 to .64."""


@dataclass(frozen=True)
class CurveForecast:
    """One budget of one family, its expected optimum, and the sizes around it."""

    group: str
    family: Family
    budget: float
    convention: FlopConvention
    held_out: bool
    n_opt: float
    """Non-embedding parameters of the expected optimum: the prior's, or a rough guess if `expected` is None."""
    expected: Expected | None
    """The prior's expectation; None if the budget is too far from the prior's points."""
    sizes: tuple[int, ...]
    """Non-embedding parameters of the curve's sizes, each once, smallest first."""
    below: int
    """Sizes within the window below the expected optimum."""
    above: int

    @property
    def all_above(self) -> bool:
        """Whether even the smallest size is larger than the expected optimum, with a margin if that is a guess."""
        return self.sizes[0] > self.n_opt * (1 if self.expected else GUESS_MARGIN)

    @property
    def all_below(self) -> bool:
        """Whether even the largest size is smaller than the expected optimum, with a margin if that is a guess."""
        return self.sizes[-1] * (1 if self.expected else GUESS_MARGIN) < self.n_opt


@dataclass(frozen=True)
class Advice:
    """Messages on a plan. Alarms and warnings give a remedy; notes say what the numbers rest on."""

    curves: tuple[CurveForecast, ...]
    alarms: tuple[str, ...]
    """Curves without a minimum, which make a sweep useless."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def advise(template: RunSpec, sweep: SweepSpec) -> Advice:
    """What is expected of the curves of an expanded sweep, and the rules of placement that they break.

    Args:
        template: the run that all cells share.
        sweep: from `expand`.

    Raises:
        ValueError: the prior cannot be read, or a size is unknown.
    """
    forecast = forecast_of(template, sweep)
    curves = tuple(_curve_forecasts(template, sweep, forecast))
    near = [curve for curve in curves if curve.expected]
    alarms = [said for side in ("all_above", "all_below") for said in _one_sided_alarms(sweep, curves, side)]
    warnings = []
    for group in dict.fromkeys(curve.group for curve in near):
        own = [curve for curve in near if curve.group == group]
        warnings += [*_size_warnings(sweep, template, own), *_overlap_warnings(sweep, forecast, own)]
    notes = (*_prior_notes(forecast, curves), *_holdout_and_seed_notes(sweep))
    return Advice(curves, tuple(alarms), tuple(warnings), notes)


def _curve_forecasts(template: RunSpec, sweep: SweepSpec, forecast: Forecast) -> Iterator[CurveForecast]:
    """One for each group, family, budget and convention, in the order in which they first appear."""
    together: dict[tuple, list[CurveSpec]] = {}
    for curve in sweep.curves:
        key = (curve.group, curve.family, curve.budget, curve.convention or sweep.convention)
        together.setdefault(key, []).append(curve)
    for (group, family, budget, convention), curves in together.items():
        names = dict.fromkeys(name for curve in curves for name in curve.sizes)
        params = parameters(tuple(find_size(name, sweep.own_sizes) for name in names), template)
        here = dataclasses.replace(forecast, convention=convention)
        expected = here.at(family, budget) if family in here.prior.families else None
        if expected and expected.beyond > FARTHEST:
            expected = None
        n_opt = expected.n_opt if expected else rough_optimum(here, family, budget)
        below, above = sides(params.values(), n_opt, sweep.placement.window)
        held_out = bool(expected) and not group and budget in placed_budgets(sweep, forecast, family, held_out=True)
        sizes = tuple(sorted(set(params.values())))
        yield CurveForecast(group, family, budget, convention, held_out, n_opt, expected, sizes, below, above)


def _one_sided_alarms(sweep: SweepSpec, curves: Sequence[CurveForecast], side: str) -> Iterator[str]:
    """An alarm about the curves whose sizes all lie on one side of the expected optimum, and sizes to take instead."""
    wrong = [curve for curve in curves if getattr(curve, side)]
    if not wrong:
        return
    nearest, larger, smaller = (0, "larger", "smaller") if side == "all_above" else (-1, "smaller", "larger")
    named = ", ".join(
        f"{_curve_name(curve)} ({short_number(curve.sizes[nearest], 3)}, best about {short_number(curve.n_opt, 2)})"
        for curve in wrong[:MOST_NAMED]
    )
    fitting = sorted(c.budget * (math.sqrt(c.sizes[0] * c.sizes[-1]) / c.n_opt) ** (1 / USUAL_EXPONENT) for c in wrong)
    budgets = " to ".join(dict.fromkeys(f"{budget:.0e}" for budget in (fitting[0], fitting[-1])))
    yield (
        f"at {len(wrong)} of {len(curves)} budgets every size is {larger} than the expected optimum, so that no minimum"
        f" is expected: {named}{_and_more(wrong)}: take {smaller} sizes, such as --sizes"
        f" {_suggested_sizes(sweep, wrong)}, or budgets about {budgets}"
    )


def _suggested_sizes(sweep: SweepSpec, curves: Sequence[CurveForecast]) -> str:
    """Sizes around the optima of all these curves, as `--sizes` takes them."""
    optima, window = [curve.n_opt for curve in curves], sweep.placement.window
    low, high = (min(max(n, SMALLEST_BY_RULE), LARGEST_BY_RULE) for n in (min(optima) / window, max(optima) * window))
    ratio = (max(optima) / min(optima) * window**2) ** (1 / FEWEST_SIZES)
    return ",".join(size.name for size in ladder_between(low, high, ratio))


def _size_warnings(sweep: SweepSpec, template: RunSpec, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """A warning about the curves with too few sizes around the expected optimum, or too few on one side of it."""
    few = [curve for curve in curves if _has_few(sweep, curve) and not curve.all_above and not curve.all_below]
    if not few:
        return
    named = "; ".join(
        f"{_curve_name(curve)} has {curve.below} below and {curve.above} above {short_number(curve.n_opt, 3)}:"
        f" {_missing_sizes(sweep, template, curve)}"
        for curve in few[:MOST_NAMED]
    )
    yield (
        f"{len(few)} of {len(curves)} curves have few sizes within x{sweep.placement.window:g} of the expected optimum"
        f" (wanted are {FEWEST_SIZES}, with {FEWEST_ON_A_SIDE} on each side): {named}{_and_more(few)}"
    )


def _has_few(sweep: SweepSpec, curve: CurveForecast) -> bool:
    fewest = min(FEWEST_SIZES, sweep.placement.holdout_sizes) if curve.held_out else FEWEST_SIZES
    return are_few(curve.below, curve.above, fewest)


def _and_more(curves: Sequence[CurveForecast]) -> str:
    return f" and {len(curves) - MOST_NAMED} more" if len(curves) > MOST_NAMED else ""


def _missing_sizes(sweep: SweepSpec, template: RunSpec, curve: CurveForecast) -> str:
    """Advice: sizes of the ladder to add on the side with too few, or the range to add to the ladder."""
    n_opt, window = curve.n_opt, sweep.placement.window
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
    if low < SMALLEST_BY_RULE:
        return "shapes so small are sparse, take a larger budget"
    between = f"from {short_number(low)} to {short_number(high)}"
    return f"the ladder has no others there: add sizes LAYERSxWIDTH {between} (sweep.placement.sizes)"


def _overlap_warnings(sweep: SweepSpec, forecast: Forecast, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """A warning about each family with too few budgets whose loss is expected inside the other family's losses."""
    families = dict.fromkeys(curve.family for curve in curves)
    losses = {f: [c.expected.loss for c in curves if c.family is f and c.expected] for f in families}
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
        fix = f" (sweep.placement.{family.value}_budgets; --overlap {other.value} derives them)"
        if sweep.placement.overlap:
            fix = ", with more budgets than now, because the ends of this range do not count"
        yield (
            f"{group}{inside} of {len(losses[family])} {name} budgets are expected inside the {others}'s losses"
            f" ({high:.3f} to {low:.3f}), wanted are {FEWEST_BUDGETS}: take {name} budgets between {reach[0]} and"
            f" {reach[1]}{fix}"
        )


def _prior_notes(forecast: Forecast, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """Notes on the prior that the expectations rest on."""
    prior = forecast.prior
    near = {curve: curve.expected for curve in curves if curve.expected}
    if len(near) < len(curves):
        yield (
            f"{len(curves) - len(near)} of {len(curves)} curves are far from the points of the prior {prior.source}"
            f" ({flops_range(prior)} FLOPs): their best sizes are a rough guess between the published laws and our"
            " sweeps of tiny models, and whether the families' losses overlap is not known; take --prior with the"
            " fits.json of an earlier report of similar budgets"
        )
    if not near:
        return
    said = f"expected: from the prior {prior.source} ({flops_range(prior)} FLOPs under {prior.convention.value})"
    others = sorted({c.convention.value for c in near} - {prior.convention.value})
    said += f", converted to {' and '.join(others)} at the size where both counts agree" if others else ""
    yield said
    far = {(c.family, c.budget): e.beyond for c, e in near.items() if e.beyond > BARELY_BEYOND}
    if far:
        farthest = sorted(far, key=lambda key: -far[key])[:MOST_NAMED]
        named = ", ".join(f"{family.value} at {budget:g} (x{far[family, budget]:.3g})" for family, budget in farthest)
        rest = f" and {len(far) - MOST_NAMED} more curves" if len(far) > MOST_NAMED else ""
        yield f"expected beyond the prior's points, by a factor in compute: {named}{rest}"
    vocab = forecast.template.model.vocab_size
    if prior.vocab_size not in (None, vocab):
        yield f"the prior's losses are per token of a vocabulary of {prior.vocab_size}; this one has {vocab}"


def _holdout_and_seed_notes(sweep: SweepSpec) -> Iterator[str]:
    """Notes on a sweep without a held-out budget or without repeated seeds."""
    if not sweep.placement.holdout_budgets:
        fix = "--holdout places one" if sweep.placement.has_budgets else "a curve at a larger budget is one"
        yield f"no held-out budget above the grid: laws are tested only by leaving out a budget of the grid; {fix}"
    if len(sweep.seeds) == 1 and not any(curve.seeds for curve in sweep.curves):
        yield (
            "one seed a cell: noise from run to run can be judged only from the scatter around the curves"
            " (sweep.placement.replicate_seeds repeats the cells next to an optimum, sweep.seeds all)"
        )


def _curve_name(curve: CurveForecast) -> str:
    group = f" in {curve.group}" if curve.group else ""
    return f"{curve.family.value} at {curve.budget:g}{group}"
