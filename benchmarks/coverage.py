"""How often a 95% interval of the compute gap covers the truth, in simulated sweeps whose truth is known.

    python -m benchmarks.coverage [--curve quadratic] [--sweeps 200] [--draws 500]

Losses come from Chinchilla-like surfaces L = E + A/N^alpha + B/D^beta with a floor E of 1.82 nats in both families,
five budgets by seven sizes (N*/4 to 4 N*), with noise of sd .003 and .01 nats, on grids centred on the true N* and off
by a factor e^.5, with budgets a factor 4 and 10 apart. Each sweep is fitted and bootstrapped as `analysis.report` does
it. The gap is read in the middle of the measured overlap, and for the power law also at ten times the ARM's largest
budget.

Four minutes on one core for each curve. It prints the table that docs/analysis.md quotes and writes it to
results/coverage.json, beside those of the other curves.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import bootstrap, compute_gap, fit_isoflop, middle_of_overlap, read_runs

E, ALPHA, BETA = 1.82, 0.348, 0.366
SCALES = {"arm": (478.0, 2143.0), "mdm": (478.0 * 2.4, 2143.0 * 2.75)}
FIRST_BUDGET = {"arm": 1e18, "mdm": 1e19}
STEPS, NOISES, OFFSETS = (4.0, 10.0), (0.003, 0.01), (0.0, 0.5)
BUDGETS, SIZES, SPAN = 5, 7, 4.0
LAWS = ("interpolated", "shared_floor", "power_law")
RESULTS = Path(__file__).parent / "results" / "coverage.json"


def best_size(family: str, c: np.ndarray) -> np.ndarray:
    a, b = SCALES[family]
    return (ALPHA * a / (BETA * b)) ** (1 / (ALPHA + BETA)) * (c / 6) ** (BETA / (ALPHA + BETA))


def loss(family: str, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    a, b = SCALES[family]
    return E + a / n**ALPHA + b / d**BETA


def best_loss(family: str, c: np.ndarray) -> np.ndarray:
    n = best_size(family, c)
    return loss(family, n, c / 6 / n)


def true_gap(at: float) -> float:
    """C_MDM / C_ARM at a loss: both frontiers are E + k C^s with the same s."""
    s = -ALPHA * BETA / (ALPHA + BETA)
    one = np.array(1.0)
    arm, mdm = (((at - E) / (best_loss(family, one) - E)) ** (1 / s) for family in ("arm", "mdm"))
    return float(mdm / arm)


def sweep(step: float, sd: float, off: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, int(1e4 * sd), int(10 * off), int(step)])
    tables = []
    for family, first in FIRST_BUDGET.items():
        budget = np.repeat(first * step ** np.arange(BUDGETS), SIZES)
        n = best_size(family, budget) * np.exp(off) * np.tile(SPAN ** np.linspace(-1, 1, SIZES), BUDGETS)
        losses = loss(family, n, budget / 6 / n) + sd * rng.standard_normal(len(n))
        tables.append(pd.DataFrame({"family": family, "params_non_embedding": n, "budget": budget, "loss": losses}))
    return read_runs(pd.concat(tables, ignore_index=True))


def covered(curve: str, step: float, sd: float, off: float, seed: int, draws: int) -> dict[str, tuple[bool, float]]:
    """By law: whether the interval holds the truth, and the log of its upper over its lower end."""
    fit = fit_isoflop(sweep(step, sd, off, seed), curve=curve)
    sampled = bootstrap(fit, n=draws, seed=seed)
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    middle = middle_of_overlap(arm, mdm)
    if middle is None:
        return {}
    beyond = float(best_loss("arm", 10 * arm.flops.max()))
    places = [(law, law, middle) for law in LAWS] + [("power_law_beyond", "power_law", beyond)]
    out = {}
    for name, law, at in places:
        gap = compute_gap(arm, mdm, law=law, grid=np.array([at]), draws=sampled)
        width = float(np.log(gap.upper[0] / gap.lower[0])) if gap.lower[0] > 0 else float("inf")
        out[name] = (bool(gap.lower[0] <= true_gap(at) <= gap.upper[0]), width)
    return out


def measure(curve: str, sweeps: int, draws: int) -> list[dict[str, float]]:
    cells = []
    for step in STEPS:
        for sd in NOISES:
            for off in OFFSETS:
                found = [told for seed in range(sweeps) if (told := covered(curve, step, sd, off, seed, draws))]
                cell: dict[str, float] = {"step": step, "noise_sd": sd, "off_centre": off, "sweeps": len(found)}
                for name in found[0]:
                    cell[name] = float(np.mean([told[name][0] for told in found]))
                    cell[f"{name}_width"] = float(np.median([told[name][1] for told in found]))
                cells.append(cell)
                print(line(cell), flush=True)
    return cells


def line(cell: dict[str, float]) -> str:
    """One row of the table: coverage, and in brackets the interval's median half width as a factor."""
    shares = [
        f"{cell[name]:.1%} (×{np.exp(cell[f'{name}_width'] / 2):.2f})"
        for name in ("interpolated", "shared_floor", "power_law", "power_law_beyond")
    ]
    fixed = [f"×{cell['step']:g}", f"{cell['noise_sd']:g}", "centred" if not cell["off_centre"] else "off by e^.5"]
    return "| " + " | ".join([*fixed, *shares]) + " |"


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description="Coverage of the gap's intervals.")
    made.add_argument("--curve", choices=("quadratic", "cubic"), default="quadratic", help="default: %(default)s")
    made.add_argument("--sweeps", type=int, default=200, help="a cell (default: %(default)s)")
    made.add_argument("--draws", type=int, default=500, help="of each bootstrap (default: %(default)s)")
    given = made.parse_args()
    head = ["budgets", "noise sd", "grid", "interpolated", "shared floor", "power law", "power law, 10 × beyond"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    began = time.perf_counter()
    cells = measure(given.curve, given.sweeps, given.draws)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[given.curve] = {"sweeps": given.sweeps, "draws": given.draws, "level": 0.95, "cells": cells}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.perf_counter() - began:.0f} s, written to {RESULTS.name}")


if __name__ == "__main__":
    main()
