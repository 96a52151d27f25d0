"""Further runs of a sweep, made like the runs that the plan already has.

The plan holds whole RunSpecs, so everything that a sweep decides once (corpus, optimiser, evaluation, hardware) is
copied from the nearest run of the same family. Learning rate, batch and warm-up depend on the size and the budget. They
come from the recipe that the nearest run names. If the recipe is unknown here, they are copied from that run.

A run with a WSD schedule gets the nearest run's share of cooldown, and the warm-up of its size's trunk if there is one.
It is trained from its first step even if there is a trunk, because its result is the same.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isoflop.grid import make_cell, steps_for, tokens_for
from isoflop.ladder import Size
from isoflop.recipe import RECIPES, Choice, RecipeInput
from isoflop.refine.rungs import non_embedding
from isoflop.sweep import CurveSpec, SweepSpec
from isoflop.wording import rounded
from mdm_jax.spec import Family, RunSpec, ScheduleKind
from mdm_jax.spec.counting import count_parameters

SAME_BUDGET = 1e-5
"""Budgets whose logs differ by less are equal: the analysis rounds budgets to six digits."""


@dataclass(frozen=True)
class CurveRun:
    """A planned run of a curve, with the values that decide how near it is."""

    run: RunSpec
    log_budget: float
    log_n: float
    usable: bool


class FurtherRuns:
    """Makes runs that the plan does not have yet."""

    def __init__(self, plan: Sequence[RunSpec], usable: Sequence[RunSpec]) -> None:
        """Sorts the plan's runs by family.

        Args:
            plan: runs of one group and FLOP convention. Runs without a budget belong to no curve, and are ignored.
            usable: its runs with a fitted result, which are copied before others.
        """
        done = {run.run_id for run in usable}
        self._planned = {run.run_id for run in plan}
        self._known: dict[Family, list[CurveRun]] = {family: [] for family in Family}
        for run in plan:
            if run.cell.budget is not None:
                n = count_parameters(run.model).non_embedding
                known = CurveRun(run, math.log(run.cell.budget), math.log(n), run.run_id in done)
                self._known[run.family].append(known)
        self._one_batch = {family: _sets_batch(k.run for k in known) for family, known in self._known.items()}

    def budgets(self, family: Family) -> list[float]:
        """FLOPs of each planned curve of a family."""
        return list(dict.fromkeys(known.run.cell.budget or 0.0 for known in self._known[family]))

    def planned(self, family: Family, budget: float) -> list[RunSpec]:
        """The plan's runs of one curve."""
        return [known.run for known in self._known[family] if abs(known.log_budget - math.log(budget)) < SAME_BUDGET]

    def make(self, family: Family, budget: float, size: Size, seed: int = 0) -> RunSpec | None:
        """A run of this size and seed at this budget; None if the plan has it.

        Raises:
            ValueError: the budget cannot be spent, or the plan has no run of the family; one line says why.
        """
        like = dataclasses.replace(self._nearest(family, budget, size), seed=seed)
        if like.cell.recipe in RECIPES:
            made = _by_recipe(like, budget, size, like.optim.global_batch if self._one_batch[family] else 0)
        else:
            made = _copied(like, budget, size)
        made = _as_refinement(made, like, [known.run for known in self._known[family]])
        return None if made.run_id in self._planned else made

    def make_all(self, family: Family, budget: float, sizes: Sequence[Size], seed: int = 0) -> list[RunSpec]:
        """The runs of these sizes; those that cannot spend the budget, or that the plan has, are left out."""
        runs = []
        for size in sizes:
            try:
                run = self.make(family, budget, size, seed)
            except ValueError:
                continue
            if run is not None:
                runs.append(run)
        return runs

    def _nearest(self, family: Family, budget: float, size: Size) -> RunSpec:
        """The run to copy: with a usable result if possible, then of the nearest budget, then of the nearest size."""
        own = self._known[family]
        if not own:
            raise ValueError(f"the plan has no {family.value} run that a further run could copy")
        log_budget, log_n = math.log(budget), math.log(non_embedding(size))

        def distance(known: CurveRun) -> tuple[bool, float, float]:
            far = round(abs(known.log_budget - log_budget), 4)
            return not known.usable, far, abs(known.log_n - log_n)

        return min(own, key=distance).run


def _sets_batch(runs: Iterable[RunSpec]) -> bool:
    """Whether the sweep, and not the recipe, has set the batch of these runs."""
    return any(run.optim.global_batch != _choice(run).global_batch for run in runs if run.cell.recipe in RECIPES)


def _choice(run: RunSpec) -> Choice:
    """The choice of a planned run's recipe."""
    tokens = tokens_for(run, run.cell.budget or 0.0, run.cell.convention)
    return RECIPES[run.cell.recipe](RecipeInput(run.model, run.data.seq_len, tokens))


def _by_recipe(like: RunSpec, budget: float, size: Size, batch: int) -> RunSpec:
    """The planner's cell, with `like` as template and with its multiple of the recipe's learning rate."""
    cell = like.cell
    curve = CurveSpec(like.family, budget, (size.name,), group=cell.group)
    sweep = SweepSpec(own_sizes=(size,), convention=cell.convention, recipe=cell.recipe, global_batch=batch)
    plain = dataclasses.replace(like, schedule=dataclasses.replace(like.schedule, cooldown_steps=0))
    multiplier = rounded(like.optim.lr_peak / _choice(like).lr_peak, 6)  # without the quotient's rounding error
    return make_cell(plain, sweep, curve, size.name, multiplier)


def _copied(like: RunSpec, budget: float, size: Size) -> RunSpec:
    """The nearest run in another size, with its learning rate, its batch and its share of warm-up."""
    cell = dataclasses.replace(like.cell, budget=budget, size=size.name, parent_run_id="", parent_steps=0)
    sized = dataclasses.replace(like, model=size.model(like.model), cell=cell)
    steps = steps_for(sized, budget, cell.convention)
    warmup = min(steps, round(steps * like.schedule.warmup_steps / like.schedule.steps))
    schedule = dataclasses.replace(like.schedule, steps=steps, warmup_steps=warmup, cooldown_steps=0)
    return dataclasses.replace(sized, schedule=schedule)


def _as_refinement(made: RunSpec, like: RunSpec, trunk: Sequence[RunSpec]) -> RunSpec:
    """The run marked as a refinement's. A WSD schedule gets the cooldown share of `like` and the trunk's warm-up."""
    schedule = made.schedule
    if schedule.kind is ScheduleKind.WSD:
        same = (run for run in trunk if run.model == made.model and run.optim == made.optim)
        warmup = min((run.schedule.warmup_steps for run in same), default=schedule.warmup_steps)
        cooldown = round(like.schedule.cooldown_steps / like.schedule.steps * schedule.steps)
        schedule = dataclasses.replace(schedule, warmup_steps=min(warmup, schedule.steps - cooldown))
        schedule = dataclasses.replace(schedule, cooldown_steps=cooldown)
    return dataclasses.replace(made, schedule=schedule, cell=dataclasses.replace(made.cell, refined=True))
