"""Curves from a placement: each family's budgets, and for each budget the sizes around its expected optimum."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from isoflop.grid import make_cell
from isoflop.ladder import SMDM, Size, find_size, ladder_between, tiny_sizes
from isoflop.place.forecast import FARTHEST, Expected, Forecast
from isoflop.place.prior import find_prior, flops_range
from isoflop.place.sizes import are_few, choose_sizes, sides
from isoflop.recipe import find_recipe
from isoflop.sweep import FEWEST_SIZES, CurveSpec, SweepSpec
from isoflop.wording import rounded
from mdm_jax.spec import Family, RunSpec
from mdm_jax.spec.counting import count_parameters
from mdm_jax.spec.validation import require

FILLER_RATIO = 1.4
"""Ratio of the sizes that fill a gap of the ladders. Seven sizes in a window of four have a ratio of 1.6."""
SMALLEST_BY_RULE = 1000.0
"""Parameters. Smaller shapes are too sparse for a ladder."""


def expand(template: RunSpec, sweep: SweepSpec) -> SweepSpec:
    """The sweep with its placement written out as curves, which follow its own curves.

    Raises:
        ValueError: an unknown recipe; a prior that cannot be read, lacks a family or is too far from a budget; a budget
            that no size can spend; a held-out budget that is not above the grid. One line names it and the remedy.
    """
    if not sweep.placement.has_budgets:
        return sweep
    find_recipe(sweep.recipe)  # refuses an unknown recipe before every size is tried
    forecast = forecast_of(template, sweep)
    placed = (_placed_curves(template, sweep, forecast, family) for family in sweep.placement.families)
    return dataclasses.replace(sweep, curves=(*sweep.curves, *itertools.chain(*placed)))


def forecast_of(template: RunSpec, sweep: SweepSpec) -> Forecast:
    """The forecast of the placement's prior for this sweep's models.

    Raises:
        ValueError: an unknown prior or size.
    """
    prior = find_prior(sweep.placement.prior, sweep.convention)
    return Forecast(prior, template, sweep.convention, ladder(sweep))


def ladder(sweep: SweepSpec) -> tuple[Size, ...]:
    """The sizes to choose from: the placement's, else the sweep's `own_sizes`, else the tiny ladder and SMDM's.

    Raises:
        ValueError: an unknown size.
    """
    if sweep.placement.sizes:
        return tuple(find_size(name, sweep.own_sizes) for name in sweep.placement.sizes)
    return sweep.own_sizes or (*tiny_sizes(), *SMDM.values())


def parameters(sizes: tuple[Size, ...], template: RunSpec) -> dict[str, int]:
    """Non-embedding parameters of each size, by name."""
    return {size.name: count_parameters(size.model(template.model)).non_embedding for size in sizes}


def _placed_curves(template: RunSpec, sweep: SweepSpec, forecast: Forecast, family: Family) -> Iterator[CurveSpec]:
    """Curves of a family: for each budget of the grid and above it the curve, then its replicates if it has any."""
    rule = sweep.placement
    budgets, above = (placed_budgets(sweep, forecast, family, held_out) for held_out in (False, True))
    require(
        bool(budgets), f"sweep.placement.{family.value}_budgets", list(budgets), "given, or budgets for all families"
    )
    for budget in above:
        bound = f"above the {family.value}'s grid, which ends at {max(budgets):g}"
        require(budget > max(budgets), "sweep.placement.holdout_budgets", budget, bound)
    optima = {budget: _expected(forecast, family, budget).n_opt for budget in (*budgets, *above)}
    fillers = _gap_filling_sizes(template, sweep, tuple(optima.values()))
    for budget, n_opt in optima.items():
        window, count = rule.window, rule.sizes_per_curve
        if budget in above:
            window, count = math.sqrt(window), rule.holdout_sizes
        candidates = _candidate_sizes(template, sweep, n_opt, fillers.get(n_opt, ()))
        params = _affordable_sizes(template, sweep, family, budget, candidates)
        yield CurveSpec(family, budget, choose_sizes(params, n_opt, window, count))
        if rule.replicate_seeds and budget in sorted(budgets)[: rule.replicate_curves or None]:
            nearest = min(params, key=lambda name, p=params, n=n_opt: abs(math.log(p[name] / n)))
            yield CurveSpec(family, budget, (nearest,), seeds=rule.replicate_seeds)


def placed_budgets(sweep: SweepSpec, forecast: Forecast, family: Family, held_out: bool) -> tuple[float, ...]:
    """Budgets of a family's grid, or above it if `held_out`; derived from equal losses if `overlap` asks for it."""
    rule = sweep.placement
    given = rule.holdout_budgets if held_out else rule.given_budgets(family)
    if rule.overlap in (None, family):
        return given
    losses = (_expected(forecast, rule.overlap, budget).loss for budget in given)
    return tuple(rounded(forecast.budget_for(family, loss), 2) for loss in losses)


def _expected(forecast: Forecast, family: Family, budget: float) -> Expected:
    """The expected optimum. Raises a ValueError if the budget is too far from the prior's points."""
    expected = forecast.at(family, budget)
    if expected.beyond > FARTHEST:
        prior = forecast.prior
        raise ValueError(
            f"{family.value} at {budget:g} FLOPs: the prior {prior.source} ({flops_range(prior)} FLOPs) is too far"
            " away: give --sizes, or --prior tiny (for CPUs), or --prior with the fits.json of a sweep nearby"
        )
    return expected


def _gap_filling_sizes(
    template: RunSpec, sweep: SweepSpec, optima: Sequence[float]
) -> Mapping[float, tuple[Size, ...]]:
    """Sizes by rule for each optimum around which the ladders have gaps; none if the sizes are given."""
    if sweep.placement.sizes or sweep.own_sizes:
        return {}
    window, known = sweep.placement.window, parameters(ladder(sweep), template).values()
    with_gaps = [n_opt for n_opt in optima if are_few(*sides(known, n_opt, window))]
    if not with_gaps:
        return {}
    low, high = max(min(with_gaps) / window, SMALLEST_BY_RULE), max(with_gaps) * window
    by_rule = ladder_between(low, max(low, high), FILLER_RATIO)
    least_distance = math.log(FILLER_RATIO) / 2
    new = tuple(
        size
        for size, n in zip(by_rule, parameters(by_rule, template).values(), strict=True)
        if all(abs(math.log(n / other)) > least_distance for other in known)
    )
    return dict.fromkeys(with_gaps, new)


def _candidate_sizes(template: RunSpec, sweep: SweepSpec, n_opt: float, fillers: tuple[Size, ...]) -> tuple[Size, ...]:
    """Sizes within 1.5 times the window (in log N) around `n_opt`, and at least the nearest `2 * FEWEST_SIZES`."""
    sizes = {size.name: size for size in (*ladder(sweep), *fillers)}
    offset = {name: abs(math.log(n / n_opt)) for name, n in parameters(tuple(sizes.values()), template).items()}
    ranked = sorted(sizes, key=lambda name: offset[name])
    reach = 1.5 * math.log(sweep.placement.window)
    return tuple(sizes[name] for i, name in enumerate(ranked) if offset[name] <= reach or i < 2 * FEWEST_SIZES)


def _affordable_sizes(
    template: RunSpec, sweep: SweepSpec, family: Family, budget: float, sizes: Sequence[Size]
) -> Mapping[str, int]:
    """Non-embedding parameters of the sizes that can spend a budget.

    Raises:
        ValueError: no size can. The message says why the first one cannot.
    """
    params, refusals = {}, []
    for size in sizes:
        try:
            make_cell(template, sweep, CurveSpec(family, budget, (size.name,)), size.name)
        except ValueError as error:
            refusals.append(str(error))
        else:
            params |= parameters((size,), template)
    if not params:
        near = f"none of the {len(refusals)} sizes nearest to its expected optimum can spend it"
        raise ValueError(f"{family.value} at {budget:g} FLOPs: {near}, such as {refusals[0]}")
    return params
