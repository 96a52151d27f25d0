"""Advice: what is expected of each curve of a sweep, and what its plan should say about its own weaknesses.

Advice looks at all curves, whether the rule placed them or a person wrote them. It refuses no plan: a sweep may have
its reasons, and a prior may be wrong.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isoflop.ladder import find_size, ladder_between
from isoflop.place.expand import LEAST_RULED, forecast_of, ladder, parameters, placed_budgets
from isoflop.place.forecast import FARTHEST, Expected, Forecast, rough_optimum
from isoflop.place.prior import covered
from isoflop.place.sizes import FEWEST_BUDGETS, FEWEST_ON_A_SIDE, choose_sizes, inside_count
from isoflop.sweep import FEWEST_SIZES, CurveSpec, SweepSpec
from isoflop.wording import short_number
from mdm_jax.spec import Family, FlopConvention, RunSpec

BARELY_BEYOND = 1.1
"""Up to this factor beyond a prior's points nothing is said."""
GUESSED = 1.5
"""Factor in parameters between sizes and a guessed optimum from which an alarm is worth it."""
MOST_NAMED = 3
MOST_RULED = 1e12
"""Parameters up to which sizes are suggested."""
USUAL_EXPONENT = 0.6
"""N* grows about as this power of the budget: .56 to .64 in both families' laws, published and ours."""


@dataclass(frozen=True)
class CurveForecast:
    """One budget of one family: what is expected of it, and where its sizes lie."""

    group: str
    family: Family
    budget: float
    convention: FlopConvention
    held_out: bool
    n_opt: float
    """Non-embedding parameters of the expected optimum: the prior's, or a rough guess where `expected` is None."""
    expected: Expected | None
    """What the sweep's prior says; None too far from its points."""
    sizes: tuple[int, ...]
    """Non-embedding parameters of the curve's sizes, each once, smallest first."""
    below: int
    """Sizes within the window below the expected optimum."""
    above: int

    @property
    def all_above(self) -> bool:
        """Whether even the smallest size is larger than the expected optimum, clearly so where that is a guess."""
        return self.sizes[0] > self.n_opt * (1 if self.expected else GUESSED)

    @property
    def all_below(self) -> bool:
        """Whether even the largest size is smaller than the expected optimum, clearly so where that is a guess."""
        return self.sizes[-1] * (1 if self.expected else GUESSED) < self.n_opt


@dataclass(frozen=True)
class Advice:
    """What a plan says beside its tables. Alarms and warnings come with a remedy; notes say what numbers rest on."""

    curves: tuple[CurveForecast, ...]
    alarms: tuple[str, ...]
    """What makes a sweep useless: curves without a minimum."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def advise(template: RunSpec, sweep: SweepSpec) -> Advice:
    """What is expected of the curves of an expanded sweep, and which of the rules of placement they break.

    Args:
        template: the run that all cells share.
        sweep: from `expand`.

    Raises:
        ValueError: the prior cannot be read, or a size is unknown.
    """
    forecast = forecast_of(template, sweep)
    curves = tuple(_forecasts(template, sweep, forecast))
    near = [curve for curve in curves if curve.expected]
    alarms = [said for side in ("all_above", "all_below") for said in _one_sided(sweep, curves, side)]
    warnings = []
    for group in dict.fromkeys(curve.group for curve in near):
        own = [curve for curve in near if curve.group == group]
        warnings += [*_sizes(sweep, template, own), *_overlap(sweep, forecast, own)]
    return Advice(curves, tuple(alarms), tuple(warnings), (*_footing(forecast, curves), *_repeats(sweep)))


def _forecasts(template: RunSpec, sweep: SweepSpec, forecast: Forecast) -> Iterator[CurveForecast]:
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
        reach = math.log(sweep.placement.window)
        offsets = [math.log(n / n_opt) for n in params.values()]
        below, above = sum(-reach <= x < 0 for x in offsets), sum(0 <= x <= reach for x in offsets)
        held_out = bool(expected) and not group and budget in placed_budgets(sweep, forecast, family, held_out=True)
        sizes = tuple(sorted(set(params.values())))
        yield CurveForecast(group, family, budget, convention, held_out, n_opt, expected, sizes, below, above)


def _one_sided(sweep: SweepSpec, curves: Sequence[CurveForecast], side: str) -> Iterator[str]:
    """An alarm about the curves whose sizes all lie on one side of the expected optimum, with sizes that do not."""
    wrong = [curve for curve in curves if getattr(curve, side)]
    if not wrong:
        return
    nearest, larger, smaller = (0, "larger", "smaller") if side == "all_above" else (-1, "smaller", "larger")
    named = ", ".join(
        f"{_name(curve)} ({short_number(curve.sizes[nearest], 3)}, best about {short_number(curve.n_opt, 2)})"
        for curve in wrong[:MOST_NAMED]
    )
    fitting = sorted(c.budget * (math.sqrt(c.sizes[0] * c.sizes[-1]) / c.n_opt) ** (1 / USUAL_EXPONENT) for c in wrong)
    budgets = " to ".join(dict.fromkeys(f"{budget:.0e}" for budget in (fitting[0], fitting[-1])))
    yield (
        f"at {len(wrong)} of {len(curves)} budgets every size is {larger} than the expected optimum, so that no minimum"
        f" is expected: {named}{_more(wrong)}: take {smaller} sizes, such as --sizes {_suggested(sweep, wrong)},"
        f" or budgets about {budgets}"
    )


def _suggested(sweep: SweepSpec, curves: Sequence[CurveForecast]) -> str:
    """Sizes around the optima of all these curves, as `--sizes` takes them."""
    optima, window = [curve.n_opt for curve in curves], sweep.placement.window
    low, high = (min(max(n, LEAST_RULED), MOST_RULED) for n in (min(optima) / window, max(optima) * window))
    ratio = (max(optima) / min(optima) * window**2) ** (1 / FEWEST_SIZES)
    return ",".join(size.name for size in ladder_between(low, high, ratio))


def _sizes(sweep: SweepSpec, template: RunSpec, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """A warning about the curves with too few sizes around the expected optimum, or too few on one side of it."""
    thin = [curve for curve in curves if _thin(sweep, curve) and not curve.all_above and not curve.all_below]
    if not thin:
        return
    named = "; ".join(
        f"{_name(curve)} has {curve.below} below and {curve.above} above {short_number(curve.n_opt, 3)}:"
        f" {_remedy(sweep, template, curve)}"
        for curve in thin[:MOST_NAMED]
    )
    yield (
        f"{len(thin)} of {len(curves)} curves have few sizes within x{sweep.placement.window:g} of the expected optimum"
        f" (wanted are {FEWEST_SIZES}, with {FEWEST_ON_A_SIDE} on each side): {named}{_more(thin)}"
    )


def _thin(sweep: SweepSpec, curve: CurveForecast) -> bool:
    fewest = min(FEWEST_SIZES, sweep.placement.holdout_sizes) if curve.held_out else FEWEST_SIZES
    return curve.below + curve.above < fewest or min(curve.below, curve.above) < FEWEST_ON_A_SIDE


def _more(curves: Sequence[CurveForecast]) -> str:
    return f" and {len(curves) - MOST_NAMED} more" if len(curves) > MOST_NAMED else ""


def _remedy(sweep: SweepSpec, template: RunSpec, curve: CurveForecast) -> str:
    """Sizes of the ladder that the curve lacks, on the side that is short; or where to add some to the ladder."""
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
    if low < LEAST_RULED:
        return "shapes so small are sparse, take a larger budget"
    between = f"from {short_number(low)} to {short_number(high)}"
    return f"the ladder has no others there: add sizes LAYERSxWIDTH {between} (sweep.placement.sizes)"


def _overlap(sweep: SweepSpec, forecast: Forecast, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """Warns of a family of which too few budgets are expected inside the other's losses."""
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
        fix = f"(sweep.placement.{family.value}_budgets; --overlap {other.value} derives them)"
        if sweep.placement.overlap:
            fix = "(give more budgets: the ends of the range are not inside it)"
        yield (
            f"{group}{inside} of {len(losses[family])} {name} budgets are expected inside the {others}'s losses"
            f" ({high:.3f} to {low:.3f}), wanted are {FEWEST_BUDGETS}: {name} budgets between {reach[0]} and"
            f" {reach[1]} are {fix}"
        )


def _footing(forecast: Forecast, curves: Sequence[CurveForecast]) -> Iterator[str]:
    """Notes on what the expectations rest on."""
    prior = forecast.prior
    near = {curve: curve.expected for curve in curves if curve.expected}
    if len(near) < len(curves):
        yield (
            f"{len(curves) - len(near)} of {len(curves)} curves are far from the points of the prior {prior.source}"
            f" ({covered(prior)} FLOPs): their best sizes are a rough guess between the published laws and our sweeps"
            " of tiny models, and whether the families' losses overlap is not known; --prior with the fits.json of an"
            " earlier report nearby tells"
        )
    if not near:
        return
    said = f"expected: from the prior {prior.source} ({covered(prior)} FLOPs under {prior.convention.value})"
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


def _name(curve: CurveForecast) -> str:
    group = f" in {curve.group}" if curve.group else ""
    return f"{curve.family.value} at {curve.budget:g}{group}"
