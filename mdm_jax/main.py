"""Trains and evaluates one run of a plan (`--plan DIR --run-id R`) or of an experiment (`--config FILE`).

The run's folder is `DIR/runs/R` (or below `--runs`). The same command resumes the run from its newest whole checkpoint;
a finished run is not changed. Exit codes: 0 done; 1 bad input or a bug; 3 diverged (recorded in result.json, not worth
a retry); 42 worth a retry, because the disk, the network or another process of the run failed, the run's parent is not
finished, or another process trains the run; 130 interrupted and 143 asked to stop, both with everything saved.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence

from mdm_jax.command import BAD, INTERRUPTED, RETRY, Parser, flush_output, say
from mdm_jax.config import load_run
from mdm_jax.devices.cpu_compiler import with_fast_compiler
from mdm_jax.devices.huge_pages import restart_with_huge_pages
from mdm_jax.files.faults import may_pass
from mdm_jax.files.fingerprint import with_fingerprint
from mdm_jax.files.layout import PLAN_FILE, RUNS_FOLDER, plan_lines
from mdm_jax.files.storage import Kind, Path, as_path, is_file, kind
from mdm_jax.run.attempt import Attempt, code_if_finished
from mdm_jax.run.supervised import is_supervised, supervise
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import require

MOST_NAMED = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    about, _, details = (__doc__ or "").partition("\n\n")
    flags = Parser("mdm_jax.main", description=about, epilog=details)
    source = flags.add_mutually_exclusive_group(required=True)
    source.add_argument("--plan", help="plan.jsonl that isoflop.plan wrote, or its folder")
    source.add_argument("--config", help="experiment file; its `run` section is the run")
    add = flags.add_argument
    add("--run-id", help="run of the plan; the beginning is enough if no other run_id has it")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes to --config, as run.seed=1")
    add("--runs", help="folder of the runs' folders (default: `runs` next to the plan, or ./runs)")
    add("--distributed", action="store_true", help="one of several processes, as the cluster says")
    add("--coordinator", help="host:port of process 0, if the cluster does not give it")
    add("--processes", type=int, help="number of processes, with --coordinator")
    add("--process-index", type=int, help="this process, with --coordinator")
    window = "write jax's profile of the steps FIRST to LAST (or of one step, FIRST) into the run's folder `profile`"
    add("--profile", type=step_window, default=range(0), metavar="FIRST:LAST", help=window)
    return flags


def step_window(text: str) -> range:
    """The steps that `FIRST:LAST` or `FIRST` names, both ends included; a run's first step is 1.

    Raises:
        argparse.ArgumentTypeError: the text has another form, or names no step.
    """
    match = re.fullmatch(r"(\d{1,18})(?::(\d{1,18}))?", text, re.ASCII)
    steps = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
    if not steps or steps[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be FIRST:LAST or FIRST, steps from 1 on, such as 10:20")
    return steps


def spec_of_plan(path: Path, run_id: str) -> RunSpec:
    """The plan's run with this `run_id`, or the only one whose run_id begins with it.

    Raises:
        ValueError: the file, line or run is absent or damaged, or several run_ids begin so; the message lists them.
    """
    if not is_file(path):
        raise ValueError(f"--plan {path}: no such file; `python -m isoflop.plan` writes one")
    named, found = re.compile(rf'"run_id":\s*"{re.escape(run_id)}'), {}
    for line in plan_lines(path):
        if named.search(line.text):
            spec = line.run()
            found[spec.run_id] = spec
    if not found:
        raise ValueError(f"--run-id {run_id}: not in {path}; give one of the run_ids there")
    if run_id not in found and len(found) > 1:
        shown = ", ".join(sorted(found)[:MOST_NAMED]) + (", …" if len(found) > MOST_NAMED else "")
        raise ValueError(f"--run-id {run_id}: {len(found)} runs of {path} begin with it: {shown}; give more of it")
    return found.get(run_id) or next(iter(found.values()))


def requested(flags: argparse.Namespace) -> tuple[RunSpec, Path]:
    """The run that the command line asks for, and its folder.

    Raises:
        ValueError: the flags contradict each other, there is no such run, or its configuration has a fault.
    """
    require(not (flags.plan and flags.set), "--set", flags.set, "used with --config: a plan's runs are fixed")
    require(bool(flags.plan) == bool(flags.run_id), "--run-id", flags.run_id, "given with --plan, and only with it")
    if flags.plan:
        plan = as_path(flags.plan)
        plan = plan / PLAN_FILE if kind(plan, follow=True) is Kind.FOLDER else plan
        spec, runs = spec_of_plan(plan, flags.run_id), plan.parent / RUNS_FOLDER
    else:
        spec, runs = with_fingerprint(load_run(flags.config, flags.set)), as_path("runs")
    if flags.profile:
        bound = f"at most {spec.schedule.steps}, the run's last step"
        require(flags.profile[-1] <= spec.schedule.steps, "--profile", flags.profile[-1], bound)
    return spec, (as_path(flags.runs) if flags.runs else runs) / spec.run_id


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; see the module's docstring."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = parser().parse_args(arguments)
    if argv is None:  # this process is the command's own
        restart_with_huge_pages()
        os.environ.update(with_fast_compiler(os.environ))  # before jax looks for its devices
    code = _train(flags, arguments)
    flush_output()
    return code


def _train(flags: argparse.Namespace, arguments: list[str]) -> int:
    """The exit code of the run that the flags ask for; `arguments` start it again under a supervisor."""
    try:
        spec, folder = requested(flags)
        ended = code_if_finished(folder)
    except Exception as error:
        if may_pass(error):
            return say(error, RETRY)
        if isinstance(error, ValueError):
            return say(error, BAD)
        raise
    if ended is not None:
        return ended
    if (flags.distributed or flags.coordinator) and not is_supervised():
        code, killed_by = supervise(arguments)
        lost = f"ended by {killed_by}, as when another process is lost: the same command goes on"
        return say(lost, RETRY) if code is None else code
    try:
        return Attempt(spec, folder, flags).run()
    except KeyboardInterrupt:
        return say("interrupted: the same command goes on from the newest checkpoint", INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
