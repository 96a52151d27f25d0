"""Sweeps of real plans in which a loss surface stands in for the training, and what simulation says of their gap."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from synthetic_sweeps import ARM as LARGE_ARM

from analysis import read_runs
from isoflop.grid import make_grid
from isoflop.ladder import tiny_sizes
from isoflop.place.sizes import choose_sizes
from isoflop.refine.evidence import Evidence, evidence_of
from isoflop.refine.propose import Refinement, refine
from isoflop.refine.rungs import non_embedding, size_of
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.files.results import RunResult, Status, result_of
from mdm_jax.spec import Family, HardwareSpec, RunSpec

ARM = dataclasses.replace(LARGE_ARM, A=LARGE_ARM.A / 10, B=LARGE_ARM.B / 10)
MDM = dataclasses.replace(ARM, A=ARM.A * 1.6, B=ARM.B * 1.6)
"""The same optima, losses of 3 to 6 nats at the budgets of tiny models, and a gap of 14."""
SURFACES = {Family.ARM: ARM, Family.MDM: MDM}
GRID = {family: tuple(first * 5.0**i for i in range(3)) for family, first in ((Family.ARM, 1e11), (Family.MDM, 1e12))}
SD = 0.02
TINY = {size.name: non_embedding(size) for size in tiny_sizes()}


def grid(
    budgets: Mapping[Family, Sequence[float]], off: Mapping[tuple[Family, float], float] | None = None
) -> tuple[RunSpec, ...]:
    """A plan of seven sizes a curve, around N* times e^off."""
    curves = []
    for family, own in budgets.items():
        for budget in own:
            around = float(SURFACES[family].n_opt(budget)) * math.exp((off or {}).get((family, budget), 0.0))
            curves.append(CurveSpec(family, budget, choose_sizes(TINY, around, 4.0, 7)))
    return make_grid(RunSpec(), SweepSpec(curves=tuple(curves), recipe="tiny"), HardwareSpec())


def loss_of(run: RunSpec, sd: float) -> float:
    """The surface's loss, with an error that depends on the run alone."""
    rng = np.random.default_rng(int(run.spec_hash[:12], 16))
    surface = SURFACES[run.family]
    return float(surface.loss(non_embedding(size_of(run)), run.train_tokens) + sd * rng.standard_normal())


@functools.cache
def result(run: RunSpec, sd: float) -> RunResult:
    """What the imitated run leaves."""
    return result_of(run, Status.OK, loss=loss_of(run, sd), loss_se_mc=0.0, wall_seconds=10.0)


class Sweep:
    """A sweep in memory: its plan, and the rows of the runs that the surface has stood in for."""

    def __init__(self, plan: Sequence[RunSpec], sd: float = SD) -> None:
        self.plan, self.sd = list(plan), sd
        self.rows: dict[str, dict[str, Any]] = {}
        self.run()

    def run(self) -> None:
        """Finishes every planned run."""
        for run in self.plan:
            row = result(run, self.sd)
            self.rows.setdefault(row.run_id, dataclasses.asdict(row))

    def accept(self, runs: Sequence[RunSpec]) -> None:
        self.plan += runs
        for run in runs:
            row = dataclasses.asdict(result(run, self.sd))
            assert row["run_id"] not in self.rows
            self.rows[row["run_id"]] = row | {"status": "missing", "loss": None}

    def finish(self) -> None:
        """Finishes the runs that were accepted."""
        for run in self.plan:
            row = dataclasses.asdict(result(run, self.sd))
            if self.rows[row["run_id"]]["status"] == "missing":
                self.rows[row["run_id"]] = row

    def diverge(self, run: RunSpec) -> None:
        self.rows[result(run, self.sd).run_id] |= {"status": "diverged", "loss": None}

    @property
    def evidence(self) -> Evidence:
        return evidence_of(self.plan, read_runs(pd.DataFrame(list(self.rows.values()))))

    def proposed(self, **limits: Any) -> Refinement:
        return refine(self.evidence, **limits)


def status(evidence: Evidence, family: Family, budget: float) -> str:
    (found,) = (m for m in evidence.minima if m.family is family and math.isclose(m.budget, budget))
    return found.status


def gap_variance(
    runs: Sequence[tuple[str, float, float]], loss: float, truth: Callable[[str, float, float], float], draws: int
) -> float:
    """Variance of the log gap over simulated sweeps, by other means than the package's: lstsq and scipy's PCHIP.

    Args:
        runs: family, budget and N of each.
        loss: where the gap is read.
        truth: the loss of a run.
        draws: simulated sweeps.
    """
    rng = np.random.default_rng(7)
    flops: dict[str, list[np.ndarray]] = {}
    losses: dict[str, list[np.ndarray]] = {}
    for family, budget in sorted({(f, b) for f, b, _ in runs}):
        n = np.array([size for f, b, size in runs if (f, b) == (family, budget)])
        u = np.log(n) - np.log(n).mean()
        y = np.array([truth(family, budget, size) for size in n])[:, None] + SD * rng.standard_normal((len(n), draws))
        c0, c1, c2 = np.linalg.lstsq(np.stack([np.ones_like(u), u, u**2], axis=1), y, rcond=None)[0]
        losses.setdefault(family, []).append(np.log(c0 - c1**2 / (4 * c2)))
        flops.setdefault(family, []).append(np.full(draws, math.log(budget)))
    read = {}
    for family in ("arm", "mdm"):
        x, y = np.stack(losses[family], axis=1), np.stack(flops[family], axis=1)
        order = np.argsort(x, axis=1)
        pairs = zip(np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1), strict=True)
        read[family] = np.array([PchipInterpolator(a, b)(math.log(loss)) for a, b in pairs])
    return float(np.var(read["mdm"] - read["arm"]))
