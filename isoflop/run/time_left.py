"""The time left of a sweep and its running cells: the planner's estimates, corrected by measured times."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isoflop.cost import Machine, evaluation_flops, sweep_seconds
from isoflop.measured import measured_machine
from mdm_jax.files.layout import METRICS_FOLDER
from mdm_jax.files.storage import as_path
from mdm_jax.spec import RunSpec
from mdm_jax.train.metrics import newest_row

MEASURED_SHARE = 0.05
"""Share of its steps after which a running cell's speed is used for the estimates of other cells."""


@dataclass(frozen=True)
class Position:
    """The progress of a run, by the newest row of its metrics."""

    step: int
    loss: float
    """Nats per token."""
    step_seconds: float
    """Mean time of a step in the attempt that wrote the row; 0 if the attempt has not timed any step."""
    age: float
    """Seconds since the row was written."""


def read_position(folder: Path, run: RunSpec) -> Position | None:
    """The position of the run in this folder; None before its first row."""
    newest = None
    with suppress(OSError, ValueError):  # the display must not end the sweep
        newest = newest_row(as_path(folder) / METRICS_FOLDER)
    if newest is None:
        return None
    row, written = newest
    speed, tokens_per_step = row["tokens_per_second"], run.optim.global_batch * run.data.seq_len
    step_seconds = tokens_per_step / speed if speed else 0.0
    return Position(int(row["step"]), row["loss"], step_seconds, max(0.0, time.time() - written))


@dataclass(frozen=True)
class Cell:
    """An unfinished run. `elapsed` counts the seconds of its present attempt, `earlier` those of all before."""

    run: RunSpec
    position: Position | None = None
    elapsed: float = 0.0
    earlier: float = 0.0

    @property
    def is_training(self) -> bool:
        """Whether the present attempt has written a row, so that it has started and compiled."""
        return self.position is not None and self.position.age < self.elapsed

    @property
    def is_measured(self) -> bool:
        """Whether the present attempt has done enough steps to measure its speed."""
        done = self.position.step / self.run.schedule.steps if self.position else 0.0
        return self.is_training and done >= MEASURED_SHARE

    def seconds_left(self, machine: Machine) -> float:
        """Seconds until the run ends, by its own measured speed if there is one, else by the machine's."""
        fixed, stepping, working = machine.time_parts(self.run)
        evaluating = evaluation_flops(self.run) / machine.flops_per_second
        steps, first = self.run.schedule.steps, self.run.cell.parent_steps
        step_seconds = (stepping + working - evaluating) / (steps - first)
        steps_left = steps - (self.position.step if self.position else first)
        if self.position is None or not self.is_training:
            return max(0.0, fixed + steps_left * step_seconds + evaluating - self.elapsed)
        return max(0.0, steps_left * (self.position.step_seconds or step_seconds) + evaluating - self.position.age)


def seconds_left(
    finished: Sequence[tuple[RunSpec, float]], running: Sequence[Cell], waiting: Sequence[Cell], jobs: int
) -> tuple[float, list[float]]:
    """Seconds until the sweep ends, and until each of the running cells ends.

    Args:
        finished: runs on this machine and their wall seconds.
        running: cells with a process.
        waiting: cells without one.
        jobs: cells that run at a time.
    """
    machine = measured_machine(finished) or Machine()
    measured = [cell for cell in running if cell.is_measured]
    expected = [(cell.run, cell.earlier + cell.elapsed + cell.seconds_left(machine)) for cell in measured]
    machine = measured_machine([*finished, *expected]) or machine
    cells = [*running, *waiting]
    left = {cell.run.run_id: cell.seconds_left(machine) for cell in cells}
    sweep = sweep_seconds([cell.run for cell in cells], lambda run: left[run.run_id], jobs)
    return sweep, [left[cell.run.run_id] for cell in running]
