"""The display of a running sweep: a line for each finished run, and the progress of the sweep and its running cells."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isoflop.run.time_left import Cell
from isoflop.wording import duration
from mdm_jax.files.results import RunResult, Status
from mdm_jax.spec import RunSpec

LINE_SECONDS = 10.0
"""Seconds between two lines of states in a log or pipe."""
BAR_COLUMNS = 10


@dataclass(frozen=True)
class State:
    """Progress of the sweep or of one cell: its name, the share that is done (0 to 1), and a text."""

    name: str
    share: float
    text: str


class Progress:
    """The display for logs and pipes: plain lines, and the states every `LINE_SECONDS`."""

    def __init__(self) -> None:
        self._next = 0.0

    def line(self, text: str) -> None:
        """Prints the line at once, even into a pipe."""
        print(text, flush=True)

    def update(self, sweep: State, cells: Sequence[State]) -> None:
        """Shows the states of the sweep and of its running cells."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            self.line("; ".join([f"{sweep.name} {sweep.text}", *(f"{cell.name} {cell.text}" for cell in cells)]))

    def close(self) -> None:
        """Ends the display."""


class TerminalProgress(Progress):
    """The display for terminals: lines above bars, one bar for the sweep and one for each running cell."""

    def __init__(self) -> None:
        super().__init__()
        from rich import progress
        from rich.table import Column

        name, text = (f"{{task.{field}}}" for field in ("description", "fields[text]"))
        columns = (
            progress.TextColumn(name, table_column=Column(no_wrap=True)),
            progress.BarColumn(BAR_COLUMNS),
            progress.TextColumn(text, table_column=Column(no_wrap=True)),
        )
        self._bars = progress.Progress(*columns, transient=True)
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def line(self, text: str) -> None:
        """Prints the line above the bars, without markup or colours."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, sweep: State, cells: Sequence[State]) -> None:
        """Moves the bars, and removes those of cells that have ended."""
        states = {state.name: state for state in (sweep, *cells)}
        for name in self._tasks.keys() - states.keys():
            self._bars.remove_task(self._tasks.pop(name))
        for name, state in states.items():
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=1.0, text="")
            self._bars.update(self._tasks[name], completed=state.share, text=state.text)

    def close(self) -> None:
        """Removes the bars."""
        self._bars.stop()


def make_progress() -> Progress:
    """The display that suits stdout."""
    return TerminalProgress() if sys.stdout.isatty() else Progress()


def sweep_state(done: int, total: int, elapsed: float, left: float) -> State:
    """The state of a sweep with `done` runs finished, after `elapsed` seconds and with about `left` seconds to go."""
    share = elapsed / max(1e-9, elapsed + left)
    return State("sweep", share, f"{done}/{total} runs, about {duration(left)} left")


def cell_state(cell: Cell, left: float) -> State:
    """The state of a running cell that takes about `left` seconds more."""
    name, steps = f"{cell.run.run_id} {_budget(cell.run.cell.budget)}".rstrip(), cell.run.schedule.steps
    rest = f", about {duration(left)} left" if left >= 1 else ""
    if cell.position is None:
        return State(name, 0.0, f"starting{rest}")
    step, loss = cell.position.step, cell.position.loss
    at = "evaluating" if step == steps else f"step {step}/{steps}"
    return State(name, step / steps, f"{at}, loss {loss:.3f}{rest}")


def finished_line(row: RunResult, number: int, total: int, seconds: float, left: float) -> str:
    """`[ 7/30] mdm-2x64-… 1e+11 d64 nelbo 2.612 nats/token 14 s, about 3.2 min left`."""
    where = f"[{number:{len(str(total))}}/{total}] {row.run_id} {_budget(row.budget)}d{row.d_model}"
    if row.status is Status.OK and row.loss is not None:
        what = f"{row.loss_kind.value} {row.loss:.3f} nats/token"
    else:
        what = f"{row.status.value}: {row.excluded_reason or 'no reason given'};"
    rest = f", about {duration(left)} left" if left else ""
    return f"{where} {what} {duration(seconds)}{rest}"


def cell_line(run: RunSpec, what: str) -> str:
    """A line about a cell, such as `mdm-2x64-… 1e+11 d64 would run`."""
    return f"{run.run_id} {_budget(run.cell.budget)}d{run.model.d_model} {what}"


def _budget(budget: float | None) -> str:
    return f"{budget:g} " if budget else ""
