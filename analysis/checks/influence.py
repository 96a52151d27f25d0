"""How much one run decides the gap: the interpolated gap at the headline's loss, fitted again without each run in turn.

Leaving out a run changes only one budget's curve, so only that curve is fitted again, and all gaps are read at once: 56
runs take a few hundredths of a second. Changes are given in half widths of the gap's interval. The half width follows
by the delta method from the minima's standard errors and the scatter between budgets that the recipe adds.
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis.gap.curve import middle_of_overlap
from analysis.laws.frontier import Frontier
from analysis.laws.interpolate import Interpolation
from analysis.minima.cells import Cell
from analysis.minima.curves import make_curve
from analysis.minima.fit import IsoFlopFit
from analysis.minima.information import half_width
from analysis.minima.noise import smoother
from analysis.minima.scatter import UNKNOWN_SCATTER, scatter_added, scatter_dof
from analysis.runs.columns import ROLES
from analysis.runs.load import numbers
from analysis.sampling import LEVEL

FEWEST_MINIMA = 3
"""Fewest minima of a family. A budget that is lost without a run then leaves two."""


@dataclass(frozen=True)
class Influence:
    """What the gap would be without one run."""

    family: str
    budget: float
    row: int
    """Position of the run in the fit's table."""
    loss: float
    """Nats per token at which the gap is read."""
    ratio: float
    """The gap with all runs."""
    without: float
    """The gap without the run; nan where the interpolation then has no two minima."""
    half_widths: float
    """Change of the log gap over the half width of its interval; nan where that is unknown."""


def influences(fit: IsoFlopFit) -> list[Influence]:
    """The influence of every run of a usable minimum; none where the families share no loss, or have too few minima."""
    sides = {family: fit.frontier(family) for family in ROLES if family in fit.families}
    if len(sides) < 2 or min(len(side.loss) for side in sides.values()) < FEWEST_MINIMA:
        return []
    loss = middle_of_overlap(sides["arm"], sides["mdm"])
    if loss is None:
        return []
    base = {family: _log_flops(side, np.log(side.loss)[None], loss)[0] for family, side in sides.items()}
    log_ratio = float(base["mdm"] - base["arm"])
    half = _half_width(fit, sides, loss)
    out = []
    for family, sign in zip(ROLES, (-1.0, 1.0), strict=True):
        runs, log_c, log_l = _minima_without_each_run(fit, family)
        moved = sign * (Interpolation(log_c, log_l).log_flops(np.log([loss]))[:, 0] - base[family])
        for (budget, row), change in zip(runs, moved, strict=True):
            share = abs(change) / half if half > 0 else math.nan
            out.append(Influence(family, budget, row, loss, math.exp(log_ratio), math.exp(log_ratio + change), share))
    return out


def _log_flops(side: Frontier, log_loss: np.ndarray, loss: float) -> np.ndarray:
    """Log FLOPs [n] at which minima of these log losses [n, B] reach the loss."""
    curves = Interpolation(np.broadcast_to(np.log(side.flops), log_loss.shape), log_loss)
    return curves.log_flops(np.log([loss]))[:, 0]


def _half_width(fit: IsoFlopFit, sides: dict[str, Frontier], loss: float) -> float:
    """Half width of the log gap's interval; nan where a family's noise is unknown."""
    scatter = scatter_added(fit)
    parts = []
    for family, side in sides.items():
        rows = fit.minima_of(family).sort_values("flops_6nd", kind="stable")
        sd = np.full(len(rows), scatter.get(family, UNKNOWN_SCATTER).sd)
        for errors, dof in ((numbers(rows, "loss_opt_se"), fit.noise[family].dof), (sd, scatter_dof(scatter))):
            step = np.diag(errors / side.loss)
            up, down = (_log_flops(side, np.log(side.loss) + way * step, loss) for way in (1, -1))
            parts.append((float((((up - down) / 2) ** 2).sum()), float(dof)))
    return half_width(parts, LEVEL) if all(math.isfinite(part) for part, _ in parts) else math.nan


def _minima_without_each_run(fit: IsoFlopFit, family: str) -> tuple[list[tuple[float, int]], np.ndarray, np.ndarray]:
    """The runs as (budget, row), and log FLOPs and log losses [n, B] of the family's minima without each."""
    cells = fit.cells_of(family, "ok")
    minima = fit.minima_of(family)
    own = np.log(numbers(minima, "flops_6nd")), np.log(numbers(minima, "loss_opt"))
    runs, log_c, log_l = [], [], []
    for at, cell in enumerate(cells):
        for i, row in enumerate(cell.rows):
            runs.append((cell.budget, int(row)))
            for rows, values, moved in zip((log_c, log_l), own, _minimum_without(cell, i, fit.log_loss), strict=True):
                rows.append(np.where(np.arange(len(cells)) == at, moved, values))
    return runs, np.array(log_c), np.array(log_l)


def _minimum_without(cell: Cell, run: int, log_loss: bool) -> tuple[float, float]:
    """Log FLOPs and log loss of a cell's minimum without one of its runs; nan where it then has none among its sizes.

    A fit would need one size more. Here it is enough that the curve through the remaining sizes has a minimum.
    """
    keep = np.arange(len(cell.y)) != run
    u, lost = cell.u[keep], (math.nan, math.nan)
    curve = make_curve(cell.curve.name, u)
    design = curve.design(u)
    if np.linalg.matrix_rank(design) < (curve.min_sizes - 1 if curve.extrapolates else curve.min_sizes):
        return lost
    variance = cell.variance[keep]
    weights = 1 / variance if (variance > 0).all() else np.ones(len(u))
    coefficients = smoother(design, weights) @ cell.y[keep]
    at, y = (float(value) for value in curve.vertex(coefficients))
    low, high = cell.swept
    if not low <= at <= high or not (log_loss or y > 0):
        return lost
    return float(np.log(cell.read("flops_6nd", np.asarray(at)))), y if log_loss else math.log(y)
