"""WSD trunk and cooldowns: the runs of one size share their constant learning rate, and each adds its own cooldown.

A WSD schedule has warm-up, stable and decay phases (Hu et al. 2024, MiniCPM; Hägele et al. 2024, arXiv 2405.18392). Up
to its cooldown, a shorter run equals the beginning of a longer one. So one trunk for each size serves every budget:

    0 ──── segment ──── a ──── segment ──── b ──── segment ──── c
                        └─ cooldown: budget 1
                                            └─ cooldown: budget 2      c = steps - cooldown_steps of budget 3
                                                                └─ cooldown: budget 3

A segment is a run without a cooldown; a branch begins at its end. A branch is a run with its whole schedule. Segments
and branches name their parent, and start from the parent's last checkpoint. The parent is recorded and not hashed: a
branch has the same `run_id` and, bit for bit, the same result as the run that is trained alone. Every branch has a
segment that ends at its start, the longest branch too. So a larger budget that is added later adds one segment and one
branch.

All runs of a trunk have the same peak learning rate, batch, seed and warm-up. The warm-up is the one that the recipe
gives to the smallest budget of the size. A segment's last checkpoint stays in its folder; its `checkpoints` may be
deleted once no further budget is planned.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mdm_jax.spec import FlopConvention, HardwareSpec, RunSpec, ScheduleKind, ScheduleSpec
from mdm_jax.spec.counting import train_flops, trained_flops

MOST_STEPS = 1 << 31


def with_trunks(runs: Sequence[RunSpec], cooldown_fraction: float, warmup_budget: float = 0.0) -> tuple[RunSpec, ...]:
    """The runs with their cooldowns and parents. Each follows the segment that it starts from.

    Args:
        runs: cells of a sweep with a WSD schedule, whose warm-ups are the recipe's.
        cooldown_fraction: share of a run's steps, at least 0 and below 1. At 0 the learning rate is constant, and the
            runs of a trunk are its segments.
        warmup_budget: smaller budgets do not set a trunk's warm-up; 0 allows all. Without this bound, a budget that is
            added below the others changes the warm-up, and with it every run of the trunk.

    Raises:
        ValueError: the recipe gives other learning rates or batches to other budgets of one size, or a cooldown begins
            before the warm-up has ended. The cell is named.
    """
    _check_shared(runs)
    trunks: dict[tuple[str, str], list[RunSpec]] = {}
    for run in runs:
        trunks.setdefault(_trunk_key(run), []).append(run)
    made: dict[str, tuple[RunSpec, ...]] = {}
    for trunk in trunks.values():
        made |= _branches(trunk, cooldown_fraction, warmup_budget)
    planned: dict[str, RunSpec] = {}
    for new in (new for run in runs for new in made[run.run_id]):
        old = planned.setdefault(new.run_id, new)
        if old.cell.segment and not new.cell.segment:
            planned[new.run_id] = new  # a cell replaces the segment that is the same run
        elif old is not new and not old.cell.segment and not new.cell.segment:
            raise ValueError(f"{_name(old)} and {_name(new)} are the same run {new.run_id}: remove one of them")
    return tuple(planned.values())


def _branches(
    trunk: Sequence[RunSpec], cooldown_fraction: float, warmup_budget: float
) -> dict[str, tuple[RunSpec, ...]]:
    """Maps each cell's run_id, before cooldowns, to (segment, branch), or to (segment,) without a cooldown."""
    ordered = sorted(trunk, key=lambda run: run.schedule.steps)
    large_enough = [run for run in ordered if (run.cell.budget or 0.0) >= warmup_budget] or ordered[-1:]
    warmup = large_enough[0].schedule.warmup_steps
    made, segment = {}, None
    for run in ordered:
        branch = _with_cooldown(run, warmup, cooldown_fraction)
        start = branch.schedule.steps - branch.schedule.cooldown_steps
        if start == branch.schedule.steps:
            segment = _with_parent(branch, segment)
            made[run.run_id] = (segment,)
            continue
        if segment is None or segment.schedule.steps < start:
            segment = _with_parent(_segment_before(branch, start), segment)
        made[run.run_id] = (segment, _with_parent(branch, segment))
    return made


def _with_cooldown(run: RunSpec, warmup: int, cooldown_fraction: float) -> RunSpec:
    """The cell with the trunk's warm-up and its own cooldown."""
    steps = run.schedule.steps
    cooldown = round(cooldown_fraction * steps)
    if warmup > steps - cooldown:
        raise ValueError(
            f"{_name(run)}: a warm-up of {warmup} steps and a cooldown of {cooldown} do not fit into {steps} steps:"
            " take a larger budget, a smaller size or batch, or a smaller sweep.cooldown_fraction"
        )
    schedule = dataclasses.replace(run.schedule, warmup_steps=warmup, cooldown_steps=cooldown)
    return dataclasses.replace(run, schedule=schedule)


def _segment_before(branch: RunSpec, start: int) -> RunSpec:
    """The part of the trunk that ends where the branch's cooldown begins."""
    schedule = dataclasses.replace(branch.schedule, steps=start, cooldown_steps=0)
    cell = dataclasses.replace(branch.cell, budget=None, segment=True)
    return dataclasses.replace(branch, schedule=schedule, cell=cell)


def _with_parent(run: RunSpec, parent: RunSpec | None) -> RunSpec:
    """The run, which starts from the parent's end; unchanged without a parent, or if the parent is as long."""
    if parent is None or parent.schedule.steps == run.schedule.steps:
        return run
    cell = dataclasses.replace(run.cell, parent_run_id=parent.run_id, parent_steps=parent.schedule.steps)
    return dataclasses.replace(run, cell=cell)


def _trunk_key(run: RunSpec) -> tuple[str, str]:
    """Equal for all runs of one trunk: the group, and everything but steps, warm-up and cooldown."""
    schedule = ScheduleSpec(ScheduleKind.WSD, MOST_STEPS, 0, run.schedule.lr_final_fraction)
    return run.cell.group, dataclasses.replace(run, schedule=schedule).spec_hash


def _check_shared(runs: Iterable[RunSpec]) -> None:
    """Refuses a recipe whose learning rate or batch depends on the budget: there would be a trunk for each run.

    Several learning rates for each cell are allowed: each is a trunk of its own.
    """
    sizes: dict[tuple[str, str], dict[float | None, list[RunSpec]]] = {}
    for run in runs:
        optim = dataclasses.replace(run.optim, lr_peak=1.0, global_batch=2)
        size = _trunk_key(dataclasses.replace(run, optim=optim, hardware=HardwareSpec()))
        sizes.setdefault(size, {}).setdefault(run.cell.budget, []).append(run)
    for budgets in sizes.values():
        for one, other in itertools.pairwise(budgets.values()):
            if not set(map(_rate_and_batch, one)) & set(map(_rate_and_batch, other)):
                _refuse_as_trunk(one[0], other[0])


def _rate_and_batch(run: RunSpec) -> tuple[float, int]:
    return run.optim.lr_peak, run.optim.global_batch


def _refuse_as_trunk(one: RunSpec, other: RunSpec) -> NoReturn:
    """Raises a ValueError that names the two values that differ, and the remedy."""
    (lr, batch), (other_lr, other_batch) = _rate_and_batch(one), _rate_and_batch(other)
    recipe = "a sweep.recipe whose learning rate does not depend on the budget, such as smdm_code or tiny_trunk"
    fixes = [
        *([f"take {recipe}"] if lr != other_lr else []),
        *(["set sweep.global_batch"] if batch != other_batch else []),
    ]
    raise ValueError(
        f"{_name(one)} has learning rate {lr:g} and batch {batch}, at {other.cell.budget:g} it has {other_lr:g} and"
        f" {other_batch}, and the runs of a WSD trunk share both: {' and '.join(fixes)}"
    )


def _name(run: RunSpec) -> str:
    return f"{run.family.value} {run.cell.size} at {run.cell.budget:g} FLOPs"


@dataclass(frozen=True)
class Savings:
    """FLOPs of a plan with trunks, and of its cells trained alone."""

    trained: int
    alone: int
    convention: FlopConvention

    @property
    def share(self) -> float:
        """`trained` as a share of `alone`."""
        return self.trained / self.alone

    def __str__(self) -> str:
        return (
            f"WSD trunks: {self.trained:.3g} FLOPs ({self.convention.value}) in place of {self.alone:.3g}"
            f" ({self.share:.0%})"
        )


def savings(runs: Iterable[RunSpec], convention: FlopConvention = FlopConvention.SMDM_6ND) -> Savings:
    """FLOPs of a plan's runs, each from its parent's end, and of its cells, each trained from its first step."""
    runs = tuple(runs)
    alone = sum(train_flops(run, convention) for run in runs if not run.cell.segment)
    return Savings(sum(trained_flops(run, convention) for run in runs), alone, convention)


def moved_warmup(gone: RunSpec, old: Iterable[RunSpec], new: Iterable[RunSpec]) -> str:
    """Why a run of the old plan is gone, if a new smallest budget changed its trunk's warm-up; else empty."""
    trunk = [run for run in new if _trunk_key(run) == _trunk_key(gone) and run.schedule.kind is ScheduleKind.WSD]
    before, after = gone.schedule.warmup_steps, trunk[0].schedule.warmup_steps if trunk else None
    if gone.schedule.kind is not ScheduleKind.WSD or after in (None, before):
        return ""
    budgets = [run.cell.budget for run in old if run.cell.budget and _trunk_key(run) == _trunk_key(gone)]
    return (
        f"its trunk's warm-up, which is that of its smallest budget, would change from {before} to {after} steps:"
        f" set sweep.trunk_warmup_budget={min(budgets, default=0.0):g} to keep it"
    )
