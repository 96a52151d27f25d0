"""Curves from a placement: each family's budgets, and for each budget the sizes around its expected optimum."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from isoflop.grid import make_cell
from isoflop.ladder import SMDM, Size, find_size, ladder_between, tiny_sizes
from isoflop.place.forecast import FARTHEST, Expected, Forecast
from isoflop.place.prior import covered, find_prior
from isoflop.place.sizes import FEWEST_ON_A_SIDE, choose_sizes, rounded
from isoflop.recipe import find_recipe
from isoflop.sweep import FEWEST_SIZES, CurveSpec, SweepSpec
from mdm_jax.counting import count_parameters
from mdm_jax.spec import Family, RunSpec
from mdm_jax.spec.validation import require

FILLING = 1.4
"""Factor between the sizes that fill a gap of the ladders, closer than the seven that a window of four takes (1.6)."""
LEAST_RULED = 1000.0
"""Parameters below which shapes are too sparse for a ladder."""


def expand(template: RunSpec, sweep: SweepSpec) -> SweepSpec:
    """The sweep with its placement written out: its own curves first, then the placed ones.

    Raises:
        ValueError: an unknown recipe; the prior cannot be read, lacks a family or says nothing about a budget; a budget
            that no size can spend; a held-out budget that is not above the grid. One line names it and the remedy.
    """
    if not sweep.placement.asked:
        return sweep
    find_recipe(sweep.recipe)  # an unknown one is no reason to try every size
    forecast = forecast_of(template, sweep)
    placed = (_placed_curves(template, sweep, forecast, family) for family in sweep.placement.families)
    return dataclasses.replace(sweep, curves=(*sweep.curves, *itertools.chain(*placed)))


def forecast_of(template: RunSpec, sweep: SweepSpec) -> Forecast:
    """What the placement's prior expects of this sweep's models.

    Raises:
        ValueError: there is no such prior, or a size is unknown.
    """
    prior = find_prior(sweep.placement.prior, sweep.convention)
    return Forecast(prior, template, sweep.convention, ladder(sweep))


def ladder(sweep: SweepSpec) -> tuple[Size, ...]:
    """The sizes to choose from: the placement's, else the sweep's own, else the tiny ladder and SMDM's.

    Raises:
        ValueError: an unknown size.
    """
    if sweep.placement.sizes:
        return tuple(find_size(name, sweep.own_sizes) for name in sweep.placement.sizes)
    return sweep.own_sizes or (*tiny_sizes(), *SMDM.values())


def parameters(sizes: tuple[Size, ...], template: RunSpec) -> dict[str, int]:
    """Non-embedding parameters by the size's name."""
    return {size.name: count_parameters(size.model(template.model)).non_embedding for size in sizes}


def _placed_curves(template: RunSpec, sweep: SweepSpec, forecast: Forecast, family: Family) -> Iterator[CurveSpec]:
    """Curves of a family: the grid, the held-out ones above it, then the replicates."""
    rule = sweep.placement
    budgets, above = (placed_budgets(sweep, forecast, family, held_out) for held_out in (False, True))
    require(
        bool(budgets), f"sweep.placement.{family.value}_budgets", list(budgets), "given, or budgets for all families"
    )
    for budget in above:
        over = f"above the {family.value}'s grid, which ends at {max(budgets):g}"
        require(budget > max(budgets), "sweep.placement.holdout_budgets", budget, over)
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
    """Budgets of a family, derived from equal losses where the placement asks for overlap."""
    rule = sweep.placement
    given = rule.holdout_budgets if held_out else rule.given_budgets(family)
    if rule.overlap in (None, family):
        return given
    losses = (_expected(forecast, rule.overlap, budget).loss for budget in given)
    return tuple(rounded(forecast.budget_for(family, loss)) for loss in losses)


def _expected(forecast: Forecast, family: Family, budget: float) -> Expected:
    """The optimum; refused where the prior's points are too far away to say anything."""
    expected = forecast.at(family, budget)
    if expected.beyond > FARTHEST:
        prior = forecast.prior
        raise ValueError(
            f"{family.value} at {budget:g} FLOPs: the prior {prior.source} ({covered(prior)} FLOPs) says nothing so far"
            " away: give --sizes, or --prior: tiny (for CPUs) or the fits.json of a sweep nearby"
        )
    return expected


def _gap_filling_sizes(
    template: RunSpec, sweep: SweepSpec, optima: Sequence[float]
) -> Mapping[float, tuple[Size, ...]]:
    """Sizes by rule for each optimum around which the named ladders have gaps; none where the sizes are given."""
    if sweep.placement.sizes or sweep.own_sizes:
        return {}
    reach = math.log(sweep.placement.window)
    known = sorted(math.log(n) for n in parameters(ladder(sweep), template).values())
    short = []
    for n_opt in optima:
        offsets = [x - math.log(n_opt) for x in known]
        sides = sum(-reach <= x < 0 for x in offsets), sum(0 <= x <= reach for x in offsets)
        if min(sides) < FEWEST_ON_A_SIDE or sum(sides) < FEWEST_SIZES:
            short.append(n_opt)
    if not short:
        return {}
    low, high = max(min(short) / sweep.placement.window, LEAST_RULED), max(short) * sweep.placement.window
    ruled = ladder_between(low, max(low, high), FILLING)
    apart = math.log(FILLING) / 2
    new = tuple(
        size
        for size, n in zip(ruled, parameters(ruled, template).values(), strict=True)
        if all(abs(math.log(n) - x) > apart for x in known)
    )
    return dict.fromkeys(short, new)


def _candidate_sizes(template: RunSpec, sweep: SweepSpec, n_opt: float, fillers: tuple[Size, ...]) -> tuple[Size, ...]:
    """Sizes that a curve around `n_opt` could ever take: those of a wider window, and a few where it is empty."""
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
        ValueError: none can; what the smallest lacks is said.
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
