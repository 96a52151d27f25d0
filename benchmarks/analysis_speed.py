"""Seconds and memory of the analysis: the bootstrap of an IsoFLOP fit on many runs, and the report of a large sweep.

    python -m benchmarks.analysis_speed [--rows 1000 10000 100000] [--runs 2000] [--repeats 3]

The program takes about two minutes on two cores. Its result stands in benchmarks/results/analysis_speed.json, by the
machine's name. Each measurement is a fresh process, and the repeats go round, so that the machine's other work meets
all of them. A row has medians: seconds of the clock, seconds of the processors, and the peak of the memory.

The bootstrap has the default number of draws, on a table of two families with ten budgets each; `read` and `fit` are
what comes before it. The report is `python -m analysis.report` on a sweep's folder with a plan, a `spec.json` and a
`result.json` for each run: two families, ten budgets, seven sizes, and several seeds. Losses follow a surface and have
errors. `benchmarks/fit_speed.py` times the bootstrap of parametric fits. This file is not called `analysis.py`, because
it would hide the package of that name from the benchmarks that are started as files.
"""

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import add_results, peak_bytes
from isoflop.grid import make_grid
from isoflop.ladder import tiny_sizes
from isoflop.place.sizes import choose_sizes
from isoflop.planfile import write_plan
from isoflop.refine.rungs import non_embedding
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.command import DONE, aligned, exit_code, new_parser
from mdm_jax.files.layout import RESULT_FILE, RUNS_FOLDER, SPEC_FILE
from mdm_jax.files.results import Status, result_of, write_result
from mdm_jax.files.storage import make_folder
from mdm_jax.spec import Family, HardwareSpec, RunSpec, to_json
from mdm_jax.spec.validation import require

RESULT = Path(__file__).resolve().parent / "results" / "analysis_speed.json"
FLOOR, A, B, ALPHA, BETA = 1.0, 48.0, 214.0, 0.348, 0.366
"""The ARM's loss is FLOOR + A / N^ALPHA + B / D^BETA."""
WORSE = {Family.ARM: 1.0, Family.MDM: 1.6}
"""Factor of A and B of each family."""
FIRST_BUDGET = {Family.ARM: 1e11, Family.MDM: 4e11}
BUDGETS, SIZES, STEP, NOISE = 10, 7, 2.0, 0.003


def loss(family: Family, n: Any, d: Any) -> Any:
    """Nats per token of a model with n parameters after d tokens."""
    return FLOOR + WORSE[family] * (A / n**ALPHA + B / d**BETA)


def best_size(budget: float) -> float:
    """The number of parameters with the lowest loss at a budget of 6 N D, the same for both families."""
    scale = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    return scale * (budget / 6) ** (BETA / (ALPHA + BETA))


def budgets(family: Family) -> list[float]:
    """FLOPs of a family's curves."""
    return [FIRST_BUDGET[family] * STEP**i for i in range(BUDGETS)]


def table(rows: int) -> dict[str, np.ndarray]:
    """The columns of a run table with so many rows, evenly over both families and their budgets.

    Raises:
        ValueError: the rows cannot be even over these.
    """
    require(rows > 0 and rows % (2 * BUDGETS) == 0, "--rows", rows, f"a multiple of {2 * BUDGETS}")
    rng, each, parts = np.random.default_rng(0), rows // (2 * BUDGETS), []
    for family in Family:
        for budget in budgets(family):
            n = best_size(budget) * np.exp(rng.uniform(-math.log(4), math.log(4), each))
            d = budget / 6 / n
            losses = loss(family, n, d) + NOISE * rng.standard_normal(each)
            seeds = np.arange(each, dtype=np.float64)
            parts.append((np.full(each, family.value), np.full(each, budget), n, d, losses, seeds))
    names = ("family", "budget", "params_non_embedding", "tokens", "loss", "seed")
    return {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}


def write_sweep(folder: Path, count: int) -> None:
    """Writes the plan of a sweep with so many finished runs, and the `spec.json` and `result.json` of each."""
    sizes = {size.name: non_embedding(size) for size in tiny_sizes()}
    curves = [
        CurveSpec(family, budget, choose_sizes(sizes, best_size(budget), 4.0, SIZES))
        for family in Family
        for budget in budgets(family)
    ]
    seeds = tuple(range(-(-count // (len(curves) * SIZES))))
    runs = make_grid(RunSpec(), SweepSpec(curves=tuple(curves), recipe="tiny", seeds=seeds), HardwareSpec())
    runs, rng = sorted(runs, key=lambda run: run.seed)[:count], np.random.default_rng(0)
    write_plan(folder, runs)
    for run in runs:
        row = result_of(run, Status.OK, loss_se_mc=0.0, wall_seconds=10.0)
        losses = loss(run.family, row.params_non_embedding, row.tokens) + NOISE * rng.standard_normal()
        own = folder / RUNS_FOLDER / run.run_id
        make_folder(own)
        (own / SPEC_FILE).write_text(to_json(run) + "\n")
        write_result(own / RESULT_FILE, dataclasses.replace(row, loss=float(losses)))


def measured(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The seconds of the work, by its parts and in sum, and the peak of this process's memory."""
    begin = time.perf_counter(), time.process_time()
    parts = work()
    seconds = {"seconds": time.perf_counter() - begin[0], "cpu_seconds": time.process_time() - begin[1]}
    return {**parts, **seconds, "peak_bytes": float(peak_bytes())}


def bootstrap_of(rows: int) -> dict[str, float]:
    """Seconds of reading, fitting and redrawing a table with so many rows."""
    import pandas as pd

    from analysis import bootstrap, fit_isoflop, read_runs

    frame = pd.DataFrame(table(rows))
    at = [time.perf_counter()]
    runs = read_runs(frame)
    at.append(time.perf_counter())
    fit = fit_isoflop(runs)
    at.append(time.perf_counter())
    bootstrap(fit)
    at.append(time.perf_counter())
    return dict(zip(("read", "fit", "bootstrap"), np.diff(at).tolist(), strict=True))


def report_of(folder: str) -> dict[str, float]:
    """Makes the report of a sweep. It has no parts: its seconds are those of the whole work."""
    from analysis.report.__main__ import main as report

    with tempfile.TemporaryDirectory() as out:
        assert report([folder, "--out", out]) == DONE
    return {}


def fresh(*words: str) -> dict[str, float]:
    """What a fresh process measures.

    Raises:
        ValueError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.analysis_speed", "--measure", *words]
    done = subprocess.run(command, cwd=RESULT.parents[2], stdout=subprocess.PIPE, text=True)
    if done.returncode != DONE:
        raise ValueError(f"--measure {' '.join(words)}: exit {done.returncode}; see its error above")
    return json.loads(done.stdout.splitlines()[-1])


def measure(rows: Sequence[int], runs: int, repeats: int) -> dict[str, dict[str, float]]:
    """The medians by what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        work = {f"bootstrap of {n} rows": ("bootstrap", str(n)) for n in rows}
        if runs:
            write_sweep(Path(folder), runs)
            work[f"report of {runs} runs"] = ("report", folder)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in work}
        for _ in range(repeats):
            for name, words in work.items():
                found[name].append(fresh(*words))
    medians = {}
    for name, each in found.items():
        medians[name] = {key: statistics.median(one[key] for one in each) for key in each[0]}
    return medians


def lines_of(found: dict[str, dict[str, float]]) -> list[str]:
    """The table of a measurement."""
    rows = [["", "read", "fit", "bootstrap", "seconds", "of processors", "memory, GB"]]
    for name, one in found.items():
        times = [one.get(part) for part in ("read", "fit", "bootstrap", "seconds", "cpu_seconds")]
        rows.append([name, *("" if t is None else f"{t:.2f}" for t in times), f"{one['peak_bytes'] / 1e9:.2f}"])
    return aligned(rows, {""})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("benchmarks.analysis_speed", __doc__)
    add = flags.add_argument
    add(
        "--rows", type=int, nargs="*", default=[1000, 10_000, 100_000], metavar="N", help="rows of tables (%(default)s)"
    )
    add("--runs", type=int, default=2000, metavar="N", help="runs of the report's sweep, or 0 (%(default)s)")
    add("--repeats", type=int, default=3, help="fresh processes for each median (%(default)s)")
    add("--out", type=Path, default=RESULT, help="JSON file to write (%(default)s)")
    add("--measure", nargs=2, metavar=("WHAT", "OF"), help="measure in this process: bootstrap ROWS, or report DIR")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the file. Exit code: 0 done, 1 an error (one line says which)."""
    given = parser().parse_args(argv)

    def work() -> int:
        if given.measure:
            what, of = given.measure
            part = (lambda: bootstrap_of(int(of))) if what == "bootstrap" else (lambda: report_of(of))
            print(json.dumps(measured(part)))
            return DONE
        found = measure(given.rows, given.runs, given.repeats)
        print("\n".join(lines_of(found)))
        add_results(given.out, found)
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
