"""How often a 95% interval of the compute gap includes the truth, in simulated sweeps whose truth is known.

    python -m benchmarks.coverage [--curves quadratic cubic] [--sweeps 200] [--draws 500] [--cells scatter]

Losses come from Chinchilla-like surfaces L = E + A/N^alpha + B/D^beta, with five budgets of seven sizes. A cell is one
kind of sweep. In the base cells both families have the same exponents and the same floor of 1.82 nats, so the "shared
floor" law is true. Sizes go from N*/4 to 4 N*, around the true N* or around e^.5 times N*. The noise has an sd of .003
or .01 nats. Neighbouring budgets differ by a factor of 4 or 10. Every other cell changes one thing:

* unlike: the MDM has other exponents and a floor of 2.05, so only the law `own_floors` is true. With budgets a factor
  of 10 apart, the gap falls from 600 to 170 over the overlap.
* Monte Carlo: the MDM's losses have additional errors of .002 and .008 nats, which `loss_se_mc` gives.
* narrow: sizes go from N*/2.2 to 2.2 N* at a noise of .02 nats, so that some draws have no minimum at some budgets.
* akima: that curve is fitted in place of the chosen one, with the true noise as input.
* scatter: all losses of a budget move together, by a normal with an sd of .003 or .01 nats, with 4, 5, 8 or 10 budgets,
  or only the MDM's.
* bend: the ARM's loss bends by .2 nats, over a factor of 80 in FLOPs, in the middle of ten budgets.

Each sweep is fitted and bootstrapped as in `analysis.report`. The interpolated gap is read at 5, 25, 50, 75 and 95% of
the measured overlap. The laws' gap is read in the middle, and the power law's also at ten times the ARM's largest
budget. The middle is also read from draws that ignore the scatter between budgets.

The program takes eight minutes of one idle core for each curve. It prints the tables, and writes them into
results/coverage.json and docs/analysis.md.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import bootstrap, compute_gap, fit_isoflop, overlap, read_runs

FAMILIES = ("arm", "mdm")
FIRST_BUDGET = {"arm": 1e18, "mdm": 1e19}
SIZES = 7
BEND_WIDTH = 2.2
"""Width of a bend in the log of FLOPs."""
POSITIONS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
"""The places where the gap is read, as shares of the overlap of log losses from the lowest loss."""
MIDDLE = 2
"""Index of the middle in `POSITIONS`."""
LAWS = ("shared_floor", "power_law")
BEYOND = 10.0
"""Times the ARM's largest budget, where the power law is read."""
MONTE_CARLO = np.array([0.002, 0.008])
"""Standard errors of the MDM's losses, nats per token."""
CURVES = ("quadratic", "cubic")
INTERPOLATED = ("middle, scatter ignored", "interpolated, middle", "least of five places")
HEAD = ("budgets", "noise sd", "cell", "sweeps", *INTERPOLATED, "shared floor", "power law", "power law, 10 × beyond")
RESULTS = Path(__file__).parent / "results" / "coverage.json"
DOCS = Path(__file__).parents[1] / "docs" / "analysis.md"


@dataclass(frozen=True)
class Surface:
    """L = E + A/N^alpha + B/D^beta, nats per token."""

    E: float = 1.82
    A: float = 478.0
    B: float = 2143.0
    alpha: float = 0.348
    beta: float = 0.366
    bend: float = 0.0
    """Half the height of a bend in the loss, nats."""
    bend_at: float = 5e20
    """FLOPs in the middle of the bend."""

    def loss(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Nats per token of n parameters after d tokens."""
        smooth = self.E + self.A / n**self.alpha + self.B / d**self.beta
        return smooth - self.bend * np.tanh(np.log(6 * n * d / self.bend_at) / BEND_WIDTH)

    def best_size(self, c: np.ndarray) -> np.ndarray:
        """N* at C = 6 N D."""
        total = self.alpha + self.beta
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / total) * (c / 6) ** (self.beta / total)

    def best_loss(self, c: np.ndarray) -> np.ndarray:
        """Nats per token at N*."""
        n = self.best_size(c)
        return self.loss(n, c / 6 / n)

    def flops(self, loss: np.ndarray) -> np.ndarray:
        """FLOPs that reach a loss, on the frontier E + k C^s; inf for a loss of at most E."""
        if self.bend:
            log_c = np.linspace(np.log(1e15), np.log(1e27), 100_001)
            return np.exp(np.interp(-loss, -self.best_loss(np.exp(log_c)), log_c))
        s = -self.alpha * self.beta / (self.alpha + self.beta)
        above = np.where(loss > self.E, loss - self.E, np.nan) / (self.best_loss(np.array(1.0)) - self.E)
        return np.nan_to_num(above ** (1 / s), nan=np.inf)


ARM = Surface()
ALIKE = replace(ARM, A=2.4 * ARM.A, B=2.75 * ARM.B)
BENT = replace(ARM, bend=0.1)
UNLIKE = Surface(E=2.05, A=2.4 * ARM.A, B=3.5 * ARM.B, alpha=0.36, beta=0.38)


@dataclass(frozen=True)
class Cell:
    """One kind of simulated sweep."""

    step: float
    """Ratio of neighbouring budgets."""
    noise_sd: float
    off_centre: float = 0.0
    """Log of the ratio of the middle size to N*."""
    name: str = ""
    arm: Surface = ARM
    mdm: Surface = ALIKE
    span: float = 4.0
    """Sizes lie within this factor of the middle one."""
    monte_carlo: bool = False
    curve: str = ""
    budgets: int = 5
    scatter: float = 0.0
    """Sd of the common error of all losses of a budget, nats."""
    scattering: tuple[str, ...] = FAMILIES

    @property
    def title(self) -> str:
        """The cell's name in the table."""
        return self.name or ("off by e^.5" if self.off_centre else "centred")

    def true_gap(self, loss: np.ndarray) -> np.ndarray:
        """C_MDM / C_ARM."""
        return self.mdm.flops(loss) / self.arm.flops(loss)


CELLS = (
    *(Cell(step, sd, off) for step in (4.0, 10.0) for sd in (0.003, 0.01) for off in (0.0, 0.5)),
    Cell(4.0, 0.003, name="unlike", mdm=UNLIKE),
    Cell(10.0, 0.003, name="unlike", mdm=UNLIKE),
    Cell(4.0, 0.003, name="Monte Carlo", monte_carlo=True),
    Cell(4.0, 0.02, name="narrow", span=2.2),
    Cell(4.0, 0.01, name="akima", curve="akima"),
    Cell(4.0, 0.003, name="scatter .003", scatter=0.003),
    Cell(4.0, 0.003, name="scatter .01", scatter=0.01),
    Cell(4.0, 0.003, name="scatter .01 of the MDM", scatter=0.01, scattering=("mdm",)),
    Cell(4.0, 0.003, name="4 budgets", budgets=4),
    Cell(4.0, 0.003, name="4 budgets, scatter .01", budgets=4, scatter=0.01),
    Cell(4.0, 0.003, name="8 budgets, scatter .01", budgets=8, scatter=0.01),
    Cell(4.0, 0.003, name="10 budgets", budgets=10),
    Cell(4.0, 0.003, name="10 budgets, bend", budgets=10, arm=BENT),
    Cell(4.0, 0.003, name="10 budgets, bend, scatter .003", budgets=10, arm=BENT, scatter=0.003),
    Cell(4.0, 0.003, name="10 budgets, bend, scatter .01", budgets=10, arm=BENT, scatter=0.01),
    Cell(4.0, 0.003, name="10 budgets, scatter .01", budgets=10, scatter=0.01),
)


def design(cell: Cell) -> pd.DataFrame:
    """The cell's runs with their true losses."""
    tables = []
    for family, surface in zip(FAMILIES, (cell.arm, cell.mdm), strict=True):
        budget = np.repeat(FIRST_BUDGET[family] * cell.step ** np.arange(cell.budgets), SIZES)
        spread = np.tile(cell.span ** np.linspace(-1, 1, SIZES), cell.budgets)
        n = surface.best_size(budget) * np.exp(cell.off_centre) * spread
        known = np.resize(MONTE_CARLO, len(n)) if cell.monte_carlo and family == "mdm" else np.zeros(len(n))
        runs = {"family": family, "params_non_embedding": n, "budget": budget, "loss_se_mc": known}
        tables.append(pd.DataFrame(runs | {"loss": surface.loss(n, budget / 6 / n)}))
    return read_runs(pd.concat(tables, ignore_index=True))


def sweep(cell: Cell, runs: pd.DataFrame, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, int(1e4 * cell.noise_sd), int(10 * cell.off_centre), int(cell.step)])
    sd = np.hypot(cell.noise_sd, runs["loss_se_mc"].to_numpy(np.float64))
    losses = runs["loss"] + sd * rng.standard_normal(len(runs))
    moves = cell.scatter * rng.standard_normal((len(FAMILIES), cell.budgets))
    for family, own in zip(FAMILIES, moves, strict=True):
        if family in cell.scattering:
            losses[runs["family"] == family] += np.repeat(own, SIZES)
    return runs.assign(loss=losses)


def covered(cell: Cell, runs: pd.DataFrame, curve: str, seed: int, draws: int) -> dict[str, tuple[bool, float]]:
    """Whether the interval includes the truth, and the log of its upper over its lower end, by place."""
    noise_sd = cell.noise_sd if cell.curve else None
    fit = fit_isoflop(sweep(cell, runs, seed), curve=cell.curve or curve, noise_sd=noise_sd)
    sampled = bootstrap(fit, n=draws, seed=seed)
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    shared = overlap(arm, mdm)
    if shared is None:
        return {}
    low, high = np.log(shared)
    losses = np.exp(low + (high - low) * POSITIONS)
    beyond = cell.arm.best_loss(np.array([BEYOND * arm.flops.max()]))
    ignoring = bootstrap(replace(fit, recipe=replace(fit.recipe, scatter="ignore")), n=draws, seed=seed)
    places = [("interpolated", "interpolated", losses, sampled), ("power_law_beyond", "power_law", beyond, sampled)]
    places += [(law, law, losses[[MIDDLE]], sampled) for law in LAWS]
    places += [("ignoring_scatter", "interpolated", losses[[MIDDLE]], ignoring)]
    out = {}
    for name, law, at, drawn in places:
        gap = compute_gap(arm, mdm, law=law, grid=at, draws=drawn)
        included = (gap.lower <= cell.true_gap(at)) & (cell.true_gap(at) <= gap.upper)
        with np.errstate(divide="ignore"):
            width = np.log(gap.upper) - np.log(gap.lower)
        for i in range(len(at)):
            where = f"{name}_{POSITIONS[i]:.0%}" if len(at) > 1 else name
            out[where] = (bool(included[i]), float(width[i]))
    return out


def measure(cell: Cell, curve: str, sweeps: int, draws: int) -> dict[str, float | str]:
    runs = design(cell)
    found = [results for seed in range(sweeps) if (results := covered(cell, runs, curve, seed, draws))]
    row: dict[str, float | str] = {"step": cell.step, "noise_sd": cell.noise_sd, "cell": cell.title}
    row["sweeps"] = len(found)
    for name in found[0]:
        row[name] = float(np.mean([results[name][0] for results in found]))
        row[f"{name}_width"] = float(np.median([results[name][1] for results in found]))
    return row


def line(row: dict[str, float | str]) -> str:
    """One row of the table: coverage, and in brackets the interval's median half width as a factor."""
    shown = [f"×{row['step']:g}", f"{row['noise_sd']:g}", str(row["cell"]), str(row["sweeps"])]
    for name in ("ignoring_scatter", "interpolated_50%", *LAWS, "power_law_beyond"):
        known = name in row
        shown.append(f"{row[name]:.1%} (×{np.exp(float(row[f'{name}_width']) / 2):.2f})" if known else "–")
    places = {f"{position:.0%}": float(row[f"interpolated_{position:.0%}"]) for position in POSITIONS}
    least = min(places, key=lambda place: places[place])
    shown.insert(6, f"{places[least]:.1%} at {least}")
    return "| " + " | ".join(shown) + " |"


def _key(row: dict[str, float | str]) -> tuple[float | str, ...]:
    return row["step"], row["noise_sd"], row["cell"]


def table(cells: list[dict[str, float | str]]) -> list[str]:
    """The lines of a curve's table in docs/analysis.md."""
    return ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *(line(row) for row in cells)]


def with_table(page: str, curve: str, lines: list[str]) -> str:
    """The page with these lines in place of the table below "Curves: <curve>"."""
    before, heading, after = page.partition(f"Curves: {curve}")
    start = after.index("\n|") + 1
    return before + heading + after[:start] + "\n".join(lines) + after[after.index("\n\n", start) :]


def keep(curve: str, row: dict[str, float | str]) -> None:
    """Writes the row into the results and the docs, in the order of `CELLS`. So an interruption loses only one cell."""
    found = json.loads(RESULTS.read_text())
    rows = {_key(old): old for old in found[curve]["cells"]} | {_key(row): row}
    order = [(float(cell.step), float(cell.noise_sd), cell.title) for cell in CELLS]
    cells = [rows[key] for key in order if key in rows]
    found[curve] = {"level": 0.95, "cells": cells}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    DOCS.write_text(with_table(DOCS.read_text(), curve, table(cells)))


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description="Coverage of the gap's intervals.")
    made.add_argument("--curves", choices=CURVES, nargs="+", default=CURVES, help="default: both")
    made.add_argument("--sweeps", type=int, default=200, help="simulated sweeps of each cell (default: %(default)s)")
    made.add_argument("--draws", type=int, default=500, help="draws of each bootstrap (default: %(default)s)")
    made.add_argument("--cells", default="", metavar="TEXT", help="only cells with this text in their name")
    given = made.parse_args()
    began = time.process_time()
    for curve in given.curves:
        for cell in (cell for cell in CELLS if given.cells in cell.title):
            row = measure(cell, curve, given.sweeps, given.draws) | {"draws": given.draws}
            print(f"{curve} {line(row)}", flush=True)
            keep(curve, row)
    print(f"{time.process_time() - began:.0f} s of one core, written to {RESULTS.name} and {DOCS.name}")


if __name__ == "__main__":
    main()
