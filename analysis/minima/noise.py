"""How far a family's runs scatter around their curves, beyond the Monte Carlo error of their evaluation.

Two terms, estimated once a family from all its budgets together, because one budget of five to seven sizes cannot:

* run to run: the pooled scatter of seed replicates (runs alike in all but the seed), where there are any;
* the rest: the residuals of the curves beyond that, from the recipe's scatter and the curve's lack of fit. The
  estimator is that of Paule and Mandel (1982): the variance that makes the sum of weighted squares equal to its degrees
  of freedom. Parabolas miss the same shape (u^3) at every budget, which is no scatter. One coefficient for all
  budgets of a family takes that shape out first, at the cost of a degree of freedom. Without it, intervals on grids off
  their centre covered the truth in 99.5% of simulated sweeps.

The variances of both terms are added. A curve that passes through every size (Akima) has residuals at replicates only:
without replicates, and without a given noise, its noise and its interval are unknown. `loss_se_data` is not used: all
runs share the evaluation tokens, so it is the same for all.

The noise sets the weights of the runs, so the weighted curves (`fitted`) are made here too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from analysis.minima.cells import Cell


@dataclass(frozen=True)
class Noise:
    """Scatter of a family's runs around their curves beyond `loss_se_mc`; sd in units of y."""

    sd: float
    dof: float | int
    """Degrees of freedom of its estimate; inf where it was given."""
    replicate_sd: float = math.nan
    """The run-to-run part, from seed replicates; nan where there are none."""
    replicate_dof: int = 0


def family_noise(cells: list[Cell], given: float | None) -> Noise:
    """A family's noise, from those of its cells that have sizes enough for a curve; nan where nothing tells it.

    Args:
        cells: of the family.
        given: the noise where it is known; None estimates it.
    """
    if given is not None:
        return Noise(given, math.inf)
    budgets = [cell for cell in cells if cell.enough]
    replicate_sd, replicate_dof = _replicates(budgets)
    shared = len(budgets) > 1 and all(b.missed is not None for b in budgets)
    dof = sum(len(b.y) - int(np.linalg.matrix_rank(b.design)) for b in budgets) - shared
    if dof <= 0:
        return Noise(math.nan, 0, replicate_sd, replicate_dof)
    run_to_run = 0.0 if math.isnan(replicate_sd) else replicate_sd
    rest = _sd_beyond_replicates(budgets, run_to_run, dof)
    return Noise(math.hypot(run_to_run, rest), dof, replicate_sd, replicate_dof)


def fitted(cell: Cell, noise_sd: float, weights: str) -> Cell:
    """The cell with its curve, where it has sizes enough; variances are nan where the noise is unknown."""
    if not cell.enough:
        return cell
    variance = cell.known**2 + noise_sd**2
    by_error = weights == "errors" and bool((variance > 0).all())
    matrix = smoother(cell.design, 1 / variance if by_error else np.ones_like(variance))
    return replace(cell, variance=variance, smoother=matrix, coefficients=matrix @ cell.y)


def smoother(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted least-squares matrix [k, m] that maps m observations to k coefficients."""
    root = np.sqrt(weights / weights.max())
    return np.linalg.pinv(design * root[:, None]) * root[None, :]


def _replicates(budgets: list[Cell]) -> tuple[float, int]:
    """Run-to-run sd beyond the known error, and its degrees of freedom."""
    squares, dof, known = 0.0, 0, []
    for budget in budgets:
        order = np.argsort(budget.replicate_group, kind="stable")
        starts = np.flatnonzero(np.diff(budget.replicate_group[order])) + 1
        for rows in np.split(order, starts):
            if len(rows) > 1:
                y, se = budget.y[rows], budget.known[rows]
                squares, dof = squares + float(((y - y.mean()) ** 2).sum()), dof + len(y) - 1
                known += list(se**2)
    return (math.sqrt(max(squares / dof - float(np.mean(known)), 0.0)), dof) if dof else (math.nan, 0)


def _weighted_squares(budgets: list[Cell], sd: float | None) -> float:
    """Weighted squares of what the curves leave over, and what they miss at every budget alike.

    Args:
        sd: the scatter beyond the known error; None weighs all runs alike.
    """
    rest, power = [], []
    for b in budgets:
        weights = np.ones_like(b.y) if sd is None else 1 / (b.known**2 + sd**2)
        matrix, root = smoother(b.design, weights), np.sqrt(weights)
        rest.append(root * (b.y - b.design @ (matrix @ b.y)))
        missed = np.zeros_like(b.y) if b.missed is None else root * (b.missed - b.design @ (matrix @ b.missed))
        power.append(missed)
    left, shared = np.concatenate(rest), np.concatenate(power)
    if len(budgets) > 1 and shared.any():
        left = left - shared * (shared @ left) / (shared @ shared)
    return float(left @ left)


def _sd_beyond_replicates(budgets: list[Cell], run_to_run: float, dof: int) -> float:
    """The sd beyond the known error and the run-to-run one."""
    high = 2 * math.sqrt(_weighted_squares(budgets, None) / dof)
    return paule_mandel(lambda sd: _weighted_squares(budgets, math.hypot(run_to_run, sd)), dof, 1e-6 * high, high)


def paule_mandel(squares: Callable[[float], float], dof: int, low: float, high: float) -> float:
    """The standard deviation from low to high that makes weighted squares equal their degrees of freedom.

    Args:
        squares: what an extra standard deviation makes of them; falls, below `dof` at high.
        dof: degrees of freedom.
        low: the answer where the squares are too small even there.
        high: 0 where there is no scatter at all.
    """
    from scipy.optimize import root_scalar  # .2 s that importing analysis does not cost

    if high == 0 or squares(low) <= dof:
        return low
    ends = math.log(low), math.log(high)
    return math.exp(root_scalar(lambda log_sd: squares(math.exp(log_sd)) - dof, bracket=ends, xtol=1e-13).root)
