"""Evidence: the results of a sweep so far, as minima, laws, the gap at one loss, and the state of each run.

No other file of the planner uses the analysis. It is loaded only when evidence is read.
"""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoflop.place.prior import FamilyPrior, Law
from isoflop.planfile import read_plan
from mdm_jax.files.results import Status
from mdm_jax.spec import Family, FlopConvention, RunSpec
from mdm_jax.spec.validation import require

if TYPE_CHECKING:
    from analysis.minima.information import Knowledge
else:
    Knowledge = Any

OK, EDGE, NO_MINIMUM, TOO_FEW = "ok", "edge", "no_minimum", "too_few"
CURVES = ("quadratic", "cubic")
FINAL = (Status.OK, Status.DIVERGED, Status.FAILED)


@dataclass(frozen=True)
class Minimum:
    """The minimum of one budget of one family, fitted to its runs."""

    family: Family
    budget: float
    status: str
    reason: str
    runs: int
    """The number of usable runs."""
    n_sizes: int
    n_low: float
    """Non-embedding parameters of the smallest size with a result."""
    n_high: float
    n_opt: float
    """nan if there is none. Outside the sizes it is an extrapolation of the parabola."""
    n_best: float
    """The size with the lowest loss."""
    loss: float


@dataclass(frozen=True)
class Evidence:
    """A sweep's plan and its results."""

    plan: tuple[RunSpec, ...]
    """The runs of the chosen group."""
    usable: tuple[RunSpec, ...]
    """Runs whose results are fitted."""
    unfinished: tuple[RunSpec, ...]
    """Runs without a result yet."""
    diverged: tuple[RunSpec, ...]
    failed: tuple[RunSpec, ...]
    timed: tuple[tuple[RunSpec, float], ...]
    """Runs with their measured wall seconds."""
    convention: FlopConvention
    """The convention of the budgets, and of the gap."""
    minima: tuple[Minimum, ...]
    laws: Mapping[Family, FamilyPrior]
    """Fitted to the usable minima, for families with at least two."""
    loss: float
    """Nats per token at which the gap is read; nan without a gap."""
    ratio: float
    """The gap there."""
    interval: tuple[float, float]
    """The gap's 95% bootstrap interval, as a report of these runs prints it; nan if the noise is unknown."""
    knowledge: Knowledge

    def gap_factor(self, known: Knowledge) -> float:
        """Half width of the gap's interval, as a factor, after the runs that `known` includes.

        The interval of the present runs is bootstrapped. The effect of further runs is linearised.
        """
        linear = math.log(self.knowledge.gap_factor())
        drawn = math.log(self.interval[1] / self.interval[0]) / 2 if self.interval[0] > 0 else math.nan
        scale = drawn / linear if math.isfinite(drawn) and linear > 0 else 1.0
        return math.exp(scale * math.log(known.gap_factor()))

    def usable_minima(self, family: Family) -> list[Minimum]:
        """Minima that laws and the gap use, by rising budget."""
        return [m for m in self.minima if m.family is family and m.status == OK]


def read_evidence(
    directory: str | os.PathLike[str], where: Sequence[str] = (), curve: str = "quadratic", loss: float | None = None
) -> Evidence:
    """The evidence in a sweep's directory.

    Args:
        directory: the sweep's, with `plan.jsonl` and `runs/`.
        where: conditions COLUMN=VALUE on the run table, such as group=exact.
        curve: one of `CURVES`, fitted to the loss in log N.
        loss: nats per token at which the gap is read; by default the middle of what both families reached.

    Raises:
        ValueError: no plan, no result yet, several groups or conventions, results of a newer schema, or a loss at
            which no gap can be read; one line says what to do.
    """
    from analysis import read_runs
    from analysis.runs.sweep_folder import MISSING

    plan = read_plan(directory)
    table = read_runs(directory, where=tuple(where))
    if set(table["status"]) == {MISSING}:
        run_them = f"python -m isoflop.run {shlex.quote(str(directory))}"
        raise ValueError(f"{directory}: none of its {len(table)} runs has a result: {run_them}")
    return evidence_of(plan, table, curve, loss)


def evidence_of(plan: Sequence[RunSpec], table: Any, curve: str = "quadratic", loss: float | None = None) -> Evidence:
    """The evidence in a run table on a plan.

    Args:
        plan: the plan's runs. Runs that the table lacks are ignored.
        table: from `analysis.read_runs`.
        curve: one of `CURVES`, fitted to the loss in log N.
        loss: nats per token at which the gap is read; by default the middle of what both families reached.

    Raises:
        ValueError: see `read_evidence`.
    """
    from analysis import fit_isoflop
    from analysis.minima.information import knowledge
    from analysis.runs.load import records, usable_runs

    require(curve in CURVES, "--curve", curve, f"one of {', '.join(CURVES)}")
    planned = {run.run_id: run for run in plan}
    rows = {str(row["run_id"]): row for row in records(table) if row["run_id"] in planned}
    require(bool(rows), "plan", f"{len(planned)} runs", "of the runs that --where chooses")
    fit = fit_isoflop(table, curve=curve)
    used = set(usable_runs(fit.runs)["run_id"])

    def runs_with(*statuses: Status) -> tuple[RunSpec, ...]:
        return tuple(planned[name] for name, row in rows.items() if row["status"] in statuses)

    chosen = tuple(planned[name] for name in rows)
    convention = _convention(chosen)
    known = knowledge(fit, _loss_of_gap(fit, convention.value, loss), convention.value)
    return Evidence(
        plan=chosen,
        usable=tuple(planned[name] for name in rows if name in used),
        unfinished=tuple(planned[name] for name, row in rows.items() if row["status"] not in FINAL),
        diverged=runs_with(Status.DIVERGED),
        failed=runs_with(Status.FAILED),
        timed=tuple(
            (planned[name], float(row["wall_seconds"])) for name, row in rows.items() if row["wall_seconds"] > 0
        ),
        convention=convention,
        minima=_minima(fit),
        laws=_laws(fit, convention.value),
        loss=known.loss,
        ratio=known.ratio,
        interval=_interval(fit, convention.value, known.loss),
        knowledge=known,
    )


def _interval(fit: Any, convention: str, loss: float) -> tuple[float, float]:
    """The bootstrap interval of the gap at a loss (nats per token), with the method and draws of a report."""
    import numpy as np

    from analysis import bootstrap, compute_gap

    if math.isnan(loss):
        return math.nan, math.nan
    sides = fit.frontier("arm", convention), fit.frontier("mdm", convention)
    gap = compute_gap(*sides, grid=np.array([loss]), draws=bootstrap(fit))
    return float(gap.lower[0]), float(gap.upper[0])


def _convention(plan: Sequence[RunSpec]) -> FlopConvention:
    """The one convention of the budgets. The fit refuses several."""
    found = [run.cell.convention for run in plan if run.cell.budget is not None]
    require(bool(found), "plan", f"{len(plan)} runs", "of curves: none of these has a budget")
    return found[0]


def _loss_of_gap(fit: Any, convention: str, loss: float | None) -> float | None:
    """The loss at which the gap is read; None unless each family has two usable minima and the losses overlap."""
    from analysis import middle_of_overlap

    sides = {family: fit.frontier(family, convention) for family in ("arm", "mdm") if family in fit.families}
    if len(sides) < 2 or min(len(side.loss) for side in sides.values()) < 2:
        require(loss is None, "--loss", loss, "left out: a gap needs two usable minima of each family")
        return None
    return loss if loss is not None else middle_of_overlap(sides["arm"], sides["mdm"])


def _minima(fit: Any) -> tuple[Minimum, ...]:
    found = []
    for cell, row in zip(fit.cells, fit.minima.itertuples(index=False), strict=True):
        if row.family in {family.value for family in Family}:
            low, high = (math.exp(u + cell.center) for u in cell.swept)
            best = math.exp(float(cell.u[cell.y.argmin()]) + cell.center)
            minimum = Minimum(
                family=Family(row.family),
                budget=float(row.budget),
                status=str(row.status),
                reason=str(row.reason),
                runs=len(cell.u),
                n_sizes=int(row.n_sizes),
                n_low=low,
                n_high=high,
                n_opt=float(row.n_opt),
                n_best=best,
                loss=float(row.loss_opt),
            )
            found.append(minimum)
    return tuple(found)


def _laws(fit: Any, convention: str) -> dict[Family, FamilyPrior]:
    from analysis.minima.bootstrap import fit_law

    laws: dict[Family, FamilyPrior] = {}
    for family in Family:
        n_opt, loss = (fit_law(fit, family.value, name, convention) for name in ("n_opt", "loss_opt"))
        if n_opt is not None and loss is not None:
            flops = fit.frontier(family.value, convention).flops
            laws[family] = FamilyPrior(
                Law(n_opt.coefficient, n_opt.exponent),
                Law(loss.coefficient, loss.exponent),
                (float(flops[0]), float(flops[-1])),
            )
    return laws
