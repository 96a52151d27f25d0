"""Trains and evaluates one run of a plan (`--plan DIR/plan.jsonl --run-id R`) or of an experiment (`--config FILE`).

The run's folder is `DIR/runs/R` (or below `--runs`). Starting it again goes on from its newest whole checkpoint; a
finished run is left as it is. Exit codes: 0 done, 1 bad input or a bug, 3 diverged (recorded in result.json, not worth
a retry), 42 the disk or the network failed or the run's parent is not finished (worth a retry), 130 interrupted, 143
asked to stop and saved.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from mdm_jax.config import load_config, override, run_section, to_spec
from mdm_jax.results import Status, read_result, set_aside_unusable
from mdm_jax.sealed_json import Newer, numbered_lines
from mdm_jax.spec import RunSpec, from_json
from mdm_jax.storage import Path, as_path
from mdm_jax.tree import require

DONE, BAD, DIVERGED, RETRY, INTERRUPTED, PREEMPTED = 0, 1, 3, 42, 130, 143


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line, with exit code 1 as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        """Does not return."""
        sys.exit(_say(message, BAD))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    about, _, details = (__doc__ or "").partition("\n\n")
    flags = Parser("python -m mdm_jax.main", description=about, epilog=details)
    source = flags.add_mutually_exclusive_group(required=True)
    source.add_argument("--plan", help="plan.jsonl that isoflop.plan wrote")
    source.add_argument("--config", help="experiment file; its `run` section is the run")
    flags.add_argument("--run-id", help="which line of the plan")
    flags.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="with --config: run.optim.lr_peak=1e-3",
    )
    flags.add_argument("--runs", help="folder of the runs' folders (default: `runs` beside the plan, or ./runs)")
    flags.add_argument("--distributed", action="store_true", help="one of several processes; details from the cluster")
    flags.add_argument("--coordinator", help="host:port of process 0, where the cluster does not say")
    flags.add_argument("--processes", type=int, help="number of processes, with --coordinator")
    flags.add_argument("--process-index", type=int, help="this process, with --coordinator")
    return flags


def spec_of_plan(path: Path, run_id: str) -> RunSpec:
    """The plan's line with this run_id.

    Raises:
        ValueError: no such file, line or run.
    """
    if not path.is_file():
        raise ValueError(f"--plan {path}: no such file; `python -m isoflop.plan` writes one")
    for number, line in numbered_lines(path.read_bytes()):
        if run_id in line:
            try:
                spec = from_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            if spec.run_id == run_id:
                return spec
    raise ValueError(f"--run-id {run_id}: not in {path}; give one of the run_ids there")


def requested(flags: argparse.Namespace) -> tuple[RunSpec, Path]:
    """The run that the command line asks for, and its folder.

    Raises:
        ValueError: flags that do not go together, no such run, or a configuration with a fault.
    """
    require(not (flags.plan and flags.set), "--set", flags.set, "used with --config: a plan's runs are fixed")
    require(bool(flags.plan) == bool(flags.run_id), "--run-id", flags.run_id, "given with --plan, and only with it")
    if flags.plan:
        plan = as_path(flags.plan)
        spec, runs = spec_of_plan(plan, flags.run_id), plan.parent / "runs"
    else:
        config = override(load_config(flags.config), flags.set)
        spec, runs = to_spec(RunSpec, run_section(config)), as_path("runs")
    return spec, (as_path(flags.runs) if flags.runs else runs) / spec.run_id


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, see above."""
    flags = parser().parse_args(argv)
    try:
        spec, folder = requested(flags)
    except (ValueError, OSError) as error:
        return _say(error, BAD)
    try:
        status = _status(folder)
    except Newer as error:
        return _say(error, BAD)
    if status in (Status.OK, Status.DIVERGED):
        print(f"{folder} is finished: see result.json there", file=sys.stderr)
        return DONE if status is Status.OK else DIVERGED
    try:
        return run(spec, folder, flags)
    except KeyboardInterrupt:
        return _say("interrupted: the same command goes on from the newest checkpoint", INTERRUPTED)


def run(spec: RunSpec, folder: Path, flags: argparse.Namespace) -> int:
    """Runs to the end and returns the exit code; whatever happens is in `result.json` if the disk takes it."""
    from mdm_jax.progress import shown
    from mdm_jax.run import Record, execute
    from mdm_jax.train.loop import Diverged, Preempted, Watch

    stop: list[int] = []
    watch, record = Watch(asked_to_stop=lambda: bool(stop)), None
    try:
        _join(flags)
        signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
        record = Record(spec, folder)
        with shown(watch, spec.run_id, spec.schedule.steps):
            row = execute(spec, folder, record, watch)
    except Diverged as error:
        return _say(error, DIVERGED)
    except Preempted as error:
        return _say(error, PREEMPTED)
    except OSError as error:
        _note(record, Status.RUNNING, error)
        return _say(error, RETRY)
    except ValueError as error:
        _note(record, Status.FAILED, error)
        return _say(error, BAD)
    except Exception as error:
        _note(record, Status.FAILED, error)
        raise
    loss = f"{row.loss:.4f} nats/token ({row.loss_kind.value})"
    with suppress(OSError):  # the result is in its file
        print(f"{row.run_id}: {loss}, standard error {row.loss_se_mc:.4f} of the draws", flush=True)
    return DONE


def _status(folder: Path) -> Status | None:
    """How the run stands; None where it has no result yet, or a damaged one, which is kept aside and written anew.

    Raises:
        Newer: a newer version of mdm-jax wrote the result.
    """
    try:
        said = set_aside_unusable(folder)
        if said:
            _say(said, DONE)
        return read_result(folder / "result.json").status
    except Newer:
        raise
    except (OSError, ValueError):
        return None


def _join(flags: argparse.Namespace) -> None:
    """Joins the other processes, before anything asks jax for devices."""
    if flags.distributed or flags.coordinator:
        import jax

        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which the loop answers
        jax.distributed.initialize(flags.coordinator, flags.processes, flags.process_index)


def _note(record, status: Status, error: Exception) -> None:
    """Leaves the reason in the result. A run that may be retried is still `running`; a full disk takes no note."""
    if record is not None:
        with suppress(OSError):
            record.write(status, f"{type(error).__name__}: {_one_line(error)}")


def _say(error: object, code: int) -> int:
    with suppress(OSError):  # standard error may lie on the disk that is full
        print(f"mdm_jax: {_one_line(error)}", file=sys.stderr, flush=True)
    return code


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
