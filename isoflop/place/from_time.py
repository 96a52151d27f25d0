"""A plan from time: the experiment's sweep with all budgets scaled by one factor, the largest that the time allows.

Optimal sizes grow about as the square root of the budget (Hoffmann et al. 2022, arXiv 2203.15556). So written-out sizes
grow by the square root of the factor, to the nearest sizes of the ladders. A placement chooses its sizes again.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from isoflop.ladder import find_size, ladder_between
from isoflop.place.expand import SMALLEST_BY_RULE, ladder, parameters
from isoflop.sweep import BUDGET_FIELDS, SweepSpec
from isoflop.wording import duration, rounded
from mdm_jax.spec import RunSpec

MOST_HOURS = 1e6
STRIDE = 4.0
"""Ratio of the factors that are tried until two of them enclose the time."""
PRECISION = 1.03
"""The factor is found to this ratio."""
DIGITS = 3
"""Significant digits of the factor and of the budgets."""
FILLER_RATIO = 1.3
"""Ratio of the sizes that are added to the ladders to choose from."""


@dataclass(frozen=True)
class Scale:
    """The largest factor of a sweep's budgets that fits into a time, and the time that it takes."""

    factor: float
    seconds: float
    refusal: str
    """Why larger budgets cannot be planned, if the reason is not the time; else empty."""


def largest_scale(seconds_at: Callable[[float], float], limit: float) -> Scale:
    """The largest factor of the budgets whose sweep takes at most `limit` seconds.

    Args:
        seconds_at: seconds of the sweep at a factor, rising with it. Raises a ValueError if there is no such plan.
        limit: seconds.

    Raises:
        ValueError: the experiment itself cannot be planned, or its smallest plan takes longer than the limit. The
            message says how long.
    """
    found: dict[float, float | None] = {1.0: seconds_at(1.0)}
    refusals: dict[float, str] = {}

    def seconds(factor: float) -> float | None:
        factor = rounded(factor, DIGITS)
        if factor not in found:
            try:
                found[factor] = seconds_at(factor)
            except ValueError as error:
                found[factor], refusals[factor] = None, str(error)
        return found[factor]

    def fits(factor: float) -> bool:
        taken = seconds(factor)
        return taken is not None and taken <= limit

    low = 1.0
    while (taken := seconds(low)) is not None and taken > limit:
        low /= STRIDE
    if taken is None:  # some cell cannot spend its budget: the smallest plan lies between `low` and the factor before
        _, low = _boundary(lambda factor: seconds(factor) is None, low, STRIDE * low)
        taken = seconds(low)
    if taken is None or taken > limit:
        takes = f"takes {duration(taken)} ({taken / 3600:.3g} hours)" if taken else "cannot be found"
        smallest = f"the smallest plan of this experiment, with budgets x{rounded(low, DIGITS):g}, {takes}"
        raise ValueError(f"--hours {limit / 3600:g}: {smallest}: give more hours, or fewer curves or sizes")
    high = STRIDE * low
    while fits(high):
        low, high = high, STRIDE * high
    low, high = _boundary(fits, low, high)
    return Scale(rounded(low, DIGITS), seconds(low) or 0.0, refusals.get(rounded(high, DIGITS), ""))


def scale_lines(scale: Scale, runs: Sequence[RunSpec], hours: float, jobs: int) -> Iterator[str]:
    """Lines on a plan from time: the factor, the time, the budgets of each family, and what prevents larger budgets."""
    at_a_time = "one run after the other" if jobs == 1 else f"{jobs} runs at a time"
    yield f"--hours {hours:g}: budgets x{scale.factor:g} of those given, {duration(scale.seconds)}, {at_a_time}"
    for family in dict.fromkeys(run.family for run in runs):
        budgets = sorted({run.cell.budget for run in runs if run.family is family and run.cell.budget})
        yield f"{family.value} budgets: {', '.join(f'{budget:g}' for budget in budgets)}"
    if scale.refusal:
        yield f"larger budgets cannot be planned: {scale.refusal}"


def scaled(template: RunSpec, sweep: SweepSpec, factor: float) -> SweepSpec:
    """The sweep with all its budgets times the factor, to three digits, and its written-out sizes moved along.

    Raises:
        ValueError: a curve names an unknown size, or a budget is beyond its bounds.
    """
    if factor == 1:
        return sweep
    moved = _moved_sizes(template, sweep, math.sqrt(factor))
    curves, rule = [], sweep.placement
    for curve in sweep.curves:
        sizes = tuple(dict.fromkeys(moved[name] for name in curve.sizes))
        curves.append(dataclasses.replace(curve, budget=rounded(curve.budget * factor, DIGITS), sizes=sizes))
    placed = {name: tuple(rounded(b * factor, DIGITS) for b in getattr(rule, name)) for name in BUDGET_FIELDS}
    placement = dataclasses.replace(rule, **placed)
    warmup = rounded(sweep.trunk_warmup_budget * factor, DIGITS)
    return dataclasses.replace(sweep, curves=tuple(curves), placement=placement, trunk_warmup_budget=warmup)


def _moved_sizes(template: RunSpec, sweep: SweepSpec, growth: float) -> Mapping[str, str]:
    """Maps each written-out size to the one nearest to `growth` times its parameters. Different sizes stay different.

    A sweep with `own_sizes` keeps its sizes, because no others are known to belong to it.
    """
    names = dict.fromkeys(name for curve in sweep.curves for name in curve.sizes)
    if sweep.own_sizes or not names:
        return {name: name for name in names}
    written = parameters(tuple(find_size(name) for name in names), template)
    low, high = (max(SMALLEST_BY_RULE, growth * bound) for bound in (min(written.values()), max(written.values())))
    known = parameters((*ladder(sweep), *ladder_between(low, high, FILLER_RATIO)), template) | written
    free, moved = sorted(known, key=lambda name: known[name]), {}
    for name in sorted(written, key=lambda name: written[name]):
        target = growth * written[name]
        moved[name] = min(free, key=lambda other: abs(math.log(known[other] / target)))
        free = [other for other in free if known[other] > known[moved[name]]] or free[-1:]
    return moved


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Narrows (low, high) to a ratio of `PRECISION`. The condition holds at `low` and does not hold at `high`."""
    while high / low > PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
