"""Adds exact likelihoods to the rows of finished runs, from the checkpoints of their last steps.

RUN is a run's folder, or a sweep's folder with all its runs. The likelihoods become columns of each `result.json`. An
MDM is evaluated on the tokens of its loss, and an ARM's likelihoods equal its loss. Runs that have them, trunk segments
and runs that are not finished are left as they are. Every run gets a line. After an interruption the same command goes
on.

Exit codes: 0 done; 1 a run could not be evaluated (the others are); 42 worth a retry; 130 interrupted; 143 asked to
stop.
"""

import argparse
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from mdm_jax.command import (
    BAD,
    DONE,
    INTERRUPTED,
    PREEMPTED,
    RETRY,
    cores_of,
    describe_exit,
    exit_code,
    flush_output,
    new_parser,
    on_cores,
    say,
)
from mdm_jax.files.faults import may_pass
from mdm_jax.files.layout import PLAN_FILE, RESULT_FILE, RUNS_FOLDER, SPEC_FILE
from mdm_jax.files.lock import Held
from mdm_jax.files.storage import Path, as_path, entries, is_file
from mdm_jax.spec import EXACT_LIKELIHOODS, Likelihood
from mdm_jax.spec.validation import require

GRAVEST_FIRST = (PREEMPTED, INTERRUPTED, BAD, RETRY, DONE)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.evaluate.likelihood", __doc__)
    add = flags.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run's folder, or a sweep's")
    names = [one.value for one in EXACT_LIKELIHOODS]
    which = f"{' and '.join(names)} (default: both)"
    add("--likelihoods", nargs="+", choices=names, default=names, metavar="NAME", help=which)
    add("--jobs", type=int, default=1, help="processes that share the runs and the cores; 1 on an accelerator")
    return flags


def run_folders(path: str) -> list[Path]:
    """The folder of a run, or those of all runs of a sweep, by name.

    Raises:
        ValueError: the path is neither, or no run of the sweep has begun.
    """
    folder = as_path(path)
    if is_file(folder / SPEC_FILE) or is_file(folder / RESULT_FILE):
        return [folder]
    runs = folder / RUNS_FOLDER if (folder / RUNS_FOLDER).is_dir() else folder
    found = [run for run in entries(runs) if is_file(run / SPEC_FILE)] if runs.is_dir() else []
    if not found and is_file(folder / PLAN_FILE):
        raise ValueError(f"{path}: no run of this plan has begun: python -m isoflop.run {path} runs them")
    if not found:
        raise ValueError(f"{path}: neither a run's folder nor a sweep's: it has no {SPEC_FILE} and no runs")
    return sorted(found, key=lambda run: run.name)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; see the module's docstring."""
    flags = parser().parse_args(argv)

    def work() -> int:
        require(flags.jobs >= 1, "--jobs", flags.jobs, "at least 1")
        folders = list(dict.fromkeys(run for path in flags.runs for run in run_folders(path)))
        likelihoods = [Likelihood(name) for name in dict.fromkeys(flags.likelihoods)]
        jobs = min(flags.jobs, len(folders))
        return _in_turn(folders, likelihoods) if jobs <= 1 else _shared(folders, likelihoods, jobs)

    return exit_code(work)


def _in_turn(folders: Sequence[Path], likelihoods: Sequence[Likelihood]) -> int:
    """The gravest exit code of the runs, each evaluated in this process."""
    from mdm_jax.run.added_likelihoods import add_likelihoods
    from mdm_jax.run.attempt import LEFT_AT_ONCE
    from mdm_jax.train.loop import Diverged, Preempted, Watch
    from mdm_jax.train.stop import Signals

    def leave(code: int) -> None:
        say(LEFT_AT_ONCE, code)
        flush_output()
        os._exit(code)

    codes, watch = [DONE], Watch()
    signals = Signals(lambda: watch.phase, leave)
    watch.asked_to_stop = signals.asked
    with signals.handled():
        for folder in folders:
            if signals.asked():
                return say("asked to stop: the same command goes on with the other runs", signals.code)
            watch.say = functools.partial(_tell, folder.name)
            try:
                print(add_likelihoods(folder, likelihoods, watch), flush=True)
            except Preempted as stop:
                return say(f"{folder.name}: {stop}", signals.code)
            except BrokenPipeError:
                raise
            except (ValueError, OSError, Diverged) as error:
                worth_a_retry = isinstance(error, Held) or may_pass(error)
                codes.append(say(f"{folder.name}: {error}", RETRY if worth_a_retry else BAD))
    return _gravest(codes)


def _tell(name: str, line: str) -> None:
    """Prints a line about the run of this name on standard error."""
    say(f"{name}: {line}", DONE)


def _shared(folders: Sequence[Path], likelihoods: Sequence[Likelihood], jobs: int) -> int:
    """The gravest exit code of processes that share the runs. They get the signals that this process gets."""
    names, asked = [one.value for one in likelihoods], list[int]()
    command = [sys.executable, "-m", "mdm_jax.evaluate.likelihood"]
    children: list[subprocess.Popen] = []

    def forward(number: int, _: object) -> None:
        asked.append(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for job in range(jobs):
            share = [os.fspath(folder) for folder in folders[job::jobs]]
            with on_cores(cores_of(job, jobs)):
                children.append(subprocess.Popen([*command, *share, "--likelihoods", *names]))
            if asked:
                break
        ended = [child.wait() for child in children]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    killed = [code for code in ended if code not in GRAVEST_FIRST]
    for code in killed:
        say(f"one of the processes ended with {describe_exit(code)}: the same command goes on", RETRY)
    stopped = [INTERRUPTED if asked[0] == signal.SIGINT else PREEMPTED] if asked else []
    return _gravest([*stopped, *[RETRY] * len(killed), *(code for code in ended if code in GRAVEST_FIRST)])


def _gravest(codes: Sequence[int]) -> int:
    return min(codes, key=GRAVEST_FIRST.index)


if __name__ == "__main__":
    sys.exit(main())
