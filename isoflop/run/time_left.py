"""How long a sweep and its running cells still take: the planner's estimates, corrected by what has been measured."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isoflop.cost import Machine, evaluation_flops, sweep_seconds
from isoflop.measured import measured_machine
from mdm_jax.metrics import newest_row
from mdm_jax.spec import RunSpec
from mdm_jax.storage import as_path


@dataclass(frozen=True)
class Position:
    """How far a run has come, by the newest row of its metrics."""

    step: int
    loss: float
    """Nats per token."""
    step_seconds: float
    """Mean time of a step in the attempt that wrote the row; 0 where the attempt has timed none."""
    age: float
    """Seconds since the row was written."""


def read_position(folder: Path, run: RunSpec) -> Position | None:
    """The position of the run in this folder; None before its first row."""
    newest = None
    with suppress(OSError, ValueError):  # a display ends no sweep
        newest = newest_row(as_path(folder) / "metrics")
    if newest is None:
        return None
    row, written = newest
    speed, tokens_per_step = row["tokens_per_second"], run.optim.global_batch * run.data.seq_len
    step_seconds = tokens_per_step / speed if speed else 0.0
    return Position(int(row["step"]), row["loss"], step_seconds, max(0.0, time.time() - written))


class TimeLeft:
    """Estimates for the runs of a sweep. `learn` corrects all of them by a run that has finished."""

    def __init__(self, finished: Iterable[tuple[RunSpec, float]], jobs: int) -> None:
        """`finished` are runs with their wall seconds, of earlier sweeps on this machine; `jobs` run at a time."""
        self._finished, self._jobs = list(finished), jobs
        self._correct()

    def learn(self, run: RunSpec, seconds: float) -> None:
        """Takes in the wall seconds of a finished run."""
        self._finished.append((run, seconds))
        self._correct()

    def _correct(self) -> None:
        self._machine = measured_machine(self._finished) or Machine()
        self._parts: dict[str, tuple[float, float, float]] = {}

    def of_run(self, run: RunSpec, position: Position | None = None, elapsed: float = 0.0) -> float:
        """Seconds until the run ends.

        Args:
            run: running or waiting.
            position: how far it has come, if it has begun.
            elapsed: seconds since its process started; 0 if it waits.
        """
        if run.run_id not in self._parts:
            self._parts[run.run_id] = self._parts_of(run)
        fixed, step_seconds, evaluating = self._parts[run.run_id]
        steps_left = run.schedule.steps - (position.step if position else run.cell.parent_steps)
        if position and position.age < elapsed:  # of the present process, which computes by now
            left = steps_left * (position.step_seconds or step_seconds) + evaluating - position.age
        else:
            left = fixed + steps_left * step_seconds + evaluating - elapsed
        return max(0.0, left)

    def _parts_of(self, run: RunSpec) -> tuple[float, float, float]:
        """The seconds of a run that are fixed, those of each step, and those of the final evaluation."""
        fixed, stepping, working = self._machine.parts(run)
        evaluating = evaluation_flops(run) / self._machine.flops_per_second
        own_steps = run.schedule.steps - run.cell.parent_steps
        return fixed, (stepping + working - evaluating) / own_steps, evaluating

    def of_sweep(self, left: Sequence[tuple[RunSpec, float]]) -> float:
        """Seconds until the sweep ends.

        Args:
            left: each run that is not finished, and its own seconds left.
        """
        seconds = {run.run_id: own for run, own in left}
        return sweep_seconds([run for run, _ in left], lambda run: seconds[run.run_id], self._jobs)
