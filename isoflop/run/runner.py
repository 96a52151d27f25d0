"""Runs the cells of a sweep in processes. A failure is recorded, and the others continue. A stop loses no work.

The cell with the longest chain of dependents starts first. A cell with a parent starts when the parent is done. If a
parent diverges or fails, its children are recorded as failed without a start. A later sweep starts them once their
parent is ok.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from isoflop.cost import chain_costs, work_flops
from isoflop.run.outcome import is_blocked, is_done, raise_seconds, read_row, run_folder, with_attempts, write_failure
from isoflop.run.process import Child, Launcher
from isoflop.run.progress import Progress, cell_line, cell_state, finished_line, sweep_state
from isoflop.run.time_left import Cell, Position, read_position, seconds_left
from isoflop.wording import duration
from mdm_jax.command import DONE, INTERRUPTED, PREEMPTED, RETRY, describe_exit
from mdm_jax.files.lock import RUN_LOCK, Lock, is_held
from mdm_jax.files.results import RunResult, Status
from mdm_jax.spec import RunSpec

POLL_SECONDS = 0.05
SHOW_SECONDS = 0.5
ENDED = (Status.OK, Status.DIVERGED)


@dataclass(frozen=True)
class Policy:
    """How many runs are executed at a time, and how often an interrupted run is tried again."""

    jobs: int = 1
    retry_failed: bool = False
    retries_after: tuple[float, ...] = (5.0, 30.0)
    """Seconds to wait before each further attempt after a retryable exit (42, 130, 143, a signal)."""
    held_seconds: float = 30.0
    """Seconds before a run that a process outside the sweep trains is tried again; this counts as no attempt."""
    stop_seconds: float = 300.0
    """Seconds that a run has to write its checkpoint when the sweep is stopped."""
    process_per_run: bool = False
    """Whether each run has a process of its own. Otherwise one process executes many runs, one after another."""


@dataclass
class Stop:
    """Set by a signal handler. After the first signal the runs save their state; a second one kills them."""

    signal: int | None = None
    times: int = 0


@dataclass(frozen=True)
class Waiting:
    """A run that waits for its start, or is running."""

    spec: RunSpec
    earlier: int
    """Attempts of earlier sweeps."""
    tries: int = 0
    """Attempts of this sweep."""
    not_before: float = 0.0
    """The monotonic time before which it may not start."""
    seconds: float = 0.0
    """Wall seconds of all attempts before the present one."""
    position: Position | None = None
    """The progress of the run after these attempts."""


@dataclass
class Sweep:
    """The state of a running sweep. `launcher` starts the runs; `stop` may be set at any time."""

    directory: Path
    runs: Sequence[RunSpec]
    launcher: Launcher
    policy: Policy
    lock: Lock
    progress: Progress
    stop: Stop

    def __post_init__(self) -> None:
        todo = [run for run in self.runs if is_pending(read_row(self.directory, run), self.policy.retry_failed)]
        longest = chain_costs(todo, work_flops)
        todo.sort(key=lambda run: longest[run.run_id], reverse=True)
        self.waiting = [self._waiting(run) for run in todo]
        self.children: dict[Child, Waiting] = {}
        rows = self._rows_of_ended(todo)
        self.ended = {run.run_id: row.status for run, row in rows}
        self.timed = [(run, row.wall_seconds or 0.0) for run, row in rows if row.status is Status.OK]
        self.done = len(self.runs) - len(todo)
        self.started, self.next_show = time.monotonic(), 0.0

    def run(self) -> None:
        """Runs until no cell is left or a stop is asked for. All processes have ended when the call returns.

        Raises:
            OSError: a command cannot be executed, or the disk is full.
        """
        try:
            while (self.waiting or self.children) and self.stop.signal is None:
                self._start_ready()
                self._reap()
                self._record_blocked()
                self._show()
                time.sleep(POLL_SECONDS)
        finally:
            self._stop_children()
            self.launcher.close()

    def _waiting(self, run: RunSpec) -> Waiting:
        row, position = read_row(self.directory, run), read_position(run_folder(self.directory, run), run)
        attempts, seconds = (row.attempts, row.wall_seconds or 0.0) if row else (0, 0.0)
        return Waiting(run, attempts, seconds=seconds, position=position)

    def _rows_of_ended(self, todo: Sequence[RunSpec]) -> list[tuple[RunSpec, RunResult]]:
        """The runs that will not be run again, with their rows."""
        again = {run.run_id for run in todo}
        rows = [(run, read_row(self.directory, run)) for run in self.runs if run.run_id not in again]
        return [(run, row) for run, row in rows if row is not None]

    def _start_ready(self) -> None:
        free = sorted(set(range(self.policy.jobs)) - {child.slot for child in self.children})
        ready = [w for w in self.waiting if w.not_before <= time.monotonic() and self._may_start(w.spec)]
        for slot, waiting in zip(free, ready, strict=False):
            spec, attempt = waiting.spec, waiting.earlier + waiting.tries + 1
            folder = run_folder(self.directory, spec)
            child = self.launcher.start(spec, folder, attempt, slot)
            self.waiting.remove(waiting)
            self.children[child] = replace(waiting, tries=waiting.tries + 1)
            self.lock.note_runs(c.process.pid for c in self.children)

    def _may_start(self, run: RunSpec) -> bool:
        parent = run.cell.parent_run_id
        return not parent or self.ended.get(parent) is Status.OK

    def _record_blocked(self) -> None:
        """Records as failed the runs whose parent diverged or failed, and their children in turn."""
        bad = (Status.DIVERGED, Status.FAILED)
        while blocked := [w for w in self.waiting if self.ended.get(w.spec.cell.parent_run_id) in bad]:
            for waiting in blocked:
                self.waiting.remove(waiting)
                parent = waiting.spec.cell.parent_run_id
                reason = f"parent {parent} {self.ended[parent].value}"
                row = write_failure(
                    self.directory, waiting.spec, reason, waiting.earlier + waiting.tries, waiting.seconds
                )
                self._finish(waiting.spec, row, 0.0)

    def _reap(self) -> None:
        for child, code in [(child, child.poll()) for child in self.children]:
            if code is None:
                continue
            waiting = self.children.pop(child)
            self.launcher.release(child)
            row = self._row_after(child, waiting, code)
            if row is not None:
                if row.status is Status.OK:
                    self.timed.append((child.spec, waiting.seconds + child.seconds))
                self._finish(child.spec, row, child.seconds)

    def _row_after(self, child: Child, waiting: Waiting, code: int) -> RunResult | None:
        """The final row of a run that has ended with this exit code; None if the run is tried again."""
        row = read_row(self.directory, child.spec)
        attempts, seconds = waiting.earlier + waiting.tries, waiting.seconds + child.seconds
        if row is not None and row.status in ENDED:
            return with_attempts(self.directory, child.spec, row, attempts)
        if code != DONE and is_held(child.log.parent, RUN_LOCK):
            return self._wait_for_holder(child, waiting)
        reason = f"{describe_exit(code)}: {child.last_log_line() or 'nothing was logged'}"
        if is_retryable(code) and waiting.tries <= len(self.policy.retries_after):
            delay = self.policy.retries_after[waiting.tries - 1]
            position = read_position(child.log.parent, child.spec)
            not_before = time.monotonic() + delay
            self.waiting.append(replace(waiting, not_before=not_before, seconds=seconds, position=position))
            raise_seconds(self.directory, child.spec, seconds)
            self.progress.line(cell_line(child.spec, f"again in {duration(delay)} after {reason}"))
            return None
        if row is not None and row.status is Status.FAILED and row.attempts >= attempts:
            return row  # written by this attempt itself
        return write_failure(self.directory, child.spec, reason, attempts, seconds)

    def _wait_for_holder(self, child: Child, waiting: Waiting) -> None:
        """Leaves the run and its row to the other process that trains it, and tries again later."""
        delay = self.policy.held_seconds
        again = replace(waiting, tries=waiting.tries - 1, not_before=time.monotonic() + delay)
        self.waiting.append(again)
        self.progress.line(cell_line(child.spec, f"again in {duration(delay)}: {child.last_log_line()}"))

    def _finish(self, run: RunSpec, row: RunResult, seconds: float) -> None:
        self.ended[run.run_id] = row.status
        self.done += 1
        left, _, _ = self._time_left()
        self.progress.line(finished_line(row, self.done, len(self.runs), seconds, left))

    def _time_left(self) -> tuple[float, list[Cell], list[float]]:
        """Seconds left of the sweep, its running cells, and the seconds left of each of them."""
        running = [
            Cell(child.spec, read_position(child.log.parent, child.spec), child.seconds, waiting.seconds)
            for child, waiting in self.children.items()
        ]
        waiting = [Cell(w.spec, w.position) for w in self.waiting]
        left, each = seconds_left(self.timed, running, waiting, self.policy.jobs)
        return left, running, each

    def _show(self) -> None:
        if time.monotonic() < self.next_show:
            return
        self.next_show = time.monotonic() + SHOW_SECONDS
        left, running, each = self._time_left()
        sweep = sweep_state(self.done, len(self.runs), time.monotonic() - self.started, left)
        self.progress.update(sweep, [cell_state(*state) for state in zip(running, each, strict=True)])

    def _stop_children(self) -> None:
        """Lets the running cells save their state. Kills them after `stop_seconds` or at a second signal."""
        for child in self.children:
            child.terminate()
        if self.children:
            self._say_stopping()
        deadline = time.monotonic() + self.policy.stop_seconds
        while any(child.poll() is None for child in self.children):
            if time.monotonic() > deadline or self.stop.times > 1:
                _kill_all(self.children)
            time.sleep(POLL_SECONDS)
        _kill_all(self.children)  # processes that they may have left
        for child, waiting in self.children.items():
            row = read_row(self.directory, child.spec)
            if row is not None and row.status in ENDED:
                self._finish(child.spec, row, child.seconds)
            elif not is_held(child.log.parent, RUN_LOCK):  # else a process outside the sweep writes the row
                raise_seconds(self.directory, child.spec, waiting.seconds + child.seconds)

    def _say_stopping(self) -> None:
        count = "1 run saves its" if len(self.children) == 1 else f"{len(self.children)} runs save their"
        seconds = duration(self.policy.stop_seconds)
        with suppress(OSError):  # the terminal may be closed
            self.progress.line(f"stopping: {count} state, up to {seconds}; press Ctrl-C again to end now")


def is_pending(row: RunResult | None, retry_failed: bool) -> bool:
    """Whether a run with this row is to be started."""
    return not is_done(row) or is_blocked(row) or (retry_failed and row is not None and row.status is Status.FAILED)


def is_retryable(code: int) -> bool:
    """Whether to try again after this exit code: the process asked for it, was preempted, or was killed by a signal."""
    return code in (RETRY, PREEMPTED, INTERRUPTED) or code < 0


def _kill_all(children: Iterable[Child]) -> None:
    for child in children:
        child.kill()
