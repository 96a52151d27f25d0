"""The display of a run: on a terminal a bar with the time left, elsewhere a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mdm_jax.train.loop import Row, Watch

LINE_SECONDS = 10.0


def describe(row: Row) -> str:
    """Loss (nats per token), learning rate, speed and, if known, MFU of a metrics row."""
    speed, mfu = row["tokens_per_second"], f"  MFU {row['mfu']:.0%}" if "mfu" in row else ""
    return f"loss {row['loss']:.4f} nats/token  lr {row['lr']:.2e}  {speed:,.0f} tokens/s{mfu}"


@contextmanager
def show_progress(watch: Watch, title: str, steps: int) -> Iterator[None]:
    """Shows the watch's reports on standard error inside."""
    stream, left = cast(IO[str], _ErrorIgnoringStream(sys.stderr)), _TimeLeft(steps)
    console = Console(file=stream)
    if console.is_terminal:
        columns = (TextColumn(title), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[message]}"))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=steps, message="compiling")

            def say(line: str) -> None:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
                bar.update(task, message=escape(line))

            watch.say = say
            watch.report = lambda row: bar.update(task, completed=row["step"], message=describe(row) + left(row))
            watch.restore_terminal = lambda: console.show_cursor(True)
            yield
    else:
        watch.say = lambda line: print(line, file=stream, flush=True)
        watch.report = _PlainLines(title, steps, watch.say, left)
        yield


class _ErrorIgnoringStream:
    """A stream that ignores errors of writing, so that a run survives a closed terminal or a full disk."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _TimeLeft:
    """The time left at the speed of this attempt, as text; empty for the attempt's first row."""

    def __init__(self, steps: int):
        self._steps = steps
        self._first: Row | None = None

    def __call__(self, row: Row) -> str:
        first = self._first = self._first or row
        done = row["step"] - first["step"]
        if not done:
            return ""
        left = (self._steps - row["step"]) * (row["seconds"] - first["seconds"]) / done
        return f"  about {left:.0f} s left"


class _PlainLines:
    """Prints the first row, the last, and one every LINE_SECONDS."""

    def __init__(self, title: str, steps: int, say: Callable[[str], None], left: _TimeLeft):
        self._title, self._steps, self._say, self._left, self._next = title, steps, say, left, 0.0

    def __call__(self, row: Row) -> None:
        now, left = time.monotonic(), self._left(row)
        if now < self._next and row["step"] != self._steps:
            return
        self._next = now + LINE_SECONDS
        self._say(f"{self._title}  step {row['step']}/{self._steps}  {describe(row)}{left}")
