"""What a person sees of a run: a bar with the time left on a terminal, plain lines a few seconds apart elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mdm_jax.train.loop import Row, Watch

LINE_SECONDS = 10.0


def describe(row: Row) -> str:
    """Loss (nats per token), learning rate and speed of a metrics row."""
    speed = row["tokens_per_second"]
    return f"loss {row['loss']:.4f} nats/token  lr {row['lr']:.2e}  {speed:,.0f} tokens/s"


@contextmanager
def shown(watch: Watch, title: str, steps: int) -> Iterator[None]:
    """Directs the watch's reports to standard error while the run lasts."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=steps, said="compiling")
            watch.report = lambda row: bar.update(task, completed=row["step"], said=describe(row))
            watch.say = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
            yield
    else:
        watch.report = _Lines(title, steps)
        watch.say = lambda line: print(line, file=sys.stderr, flush=True)
        yield


class _Lines:
    """Prints the first row, the last, and one every LINE_SECONDS."""

    def __init__(self, title: str, steps: int):
        self._title, self._steps, self._next = title, steps, 0.0
        self._first: Row | None = None

    def __call__(self, row: Row) -> None:
        now = time.monotonic()
        self._first = self._first or row
        if now < self._next and row["step"] != self._steps:
            return
        self._next = now + LINE_SECONDS
        text = f"{self._title}  step {row['step']}/{self._steps}  {describe(row)}{self._time_left(row)}"
        print(text, file=sys.stderr, flush=True)

    def _time_left(self, row: Row) -> str:
        """At the speed of this attempt, which may have begun at any step; nothing while that is unknown."""
        first = self._first or row
        done = row["step"] - first["step"]
        if not done:
            return ""
        left = (self._steps - row["step"]) * (row["seconds"] - first["seconds"]) / done
        return f"  about {left:.0f} s left"
