"""What a running sweep shows: a line for each finished run, and on a terminal a bar with the time left."""

import sys

from isoflop.plan.table import duration
from mdm_jax.results import RunResult, Status
from mdm_jax.spec import RunSpec


class Progress:
    """The place that a runner reports to: lines alone, for logs and pipes."""

    def line(self, text: str) -> None:
        """Prints the line at once, even into a pipe."""
        print(text, flush=True)

    def update(self, share: float, text: str) -> None:
        """Shows that `share` of the work (0 to 1) is done, and what goes on; nothing here."""

    def close(self) -> None:
        """Ends the display."""


class TerminalProgress(Progress):
    """Lines above a bar."""

    def __init__(self) -> None:
        from rich import progress
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.bar = progress.Progress(*columns)
        self.task = self.bar.add_task("", total=1.0)
        self.bar.start()

    def line(self, text: str) -> None:
        """Prints the line above the bar, neither wrapped into markup nor coloured."""
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, share: float, text: str) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=share, description=text)

    def close(self) -> None:
        """Gives the terminal back."""
        self.bar.stop()


def make_progress() -> Progress:
    """The display that suits stdout."""
    return TerminalProgress() if sys.stdout.isatty() else Progress()


def finished_line(row: RunResult, number: int, total: int, seconds: float, left: float | None) -> str:
    """`[ 7/30] mdm-2x64-… 1e+11 d64 nelbo 2.612 nats/token 14 s`."""
    where = f"[{number:{len(str(total))}}/{total}] {row.run_id} {_budget(row.budget)}d{row.d_model}"
    if row.status is Status.OK and row.loss is not None:
        what = f"{row.loss_kind.value} {row.loss:.3f} nats/token"
    else:
        what = f"{row.status.value}: {row.excluded_reason or 'no reason given'};"
    rest = f", about {duration(left)} left" if left else ""
    return f"{where} {what} {duration(seconds)}{rest}"


def cell_line(run: RunSpec, what: str) -> str:
    """A cell and what is or would be done with it."""
    return f"{run.run_id} {_budget(run.cell.budget)}d{run.model.d_model} {what}"


def _budget(budget: float | None) -> str:
    return f"{budget:g} " if budget else ""
