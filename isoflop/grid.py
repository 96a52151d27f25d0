"""The grid: every run of a sweep, from the template and the curves, in the order in which they are written."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

from isoflop.allocate import check_tokens_per_parameter, steps_for, tokens_for
from isoflop.ladder import find_size
from isoflop.recipe import Setting, find_recipe
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.spec import CellSpec, HardwareSpec, RunSpec, pair
from mdm_jax.spec.validation import require

MOST_CELLS = 10_000
"""About ten seconds of planning, and far more runs than a sweep needs."""
DECIDED = {
    "optim": ("lr_peak", "global_batch"),
    "schedule": ("steps", "warmup_steps", "cooldown_steps"),
    "model": ("n_layers", "d_model", "n_heads", "d_ffn"),
    "cell": ("budget", "size", "convention", "group", "parent_run_id", "parent_steps", "segment"),
}


def make_grid(template: RunSpec, sweep: SweepSpec, hardware: HardwareSpec) -> tuple[RunSpec, ...]:
    """Every run of the sweep.

    Args:
        template: what all runs share. Its own `hardware` is not used: a mesh divides the batch and the width of a cell,
            which the template does not have yet.
        sweep: the curves and how they are trained.
        hardware: where the runs execute.

    Raises:
        ValueError: no curves, an unknown size or recipe, a budget that a cell cannot spend, a mesh that does not divide
            it, two cells that are the same run, or a template that sets what the sweep decides. The cell is named.
    """
    require(
        bool(sweep.curves), "sweep.curves", list(sweep.curves), "one or more curves (or give --budgets and --sizes)"
    )
    _check_template(template)
    _check_count(sweep)
    runs: dict[str, RunSpec] = {}
    for run in _cells(dataclasses.replace(template, hardware=HardwareSpec()), sweep, hardware):
        same = runs.setdefault(run.run_id, run)
        if same is not run:
            raise ValueError(f"{_name(same)} and {_name(run)} are the same run {run.run_id}: remove one of them")
    return tuple(runs.values())


def _check_count(sweep: SweepSpec) -> None:
    """Refuses a grid that would take minutes to write and that nobody can run."""
    cells = 0
    for curve in sweep.curves:
        multipliers, seeds = curve.lr_multipliers or sweep.lr_multipliers, curve.seeds or sweep.seeds
        cells += len(curve.sizes) * len(multipliers) * len(seeds)
    require(cells <= MOST_CELLS, "cells of the sweep", cells, f"at most {MOST_CELLS}: budgets, sizes, rates x seeds")


def _cells(template: RunSpec, sweep: SweepSpec, hardware: HardwareSpec) -> Iterator[RunSpec]:
    for curve in sweep.curves:
        multipliers = curve.lr_multipliers or sweep.lr_multipliers
        for size in curve.sizes:
            for multiplier, seed in itertools.product(multipliers, curve.seeds or sweep.seeds):
                cell = make_cell(dataclasses.replace(template, seed=seed), sweep, curve, size, multiplier)
                with _naming(cell):
                    placed = dataclasses.replace(cell, hardware=hardware)
                yield placed


def make_cell(
    template: RunSpec, sweep: SweepSpec, curve: CurveSpec, size_name: str, lr_multiplier: float = 1.0
) -> RunSpec:
    """One run: the template in the curve's family, at a size, with the recipe's hyperparameters and the budget's steps.

    Raises:
        ValueError: an unknown size or recipe, a budget that cannot be spent, or one that gives the size too few or too
            many tokens; the cell is named.
    """
    size, recipe = find_size(size_name, sweep.own_sizes), find_recipe(curve.recipe or sweep.recipe)
    convention = curve.convention or sweep.convention
    shaped = dataclasses.replace(template, model=size.model(template.model))
    base = shaped if shaped.family is curve.family else pair(shaped, curve.family)
    if curve.objective is not None:
        base = dataclasses.replace(base, objective=curve.objective)
    tokens = tokens_for(base, curve.budget, convention)
    choice = recipe(Setting(base.model, base.data.seq_len, tokens))
    optim = dataclasses.replace(
        base.optim,
        lr_peak=choice.lr_peak * lr_multiplier,
        global_batch=sweep.global_batch or choice.global_batch,
    )
    cell = CellSpec(curve.budget, convention, size.name, group=curve.group)
    sized = dataclasses.replace(base, optim=optim, cell=cell)
    with _naming(sized):
        steps = steps_for(sized, curve.budget, convention)
        schedule = dataclasses.replace(base.schedule, steps=steps, warmup_steps=choice.warmup(steps))
        run = dataclasses.replace(sized, schedule=schedule)
        check_tokens_per_parameter(run, sweep)
    return run


def _check_template(template: RunSpec) -> None:
    """Refuses a template that sets what the sweep decides: it would be overwritten without a word."""
    for section, names in DECIDED.items():
        for name in names:
            given = getattr(getattr(template, section), name)
            default = getattr(getattr(RunSpec(), section), name)
            decides = (
                "left out: in a sweep the recipe (sweep.recipe, sweep.lr_multipliers, sweep.global_batch) decides it"
            )
            if section in ("model", "cell"):
                decides = "left out: in a sweep sweep.curves decides it"
            require(given == default, f"run.{section}.{name}", given, decides)
    require(template.seed == RunSpec().seed, "run.seed", template.seed, "left out: in a sweep sweep.seeds decides it")


@contextlib.contextmanager
def _naming(run: RunSpec) -> Iterator[None]:
    """Puts the cell in front of what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_name(run)}: {error}") from None


def _name(run: RunSpec) -> str:
    """A cell for people: `mdm 2x64 at 1e+11 FLOPs (batch 16, seed 0)`, and its group where it has one."""
    cell, batch = run.cell, run.optim.global_batch
    group = f", group {cell.group}" if cell.group else ""
    return f"{run.family.value} {cell.size} at {cell.budget:g} FLOPs (batch {batch}, seed {run.seed}{group})"
