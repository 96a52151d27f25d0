"""Examines one shape after the other. Progress goes to standard error, and each verdict to the report at once."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from isoflop.preflight.compile import Compiled, Setting, compile_run
from isoflop.preflight.report import REPORT_FILE, Report
from isoflop.preflight.topology import Topology
from isoflop.preflight.verdict import Verdict, advice, examine
from isoflop.wording import duration
from mdm_jax.spec import RunSpec


@dataclass(frozen=True)
class Examination:
    """Examines shapes, and prints what is compiled and how long it has taken so far."""

    topology: Topology
    on_host: bool
    """Compiles for CPU devices of this host in place of the slice."""
    report: Report
    quick: bool
    """Compiles only the planned settings."""
    time_limit: float
    """Seconds for one compilation."""
    start: float = field(default_factory=time.monotonic)

    def examine_all(self, groups: Sequence[tuple[RunSpec, ...]]) -> list[Verdict]:
        """The verdict on each shape, written to the report as soon as it is found.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with a line that says what is kept.
        """
        verdicts: list[Verdict] = []
        try:
            for number, group in enumerate(groups, start=1):
                verdicts.append(self._examine(group, f"[{number}/{len(groups)}]"))
                self.report.add(verdicts[-1])
        except KeyboardInterrupt:
            kept = f"{len(self.report)} of {len(groups)} shapes are in {self.report.path}"
            raise KeyboardInterrupt(f"stopped: {kept}; the same command goes on with the others") from None
        return verdicts

    def _examine(self, group: tuple[RunSpec, ...], number: str) -> Verdict:
        run, compiler = group[0], None if self.on_host else self.topology
        name = f"{number} {run.family.value} {run.cell.size}, batch {run.optim.global_batch}"
        new: list[Compiled] = []

        def compiled(setting: Setting) -> Compiled:
            if earlier := self.report.answer(run, setting):
                return earlier
            said = f"{name}: compiling {setting}"
            say(f"{said} (after {duration(time.monotonic() - self.start)})")
            with _elapsed_time(said):
                new.append(compile_run(setting.of(run), compiler, self.time_limit))
            return new[-1]

        verdict = examine(group, self.topology, compiled, self.on_host, self.quick)
        say(f"{name}: {_result(verdict, self.topology, new)}")
        return verdict


def _result(verdict: Verdict, topology: Topology, new: Sequence[Compiled]) -> str:
    """Whether the shape fits, how that is known, and the remedy if it does not fit."""
    state = {True: "fits", False: "does not fit", None: verdict.planned.failed or "compiles"}[verdict.fits]
    seconds = sum(answer.compile_seconds for answer in new)
    source = f"{len(new)} compiled in {duration(seconds)}" if new else f"read from {REPORT_FILE}"
    remedy = f"\n{advice(verdict, topology)}" if verdict.fits is False else ""
    return f"{state} ({source}){remedy}"


def say(text: str) -> None:
    """Prints to standard error at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _elapsed_time(text: str) -> Iterator[None]:
    """Shows the elapsed time on a terminal while the body runs."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(text)
        yield
