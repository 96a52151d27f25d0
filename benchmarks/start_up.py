"""Seconds until each command answers, and from the start of a run to its first step.

    python -m benchmarks.start_up [--rounds 5] [--runs 1x8 2x56]

The program takes about five minutes on two cores. Its result stands in benchmarks/results/start_up.json, by the
machine's name. Every measurement is a fresh process. The commands take turns: a round has each of them once, in an
order that is turned from round to round. A row has the medians of the seconds of the clock and of the processors, and
the quickest round. Let nothing else run meanwhile.

* `--help` of each console script, and its first error: a flag that it does not have;
* the imports of the packages, and those of a run (`mdm_jax.run.execute`, which loads jax);
* the planner on `experiments/quickstart.py`;
* the quickstart's runs of both families, of the sizes that --runs names: from the start of `python -m mdm_jax.main` to
  the first row of its metrics, which is written after the second step was dispatched. The corpus is prepared, and all
  programs are in the cache, because the same run was made before. Then the run is ended.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import add_results
from mdm_jax.command import DONE, aligned, exit_code, new_parser
from mdm_jax.files.layout import METRICS_FOLDER, RUNS_FOLDER, plan_lines
from mdm_jax.files.storage import as_path
from mdm_jax.spec import RunSpec

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "start_up.json"
QUICKSTART = str(ROOT / "experiments" / "quickstart.py")
IMPORTS = ("mdm_jax", "analysis", "isoflop", "numpy", "jax", "mdm_jax.run.execute")
LONGEST = 300.0
"""Seconds in which a run must write its first row. Other commands have no limit."""


@dataclass(frozen=True)
class Command:
    """A fresh process.

    Attributes:
        words: what Python gets.
        codes: the exit codes that are no error.
        until: a folder. When a file in it has a line, the measurement ends, and the process is killed. With None the
            measurement lasts until the process ends.
    """

    words: tuple[str, ...]
    codes: tuple[int, ...] = (DONE,)
    until: Path | None = None


def environment(cache: Path) -> dict[str, str]:
    """The environment of all processes; their compiled programs are in `cache`."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "MDM_JAX_CACHE": str(cache)}


def timed(command: Command, cache: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processors.

    Raises:
        ValueError: the process failed; its last line on standard error is shown.
    """
    if command.until is not None:
        shutil.rmtree(command.until.parent, ignore_errors=True)
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command.words], env=environment(cache), stdout=subprocess.DEVNULL, stderr=errors
        )
        seconds = _seconds_until(command.until, process, begin) if command.until is not None else None
        if seconds is not None:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if seconds is None and (command.until is not None or process.returncode not in command.codes):
            errors.seek(0)
            last = (errors.read().decode(errors="replace").splitlines() or [""])[-1]
            raise ValueError(f"python {' '.join(command.words)}: exit {process.returncode}: {last}")
        return seconds or time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def _seconds_until(folder: Path, process: subprocess.Popen, begin: float) -> float | None:
    """Seconds until a file in the folder has a line; None if the process ends before."""
    while time.perf_counter() - begin < LONGEST:
        if any(part.stat().st_size for part in folder.glob("*.jsonl")):
            return time.perf_counter() - begin
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return None
        time.sleep(0.005)
    process.kill()
    return None


def script_commands() -> dict[str, Command]:
    """`--help` and the first error of each console script."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    found = {}
    for name, place in sorted(scripts.items()):
        module = place.partition(":")[0].removesuffix(".__main__")
        found[f"{name} --help"] = Command(("-m", module, "--help"))
        found[f"{name}: its first error"] = Command(("-m", module, "--no-such-flag"), (1,))
    return found


def import_commands() -> dict[str, Command]:
    """Python itself, and the imports."""
    return {"python": Command(("-c", "pass"))} | {
        f"import {name}": Command(("-c", f"import {name}")) for name in IMPORTS
    }


def plan_words(folder: Path, *settings: str) -> tuple[str, ...]:
    """The quickstart's plan, in `folder`, with changed settings."""
    return ("-m", "isoflop.plan", "--config", QUICKSTART, "--out", str(folder), "--set", *settings)


def run_commands(folder: Path, sizes: Sequence[str], cache: Path) -> dict[str, Command]:
    """A run of each family and size of the quickstart, whose corpus is prepared and whose programs are compiled here.

    Raises:
        ValueError: the quickstart has no such size.
    """
    text, data = folder / "texts.jsonl", folder / "data"
    lines = (
        json.dumps({"text": f"{i}: the loss of step {i * i} falls slowly, and then it is noise.\n"})
        for i in range(60_000)
    )
    text.write_text("\n".join(lines) + "\n")
    corpus = ("run.data.corpus.source=jsonl", f"run.data.corpus.path={text}", f"run.data.directory={data}")
    settings = (*corpus, "run.hardware.log_every=1")
    timed(Command(("-m", "mdm_jax.data.prepare", "--config", QUICKSTART, "--set", *corpus)), cache)
    timed(Command(plan_words(folder, *settings)), cache)
    found = {}
    for run in _chosen([line.run() for line in plan_lines(as_path(folder) / "plan.jsonl")], sizes):
        until = folder / RUNS_FOLDER / run.run_id / METRICS_FOLDER
        words = ("-m", "mdm_jax.main", "--plan", str(folder), "--run-id", run.run_id)
        command = Command(words, until=until)
        timed(command, cache)  # compiles
        name = f"{run.model.n_layers}x{run.model.d_model} {run.family.value}"
        found[f"first step of {name}"] = command
    return found


def _chosen(runs: Sequence[RunSpec], sizes: Sequence[str]) -> list[RunSpec]:
    """The first run of each family and size."""
    known: dict[tuple[str, str], RunSpec] = {}
    for run in runs:
        known.setdefault((f"{run.model.n_layers}x{run.model.d_model}", run.family.value), run)
    names = {size for size, _ in known}
    for size in sizes:
        if size not in names:
            raise ValueError(f"--runs {size}: must be sizes of the quickstart: {', '.join(sorted(names))}")
    return [run for (size, _), run in known.items() if size in sizes]


def measure(commands: dict[str, Command], rounds: int, cache: Path) -> dict[str, dict[str, Any]]:
    """Medians and the quickest of the interleaved rounds, by command."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    names = list(commands)
    for turn in range(rounds):
        first = turn * len(names) // rounds
        for name in names[first:] + names[:first]:
            found[name].append(timed(commands[name], cache))
    return {
        name: {
            "seconds": statistics.median(wall for wall, _ in each),
            "cpu_seconds": statistics.median(cpu for _, cpu in each),
            "quickest": min(wall for wall, _ in each),
            "rounds": [wall for wall, _ in each],
        }
        for name, each in found.items()
    }


def lines_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """The table of a measurement."""
    columns = ("seconds", "cpu_seconds", "quickest")
    rows = [[name, *(f"{one[column]:.2f}" for column in columns)] for name, one in found.items()]
    return aligned([["command", "seconds", "of processors", "quickest"], *rows], {"command"})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("benchmarks.start_up", __doc__)
    add = flags.add_argument
    add("--rounds", type=int, default=5, help="fresh processes of each command (%(default)s)")
    add("--runs", nargs="*", default=["1x8", "2x56"], metavar="SIZE", help="sizes of the runs (%(default)s)")
    add("--only", metavar="TEXT", help="only the commands whose name has this text")
    add("--out", type=Path, default=RESULT, help="JSON file to write (%(default)s)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the file. Exit code: 0 done, 1 an error (one line says which)."""
    given = parser().parse_args(argv)

    def work() -> int:
        with tempfile.TemporaryDirectory() as temporary:
            folder, cache = Path(temporary) / "quickstart", Path(temporary) / "cache"
            folder.mkdir()
            commands = {**import_commands(), **script_commands()}
            commands["mdm-plan of the quickstart"] = Command(plan_words(folder / "plan", "run.seed=0"))
            if given.runs:
                commands |= run_commands(folder, given.runs, cache)
            chosen = {name: command for name, command in commands.items() if (given.only or "") in name}
            found = measure(chosen, given.rounds, cache)
        print("\n".join(lines_of(found)))
        add_results(given.out, found)
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
