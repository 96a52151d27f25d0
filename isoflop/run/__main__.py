"""Local sweep: trains every planned run without a result, N of them at a time.

    python -m isoflop.run runs/quickstart

Ctrl-C stops the sweep: the running cells save their state, and the same command continues them later. A second Ctrl-C
ends them at once; they then continue from their newest checkpoints. A run that diverges or crashes is recorded, and the
others continue. One process executes many runs one after another, so that imports and compilation are paid once; a run
that is tried again gets a new process. Runs that start from another run's checkpoint, such as WSD branches, wait for
that run. DIR/runs.csv is the table of all runs.

Exit codes: 0 all runs are ok or diverged, 1 a run failed or the input is bad, 130 or 143 stopped by a signal.
"""

import argparse
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from isoflop.corpus import check_corpora
from isoflop.planfile import read_plan
from isoflop.run.outcome import TABLE_FILE, is_blocked, is_done, read_row, run_folder, write_table
from isoflop.run.parents import check_parents
from isoflop.run.process import Launcher, Processes, ProcessPerRun
from isoflop.run.progress import cell_line, make_progress
from isoflop.run.runner import Policy, Stop, Sweep, is_pending
from isoflop.run.workers import COMMAND as WORKER
from isoflop.run.workers import Workers
from mdm_jax.command import BAD, DONE, exit_code, new_parser
from mdm_jax.files.layout import PLAN_FILE
from mdm_jax.files.lock import SWEEP_LOCK, Lock, hold
from mdm_jax.files.results import RunResult, Status, set_aside_unusable
from mdm_jax.files.storage import as_path, is_local, refuse_link
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import require

Command = Callable[[RunSpec], Sequence[str]]


def main(arguments: Sequence[str] | None = None, command: Command | None = None) -> int:
    """Exit code of the command: 0 all runs are ok or diverged, 1 some failed or bad input, 130 or 143 stopped.

    Args:
        arguments: of the command line.
        command: see `run_sweep`.
    """
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options, command))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("isoflop.run", __doc__)
    parser.add_argument("directory", metavar="DIR", help="the sweep's directory, which holds plan.jsonl")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; they share the CPU cores (1)")
    parser.add_argument("--retry-failed", action="store_true", help="also run failed cells again")
    one_each = "a new process for each run: slower, and a run cannot depend on those before it"
    parser.add_argument("--process-per-run", action="store_true", help=one_each)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    return parser


def _run(options: argparse.Namespace, command: Command | None) -> int:
    require(options.jobs >= 1, "--jobs", options.jobs, "at least 1")
    path = as_path(options.directory)
    require(is_local(path), "DIR", options.directory, "on a disk of this machine: a pod runs mdm_jax.main itself")
    directory = Path(path)
    if options.dry_run:
        return _dry_run(directory, options.retry_failed)
    policy = Policy(jobs=options.jobs, retry_failed=options.retry_failed, process_per_run=options.process_per_run)
    with stop_signals() as stop:
        check_ready(directory, policy)
        rows = run_sweep(directory, policy=policy, command=command, stop=stop)
    print(f"{directory / TABLE_FILE}: {summary(rows)}")
    again = f"python -m isoflop.run {shlex.quote(options.directory)}"
    if stop.signal is not None:
        print(f"stopped; go on with {again}")
        return 128 + stop.signal
    blocked = sum(map(is_blocked, rows))
    failed = sum(row.status is Status.FAILED for row in rows) - blocked
    if failed:
        print(f"{failed} failed (see log.txt in their directories); {again} --retry-failed tries them again")
    if blocked:
        print(f"{blocked} not started, because their parents diverged or failed")
    return BAD if failed or blocked else DONE


def run_sweep(
    directory: Path,
    *,
    policy: Policy | None = None,
    command: Command | None = None,
    stop: Stop | None = None,
    worker: Sequence[str] = WORKER,
) -> list[RunResult]:
    """Trains every run without a result. Returns the rows of `runs.csv`: of all runs that were ever started.

    Args:
        directory: the sweep's, with the plan; runs are in `directory/runs`.
        policy: jobs, retries and waiting times.
        command: gives the argument list of a process of the run's own; by default workers train the runs. The process
            must write the run's `result.json` and end with 0 (done), 1 (a bug), 3 (diverged), or 42 or 143 (to be tried
            again).
        stop: set its `signal` to stop the sweep.
        worker: the argument list of a worker, to which the number of its pipe is added.

    Raises:
        ValueError: no plan, a damaged one (the line is named; nothing is run), a parent that is not in it or cannot be
            one, another runner holds the directory, or a run's folder is a link.
        OSError: the disk is full or the command cannot be executed; the running cells have checkpointed and stopped.
    """
    runs = check_parents(read_plan(directory))
    for run in runs:
        refuse_link(run_folder(directory, run))
    policy, progress = policy or Policy(), make_progress()
    try:
        with hold(directory, SWEEP_LOCK, progress.line) as lock:
            for said in filter(None, (set_aside_unusable(run_folder(directory, run)) for run in runs)):
                progress.line(said)
            sweep = Sweep(
                directory=directory,
                runs=runs,
                launcher=_launcher(directory, policy, command, worker, lock),
                policy=policy,
                lock=lock,
                progress=progress,
                stop=stop or Stop(),
            )
            try:
                sweep.run()
            finally:
                rows = write_table(directory, runs)
            return rows
    finally:
        progress.close()


def _launcher(directory: Path, policy: Policy, command: Command | None, worker: Sequence[str], lock: Lock) -> Launcher:
    """What starts the runs: workers, or a process for each run if there is a command or the policy asks for it."""
    processes = Processes({"PYTHONUNBUFFERED": "1", **os.environ}, policy.jobs, lock.handle)
    if command is None and not policy.process_per_run:
        return Workers(processes, training_arguments(directory), worker)
    return ProcessPerRun(processes, command or training_command(directory))


def training_command(directory: Path) -> Callable[[RunSpec], list[str]]:
    """Maps a run of the plan to the argument list of the process that trains it."""
    arguments = training_arguments(directory)
    return lambda run: [sys.executable, "-m", "mdm_jax.main", *arguments(run)]


def training_arguments(directory: Path) -> Callable[[RunSpec], list[str]]:
    """Maps a run of the plan to the arguments of `mdm_jax.main`."""
    return lambda run: ["--plan", str(directory / PLAN_FILE), "--run-id", run.run_id]


def check_ready(directory: Path, policy: Policy) -> None:
    """Checks that each run to be started has the planned corpus, prepared and large enough.

    Raises:
        ValueError: a run has not; one line says what is wrong.
    """
    runs = check_parents(read_plan(directory))
    check_corpora((r for r in runs if is_pending(read_row(directory, r), policy.retry_failed)), prepared=True)


def summary(rows: Sequence[RunResult]) -> str:
    """`30 runs: 28 ok, 1 diverged, 1 failed`."""
    counts = Counter(row.status for row in rows)
    parts = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    return f"{len(rows)} run{'s' * (len(rows) != 1)}{': ' if parts else ''}{parts}"


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """A `Stop` that Ctrl-C, SIGTERM or the closing of the terminal sets."""
    stop = Stop()

    def handle(number: int, _: object) -> None:
        stop.signal = stop.signal or number
        stop.times += 1

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in wanted}
    for number in wanted:
        if before[number] is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number in wanted:
            signal.signal(number, before[number])


def _dry_run(directory: Path, retry_failed: bool) -> int:
    for run in check_parents(read_plan(directory)):
        row, parent = read_row(directory, run), run.cell.parent_run_id
        if is_done(row) and not is_pending(row, retry_failed):
            what = f"has a result ({row.status.value})" if row else ""
        else:
            started = run_folder(directory, run).is_dir() and not is_blocked(row)
            again = is_done(row) and not is_blocked(row)
            what = "would run again" if again else "would resume" if started else "would run"
            what += f" from the end of {parent}" if parent and not started else ""
        print(cell_line(run, what))
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())
