"""The minimum of one budget's curve: its quantities with their standard errors, and whether it may be used."""

import math

import numpy as np

from analysis.minima.cells import AT_VERTEX, Cell, Recipe, least_supported
from analysis.minima.noise import Noise
from analysis.wording import count

EDGE_MARGIN = 0.05
"""A parabola's or cubic's vertex in the outer 5% of the swept log range counts as at the edge: at most one size stands
beyond it. An interpolant's vertex counts so only at the last size."""
NOUNS = {"params_non_embedding": "size", "params": "size", "tokens": "training", "flops_per_token": "size"}
VERTEX_COLUMNS = ("x_opt", "loss_opt", "log_x_se", "n_opt_se", "d_opt_se", "loss_opt_se", "off_centre")


def minimum_of(cell: Cell, noise: Noise, recipe: Recipe) -> dict[str, object]:
    """A row of `IsoFlopFit.minima`; the standard errors follow from the covariance of the curve's coefficients."""
    status, reason = _status(cell, NOUNS[recipe.x], recipe.log_loss)
    low, high = cell.swept
    row: dict[str, object] = {"family": cell.family, "budget": cell.budget, "status": status, "reason": reason}
    row |= {"n_sizes": cell.sizes, "n_runs": len(cell.u), "noise_sd": noise.sd, "noise_dof": noise.dof}
    row |= {"x_min": float(np.exp(low + cell.center)), "x_max": float(np.exp(high + cell.center))}
    blank = dict.fromkeys([*VERTEX_COLUMNS, *AT_VERTEX, "curvature", "curvature_se"], float("nan"))
    if not cell.fitted:
        return row | blank
    if status == "no_minimum":
        return row | blank | {"curvature": cell.curve.curvature(cell.coefficients)}
    u, y = cell.vertex
    u_se, y_se, bend_se = cell.curve.vertex_errors(cell.coefficients, cell.covariance)
    loss = float(np.exp(y)) if recipe.log_loss else y
    at = {name: float(cell.read(name, np.asarray(u))) for name in AT_VERTEX}
    slope = {name: abs(float(cell.along[name][1] + 2 * cell.along[name][2] * u)) for name in ("n_opt", "d_opt")}
    errors = {f"{name}_se": at[name] * slope[name] * u_se for name in slope}
    bend = {"curvature": cell.curve.curvature(cell.coefficients), "curvature_se": bend_se}
    best = {"x_opt": float(np.exp(u + cell.center)), "loss_opt": loss, "log_x_se": u_se, **errors}
    best |= {"loss_opt_se": loss * y_se if recipe.log_loss else y_se, "off_centre": (2 * u - low - high) / (high - low)}
    return row | at | bend | best


def _status(cell: Cell, noun: str, log_loss: bool) -> tuple[str, str]:
    """The minimum's status and, unless it is ok, the reason; `noun` names the abscissa in the reason."""
    if not cell.fitted:
        why = ": any three points lie on a parabola" if cell.sizes == 3 and cell.curve.name == "quadratic" else ""
        return "too_few", f"{cell.sizes} sizes, and a {cell.curve.name} curve takes {cell.curve.min_sizes}{why}"
    if cell.curve.extrapolates and not cell.curve.curvature(cell.coefficients) > 0:
        return "no_minimum", "the fitted curve has no minimum"
    low, high = cell.swept
    u, y = cell.vertex
    least = float(least_supported(cell.y, cell.by_size()))
    ends = cell.curve.value(np.array([low, high]), cell.coefficients)
    margin = (EDGE_MARGIN if cell.curve.extrapolates else 1e-9) * (high - low)
    at, smallest, largest = (count(math.exp(value + cell.center)) for value in (u, low, high))
    if u < low + margin:
        return "edge", f"the minimum, {at}, lies {'below' if u < low else 'at'} the smallest {noun}, {smallest}"
    if u > high - margin:
        return "edge", f"the minimum, {at}, lies {'above' if u > high else 'at'} the largest {noun}, {largest}"
    if not cell.curve.lowest_within(cell.coefficients, low, high, np.asarray(y)):
        end = f"smallest {noun}, {smallest}" if ends[0] < ends[1] else f"largest {noun}, {largest}"
        return "edge", f"the curve is lower at the {end}, than at its minimum, {at}"
    if y >= least and (log_loss or y > 0):
        return "ok", ""
    said = [f"{math.exp(v) if log_loss else v:.4g}" for v in (y, float(cell.y.min()))]
    return "no_minimum", f"the curve dips to {said[0]}, further below the lowest loss, {said[1]}, than its runs support"
