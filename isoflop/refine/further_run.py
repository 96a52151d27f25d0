"""A further run of a sweep, made as the runs were that the plan already has.

The plan holds whole RunSpecs, so that everything a sweep decided once (corpus, optimiser, evaluation, hardware) is
copied from the nearest run of the same family. Learning rate, batch and warm-up depend on the size and the budget: they
come from the recipe that reproduces those of every run of the family, and are the nearest run's own where none does.

A run with a WSD schedule gets the cooldown's share and, where its size has a trunk, the trunk's warm-up. It is trained
from its first step, whether or not there is a trunk to start from: its result is the same.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.allocate import steps_for, tokens_for
from isoflop.grid import make_cell
from isoflop.ladder import Size
from isoflop.recipe import RECIPES, Setting, find_recipe
from isoflop.refine.rungs import non_embedding
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.counting import count_parameters
from mdm_jax.spec import CellSpec, Family, RunSpec, ScheduleKind

SAME_BUDGET = 1e-5
"""The difference of log budgets below which two are one: the analysis rounds budgets to six digits."""
SAME = 1e-4
"""Two learning rates that differ by less than this share of themselves are one."""


@dataclass(frozen=True)
class Explained:
    """A recipe that reproduces the learning rates, batches and warm-ups of a family's runs, up to a factor of rates."""

    recipe: str
    global_batch: int
    """The batch of every run, where the sweep set it; 0 is the recipe's."""


@dataclass(frozen=True)
class Known:
    """A planned run of a curve, with what nearness is judged by."""

    run: RunSpec
    log_budget: float
    log_n: float
    usable: bool


class FurtherRuns:
    """Makes runs that the plan does not have yet."""

    def __init__(self, plan: Sequence[RunSpec], usable: Sequence[RunSpec]) -> None:
        """Reads the plan.

        Args:
            plan: its runs, of one group and FLOP convention; those without a budget belong to no curve.
            usable: those with a result that is fitted: they are copied first.
        """
        done = {run.run_id for run in usable}
        self._planned = {run.run_id for run in plan}
        self._known: dict[Family, list[Known]] = {family: [] for family in Family}
        for run in plan:
            if run.cell.budget is not None:
                n = count_parameters(run.model).non_embedding
                known = Known(run, math.log(run.cell.budget), math.log(n), run.run_id in done)
                self._known[run.family].append(known)
        self._explained = {family: explain([k.run for k in known]) for family, known in self._known.items()}

    def recipe(self, family: Family) -> Explained | None:
        """The recipe behind a family's runs, None where none explains them."""
        return self._explained[family]

    def budgets(self, family: Family) -> list[float]:
        """FLOPs of each curve of a family that the plan has."""
        return list(dict.fromkeys(known.run.cell.budget or 0.0 for known in self._known[family]))

    def planned(self, family: Family, budget: float) -> list[RunSpec]:
        """The plan's runs of one curve."""
        return [known.run for known in self._known[family] if abs(known.log_budget - math.log(budget)) < SAME_BUDGET]

    def make(self, family: Family, budget: float, size: Size, seed: int = 0, lr_factor: float = 1.0) -> RunSpec | None:
        """A run of this size and seed at this budget; None where the plan has it.

        Args:
            lr_factor: of the learning rate that the recipe, or the nearest run, gives.

        Raises:
            ValueError: the budget cannot be spent, or the plan has no run of the family; one line says why.
        """
        like = self._nearest(family, budget, size)
        seeded = dataclasses.replace(like, seed=seed)
        explained = self._explained[family]
        if explained is None:
            made = _copied(seeded, budget, size, lr_factor)
        else:
            factor = like.optim.lr_peak / find_recipe(explained.recipe)(_setting(like)).lr_peak
            made = _by_recipe(seeded, budget, size, explained, lr_factor * (1.0 if abs(factor - 1) < SAME else factor))
        made = _finished(made, like, [known.run for known in self._known[family]])
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
        """The run to copy: one with a result if there is any, of the nearest budget, then of the nearest size."""
        own = self._known[family]
        if not own:
            raise ValueError(f"the plan has no run of the {family.value} to make another one like it")
        log_budget, log_n = math.log(budget), math.log(non_embedding(size))

        def distance(known: Known) -> tuple[bool, float, float]:
            far = round(abs(known.log_budget - log_budget), 4)
            return not known.usable, far, abs(known.log_n - log_n)

        return min(own, key=distance).run


def explain(runs: Sequence[RunSpec]) -> Explained | None:
    """The first recipe that reproduces batch and warm-up of all runs, and their learning rates up to one factor.

    A sweep over learning rates runs each cell with several: then as many factors as a cell has rates. A trunk's
    branches share a warm-up, which therefore says nothing.
    """
    rates: dict[tuple[object, ...], set[float]] = defaultdict(set)
    for run in runs:
        rates[run.cell.budget, run.model, run.seed].add(run.optim.lr_peak)
    most = max((len(own) for own in rates.values()), default=0)
    batches = {run.optim.global_batch for run in runs}
    fitting: list[tuple[int, Explained]] = []
    settings = [_setting(run) for run in runs]
    for name, recipe in RECIPES.items():
        pairs = [(run, recipe(setting)) for run, setting in zip(runs, settings, strict=True)]
        factors = {round(math.log(run.optim.lr_peak / choice.lr_peak) / SAME) for run, choice in pairs}
        warm = all(
            run.schedule.kind is ScheduleKind.WSD or choice.warmup(run.schedule.steps) == run.schedule.warmup_steps
            for run, choice in pairs
        )
        own = all(run.optim.global_batch == choice.global_batch for run, choice in pairs)
        if warm and 0 < len(factors) <= most and (own or len(batches) == 1):
            fitting.append((len(factors - {0}), Explained(name, 0 if own else min(batches))))
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _setting(run: RunSpec) -> Setting:
    """What a recipe saw of a planned run."""
    tokens = tokens_for(run, run.cell.budget or 0.0, run.cell.convention)
    return Setting(run.model, run.data.seq_len, tokens)


def _by_recipe(like: RunSpec, budget: float, size: Size, explained: Explained, lr_factor: float) -> RunSpec:
    """The planner's own cell, on the template of a planned run."""
    curve = CurveSpec(like.family, budget, (size.name,), group=like.cell.group)
    sweep = SweepSpec(
        own_sizes=(size,),
        convention=like.cell.convention,
        recipe=explained.recipe,
        global_batch=explained.global_batch,
    )
    plain = dataclasses.replace(like.schedule, cooldown_steps=0)
    return make_cell(dataclasses.replace(like, schedule=plain), sweep, curve, size.name, lr_factor)


def _copied(like: RunSpec, budget: float, size: Size, lr_factor: float) -> RunSpec:
    """The nearest run in another size, with its learning rate, its batch and its share of warm-up."""
    cell = CellSpec(budget, like.cell.convention, size.name, group=like.cell.group)
    optim = dataclasses.replace(like.optim, lr_peak=like.optim.lr_peak * lr_factor)
    sized = dataclasses.replace(like, model=size.model(like.model), optim=optim, cell=cell)
    steps = steps_for(sized, budget, cell.convention)
    warmup = min(steps, round(steps * like.schedule.warmup_steps / like.schedule.steps))
    schedule = dataclasses.replace(like.schedule, steps=steps, warmup_steps=warmup, cooldown_steps=0)
    return dataclasses.replace(sized, schedule=schedule)


def _finished(made: RunSpec, like: RunSpec, trunk: Sequence[RunSpec]) -> RunSpec:
    """The run marked as a refinement's, with the cooldown's share of the run that it is like."""
    schedule = made.schedule
    if schedule.kind is ScheduleKind.WSD:
        same = (run for run in trunk if run.model == made.model and run.optim == made.optim)
        warmup = min((run.schedule.warmup_steps for run in same), default=schedule.warmup_steps)
        cooldown = round(like.schedule.cooldown_steps / like.schedule.steps * schedule.steps)
        schedule = dataclasses.replace(schedule, warmup_steps=min(warmup, schedule.steps - cooldown))
        schedule = dataclasses.replace(schedule, cooldown_steps=cooldown)
    return dataclasses.replace(made, schedule=schedule, cell=dataclasses.replace(made.cell, refined=True))
