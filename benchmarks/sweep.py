"""The time of a sweep, and what each second is for: with workers, and with a process for each run.

    python -m benchmarks.sweep [--every 4] [--jobs 2] [--warm]

The runs are every fourth of the quickstart's, by cost, on its own text. Each of the two ways begins without compiled
programs; with --warm it is timed once more with those of the first time. Shares are of jobs times the wall time, so
`idle` is the time in which a job has no run. The goal is that less than a tenth is outside steps and evaluation. Let
nothing else run meanwhile. The program takes about five minutes. The result stands in benchmarks/results/sweep.json, by
the machine's name.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.timed_run import PARTS
from isoflop.cost import work_flops
from isoflop.plan.__main__ import plan_config
from isoflop.planfile import write_plan
from isoflop.run.__main__ import run_sweep, training_arguments
from isoflop.run.runner import Policy
from mdm_jax.command import DONE, aligned, exit_code, new_parser
from mdm_jax.config import load_config
from mdm_jax.data.prepare import prepare
from mdm_jax.files.results import Status
from mdm_jax.files.storage import write_atomic
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import require

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/sweep.json"
TIMED = (sys.executable, "-m", "benchmarks.timed_run")
WAYS = ("workers", "process per run")
USEFUL = ("steps", "evaluation")


def quickstart(every: int, data: Path) -> list[RunSpec]:
    """Every n-th run of the quickstart by cost, beginning with the largest; its text lies in the folder `data`."""
    config: Any = load_config(str(ROOT / "experiments/quickstart.py"))
    with config.unlocked():
        config.run.data.directory = str(data)
    runs = plan_config(config).runs
    return sorted(runs, key=work_flops, reverse=True)[::every]


def timed(way: str, runs: Sequence[RunSpec], jobs: int, programs: Path) -> dict[str, Any]:
    """Wall seconds of the sweep, and the seconds of its runs by part.

    Args:
        way: one of `WAYS`.
        runs: whose text is prepared.
        jobs: runs at a time.
        programs: the folder of compiled programs.

    Raises:
        ValueError: a run did not end well.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory, file = Path(folder), Path(folder) / "parts.jsonl"
        write_plan(directory, runs)
        arguments, start = training_arguments(directory), [*TIMED, str(file)]
        alone = None if way == WAYS[0] else lambda run: [*start, "main", *arguments(run)]
        with environment(MDM_JAX_CACHE=str(programs), PYTHONPATH=str(ROOT)):
            begun = time.monotonic()
            rows = run_sweep(directory, policy=Policy(jobs=jobs), command=alone, worker=[*start, "worker"])
            wall = time.monotonic() - begun
        bad = [row.run_id for row in rows if row.status is not Status.OK]
        require(not bad, "runs that did not end well", ", ".join(bad), "none: see their logs")
        of_runs = [json.loads(line) for line in file.read_text().splitlines()]
    seconds: dict[str, float] = {part: round(sum(run[part] for run in of_runs), 3) for part in PARTS}
    seconds["idle"] = round(jobs * wall - sum(seconds.values()), 3)
    useful = sum(seconds[part] for part in USEFUL)
    return {"wall_s": round(wall, 3), "seconds": seconds, "outside": round(1 - useful / (jobs * wall), 4)}


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Changes variables of the environment inside."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def measure(runs: Sequence[RunSpec], jobs: int, warm: bool, ways: Sequence[str] = WAYS) -> dict[str, Any]:
    """The timings of the ways, by way and by state of the compiled programs."""
    found: dict[str, Any] = {"runs": len(runs), "jobs": jobs}
    for way in ways:
        with tempfile.TemporaryDirectory() as programs:
            for state in ("cold", "warm") if warm else ("cold",):
                found[f"{way}, {state}"] = timed(way, runs, jobs, Path(programs))
    return found


def lines_of(found: dict[str, Any]) -> list[str]:
    """The table of a measurement: a column for each sweep, with the share of each part."""
    sweeps = {name: one for name, one in found.items() if isinstance(one, dict) and "seconds" in one}
    rows = [["part", *sweeps], ["wall, s", *(f"{one['wall_s']:.1f}" for one in sweeps.values())]]
    for part in (*PARTS, "idle"):
        shares = (one["seconds"][part] / (found["jobs"] * one["wall_s"]) for one in sweeps.values())
        rows.append([part, *(f"{share:.1%}" for share in shares)])
    rows.append(["outside steps and evaluation", *(f"{one['outside']:.1%}" for one in sweeps.values())])
    return aligned(rows, {"part"})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("benchmarks.sweep", __doc__)
    flags.add_argument(
        "--every", type=int, default=4, metavar="N", help="every N-th run of the quickstart (%(default)s)"
    )
    flags.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at a time (%(default)s)")
    flags.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="what is timed (both)")
    flags.add_argument("--warm", action="store_true", help="also with the compiled programs of the first time")
    flags.add_argument("--data", type=Path, help="folder of the quickstart's prepared text; prepared here by default")
    flags.add_argument("--out", type=Path, default=RESULT, help="JSON file to write (%(default)s)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the file. Exit code: 0 done, 1 an error (one line says which)."""
    given = parser().parse_args(argv)

    def work() -> int:
        with tempfile.TemporaryDirectory() as own:
            runs = quickstart(given.every, given.data or Path(own))
            if given.data is None:
                prepare(runs[0].data)
            found = measure(runs, given.jobs, given.warm, given.ways)
        results = json.loads(given.out.read_text()) if given.out.exists() else {}
        before = results.get(machine(), {})
        if all(before.get(name) == found[name] for name in ("runs", "jobs")):  # the other way, of an earlier call
            found = before | found
        print("\n".join(lines_of(found)))
        write_atomic(given.out, json.dumps(results | {machine(): found}, indent=1) + "\n")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
