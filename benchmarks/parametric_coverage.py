"""How often a 95% interval of the parametric gap includes the truth, by what the bootstrap resamples.

    python -m benchmarks.parametric_coverage [--sweeps 150] [--draws 512]

The simulated sweeps are the base cells of benchmarks/coverage.py. The fitted form is the true one, so only the interval
itself can make the coverage differ from 95%. The gap is read in the middle of the measured overlap and at ten times the
ARM's largest budget.

The program takes about ten minutes of one idle core. It prints the table that docs/analysis.md quotes (the lowest and
the highest of the eight cells), and writes every cell to results/parametric_coverage.json.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import bootstrap_parametric, fit_isoflop, fit_parametric, middle_of_overlap
from analysis.gap.curve import percentile_interval
from benchmarks.coverage import ARM, BEYOND, CELLS, Cell, design, sweep

BASE = tuple(cell for cell in CELLS if not cell.name)
UNITS = ("run", "noise", "budget")
PLACES = ("middle", "beyond")
RESULTS = Path(__file__).parent / "results" / "parametric_coverage.json"


def covered(cell: Cell, noiseless: pd.DataFrame, seed: int, draws: int) -> dict[str, list[tuple[bool, float]]]:
    """Whether the interval includes the truth, and the log of its upper over its lower end, by unit and place."""
    runs = sweep(cell, noiseless, seed)
    isoflop = fit_isoflop(runs, curve="cubic")
    arm = isoflop.frontier("arm")
    middle = middle_of_overlap(arm, isoflop.frontier("mdm"))
    fits = [fit_parametric(runs, family=family) for family in ("arm", "mdm")]
    if middle is None or not all(fit.converged for fit in fits):
        return {}
    where = np.array([middle, float(ARM.best_loss(BEYOND * arm.flops.max(keepdims=True))[0])])
    truth = np.log(cell.true_gap(where))
    out = {}
    for unit in UNITS:
        sides = [bootstrap_parametric(fit, unit, draws, seed) for fit in fits]
        log_arm, log_mdm = (side.frontier().log_flops(np.log(where)) for side in sides)
        lower, upper, _ = percentile_interval(log_mdm - log_arm, 0.95)
        with np.errstate(divide="ignore"):
            ends = np.log(np.stack([lower, upper]))
        out[unit] = [(bool(ends[0, i] <= truth[i] <= ends[1, i]), float(ends[1, i] - ends[0, i])) for i in (0, 1)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=150, help="simulated sweeps a cell (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=512, help="bootstrap draws a sweep (default: %(default)s)")
    given = parser.parse_args()
    began, cells = time.monotonic(), []
    for cell in BASE:
        runs = design(cell)
        found = [covered(cell, runs, seed, given.draws) for seed in range(given.sweeps)]
        found = [one for one in found if one]
        for unit, place in itertools.product(UNITS, range(2)):
            own = [one[unit][place] for one in found]
            row = {"step": cell.step, "noise_sd": cell.noise_sd, "off_centre": cell.off_centre, "sweeps": len(found)}
            row |= {"unit": unit, "place": PLACES[place], "coverage": float(np.mean([hit for hit, _ in own]))}
            cells.append(row | {"half_width": float(np.exp(np.median([width for _, width in own]) / 2))})
        print(
            f"×{cell.step:g}, sd {cell.noise_sd}, {cell.title}: {len(found)} sweeps, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    print("\n| resampled | in the middle of the overlap | 10 × beyond the ARM's largest budget |\n|---|---|---|")
    for unit in UNITS:
        said = []
        for place in PLACES:
            own = [row for row in cells if (row["unit"], row["place"]) == (unit, place)]
            low, high = (pick(row["coverage"] for row in own) for pick in (min, max))
            thin, wide = (pick(row["half_width"] for row in own) for pick in (min, max))
            said.append(f"{low:.1%} to {high:.1%} (×{thin:.2f} to ×{wide:.2f})")
        print(f"| {unit} | {' | '.join(said)} |")
    RESULTS.write_text(json.dumps({"draws": given.draws, "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
