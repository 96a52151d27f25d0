"""The grid: every run of a sweep, from the template and the curves, in the order in which they are written.

A budget of C FLOPs buys whole steps: `steps = int(C / FLOPs of a step)`. Under `smdm_6nd` that is SMDM's
`int(C / (6 N B L))`. A sweep may also bound D / N and the passes over its corpus.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from isoflop.ladder import find_size
from isoflop.recipe import RecipeInput, find_recipe
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.spec import CellSpec, FlopConvention, HardwareSpec, RunSpec, pair
from mdm_jax.spec.counting import count_parameters, step_flops
from mdm_jax.spec.validation import require

MOST_UNSPENT = 0.01
"""Largest share of a budget that may stay unspent, so that the points of a curve are at one budget."""
MOST_CELLS = 10_000
"""Far more runs than a sweep needs. Planning them takes about ten seconds."""
DECIDED_BY_SWEEP = {
    "optim": ("lr_peak", "global_batch"),
    "schedule": ("steps", "warmup_steps", "cooldown_steps"),
    "model": ("n_layers", "d_model", "n_heads", "d_ffn"),
    "cell": ("budget", "size", "convention", "group", "parent_run_id", "parent_steps", "segment", "recipe"),
}


def make_grid(template: RunSpec, sweep: SweepSpec, hardware: HardwareSpec) -> tuple[RunSpec, ...]:
    """Every run of the sweep.

    Args:
        template: what all runs share. Its `hardware` is not used, because a mesh must divide the batch and the width
            of a cell, and the template has neither yet.
        sweep: the curves and how they are trained.
        hardware: the hardware of all runs.

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
            raise ValueError(
                f"{_cell_name(same)} and {_cell_name(run)} are the same run {run.run_id}: remove one of them"
            )
    return tuple(runs.values())


def _check_count(sweep: SweepSpec) -> None:
    """Refuses a grid of more than `MOST_CELLS` before any cell is made."""
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
                with _errors_name(cell):
                    on_hardware = dataclasses.replace(cell, hardware=hardware)
                yield on_hardware


def make_cell(
    template: RunSpec, sweep: SweepSpec, curve: CurveSpec, size_name: str, lr_multiplier: float = 1.0
) -> RunSpec:
    """One run: the template in the curve's family, at a size, with the recipe's hyperparameters and the budget's steps.

    Raises:
        ValueError: an unknown size or recipe, a budget that cannot be spent, or too few or too many tokens for the
            size. The cell is named.
    """
    size, recipe = find_size(size_name, sweep.own_sizes), curve.recipe or sweep.recipe
    convention = curve.convention or sweep.convention
    shaped = dataclasses.replace(template, model=size.model(template.model))
    base = shaped if shaped.family is curve.family else pair(shaped, curve.family)
    if curve.objective is not None:
        model = dataclasses.replace(base.model, mask_column=not curve.objective.zero_masking)
        base = dataclasses.replace(base, model=model, objective=curve.objective)
    tokens = tokens_for(base, curve.budget, convention)
    choice = find_recipe(recipe)(RecipeInput(base.model, base.data.seq_len, tokens))
    optim = dataclasses.replace(
        base.optim,
        lr_peak=choice.lr_peak * lr_multiplier,
        global_batch=sweep.global_batch or choice.global_batch,
    )
    cell = CellSpec(curve.budget, convention, size.name, group=curve.group, recipe=recipe)
    sized = dataclasses.replace(base, optim=optim, cell=cell)
    with _errors_name(sized):
        steps = steps_for(sized, curve.budget, convention)
        schedule = dataclasses.replace(base.schedule, steps=steps, warmup_steps=choice.warmup(steps))
        run = dataclasses.replace(sized, schedule=schedule)
        check_tokens_per_parameter(run, sweep)
    return run


def _check_template(template: RunSpec) -> None:
    """Refuses a template that sets what the sweep decides, because the sweep would overwrite it silently."""
    for section, names in DECIDED_BY_SWEEP.items():
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
def _errors_name(run: RunSpec) -> Iterator[None]:
    """Puts the cell's name in front of a ValueError that is raised inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_cell_name(run)}: {error}") from None


def _cell_name(run: RunSpec) -> str:
    """`mdm 2x64 at 1e+11 FLOPs (batch 16, seed 0)`, with the group if there is one."""
    cell, batch = run.cell, run.optim.global_batch
    group = f", group {cell.group}" if cell.group else ""
    return f"{run.family.value} {cell.size} at {cell.budget:g} FLOPs (batch {batch}, seed {run.seed}{group})"


def tokens_for(spec: RunSpec, budget: float, convention: FlopConvention) -> float:
    """Training tokens D that `budget` FLOPs buy for the model, before rounding to whole steps."""
    batch_of_two = dataclasses.replace(spec.optim, global_batch=2)
    one_device = dataclasses.replace(spec.hardware, mesh_data=1, mesh_replica=1, microbatches=1)
    smallest = dataclasses.replace(spec, optim=batch_of_two, hardware=one_device)
    tokens_of_step = smallest.train_tokens / smallest.schedule.steps
    return budget / step_flops(smallest, convention) * tokens_of_step


def steps_for(spec: RunSpec, budget: float, convention: FlopConvention) -> int:
    """Optimiser steps that `budget` FLOPs buy for the model, batch and row length of `spec`.

    Raises:
        ValueError: the budget buys no step, or whole steps leave more than 1% of it unspent. The batch that fits is
            named.
    """
    one_step = step_flops(spec, convention)
    steps = int(budget) // one_step
    remedy = _remedy(spec, budget, one_step)
    if steps < 1:
        raise ValueError(f"too small for one step of {one_step:.3g} FLOPs under {convention.value}: {remedy}")
    unspent = 1 - steps * one_step / budget
    if unspent > MOST_UNSPENT:
        leaves = f"{steps} whole steps leave {unspent:.1%} of the budget unspent, more than {MOST_UNSPENT:.0%}"
        raise ValueError(f"{leaves}: {remedy}")
    return steps


def check_tokens_per_parameter(run: RunSpec, sweep: SweepSpec) -> None:
    """Refuses a cell outside the sweep's bounds of D / N.

    Raises:
        ValueError: the ratio, the bound and what to change.
    """
    ratio = run.train_tokens / count_parameters(run.model).non_embedding
    least, most = sweep.min_tokens_per_parameter, sweep.max_tokens_per_parameter
    if ratio < least or (most and ratio > most):
        bound, fix = (f"min_tokens_per_parameter = {least:g}", "a smaller size or a larger budget")
        if ratio >= least:
            bound, fix = (f"max_tokens_per_parameter = {most:g}", "a larger size or a smaller budget")
        raise ValueError(f"trains on {ratio:.3g} tokens a parameter, beyond sweep.{bound}: take {fix}")


def check_bounds(runs: Sequence[RunSpec], unique_tokens: int | None, sweep: SweepSpec) -> tuple[str, ...]:
    """Warnings about the corpus: cells that repeat it where no bound is set, or a bound that cannot be checked yet.

    Args:
        runs: the cells of the grid (not the segments of a trunk, whose tokens are their branches').
        unique_tokens: tokens of one epoch over the corpus; None if it is not prepared.
        sweep: its `max_epochs` is checked here. `make_cell` checks its bounds of D / N.

    Raises:
        ValueError: a cell repeats the corpus more often than `max_epochs`; the worst cell and its epochs are named.
    """
    if not runs or unique_tokens is None:
        unchecked = f"sweep.max_epochs = {sweep.max_epochs:g} is not checked: prepare the corpus, and plan again"
        return (unchecked,) if sweep.max_epochs else ()
    worst = max(runs, key=lambda run: run.train_tokens)
    epochs, most = worst.train_tokens / unique_tokens, sweep.max_epochs
    repeating = sum(run.train_tokens > unique_tokens * (most or 1) for run in runs)
    if not repeating:
        return ()
    cell = f"{worst.family.value} {worst.cell.size} at {worst.cell.budget or 0:g} FLOPs"
    often = "once" if most in (0, 1) else f"{most:g} times"
    said = (
        f"{repeating} of {len(runs)} runs read the text more than {often}, up to {epochs:.3g} times ({cell} reads"
        f" {worst.train_tokens:.4g} tokens, and the text has {unique_tokens:.4g})"
    )
    fix = f"prepare {epochs / (most or 1):.2g} times as much text, or leave out these runs"
    if most:
        raise ValueError(f"{said}: {fix}, or raise sweep.max_epochs")
    return (f"{said}; repeated tokens help less than new ones, and not both families alike: {fix}",)


def _remedy(spec: RunSpec, budget: float, one_step: int) -> str:
    """Advice that names the largest even batch whose step costs at most 1% of the budget, if there is one."""
    batch = int(MOST_UNSPENT * budget * spec.optim.global_batch / one_step) // 2 * 2
    smaller = f"a batch of at most {batch} (sweep.global_batch)" if batch >= 2 else "shorter rows (run.data.seq_len)"
    return f"take a larger budget, a smaller size or {smaller}"
