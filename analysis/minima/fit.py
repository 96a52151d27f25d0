"""IsoFLOP fits: the best size of each budget, with a standard error and a status that says whether it may be used.

Loss is fitted as a curve in log N (or log D, or the log of FLOPs per token), budget by budget (Hoffmann et al. 2022,
approach 2; SMDM uses the same with a parabola). `minima/curves.py` has the curves, and
`minima/noise.py` how far runs scatter around them.

Weights are 1 / (noise_sd^2 + loss_se_mc^2), so a loss that claims no Monte Carlo error (the ARM's) never gets infinite
weight.

Compute. Runs of a budget spend equal FLOPs only under the convention they were planned with; under another, FLOPs
vary along the curve. Every quantity of a minimum (N, D, and FLOPs under each convention) is therefore interpolated as
a smooth (quadratic in log-log) function of the abscissa and read at the vertex. The vertex is the best size at equal
*planned* FLOPs; the other conventions say what that choice costs.

Window. A curve fits best near its minimum. `window=4` fits only the runs from N*/4 to 4 N*, where N* is the minimum
those runs themselves give: the window moves until it stands still, and takes in the nearest sizes where it holds too
few. Runs outside stay in the table as `outside the window`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws.frontier import Frontier
from analysis.minima.cells import AT_VERTEX, Cell, Recipe, fitted, make_cells, windowed, with_abscissa
from analysis.minima.noise import Noise, Observed, estimate_noise
from analysis.runs.groups import check_one_convention, check_one_group, check_one_loss
from analysis.runs.load import as_runs, numbers, records, select, usable_runs
from analysis.tables import html_table, minimum_row
from analysis.wording import count
from mdm_jax.results import flop_column

EDGE_MARGIN = 0.05
"""A parabola's or cubic's vertex in the outer 5% of the swept log range counts as at the edge: at most one size stands
beyond it. An interpolant's counts so only at the last size itself."""
NOUNS = {"params_non_embedding": "size", "params": "size", "tokens": "training", "flops_per_token": "size"}
VERTEX_COLUMNS = ("x_opt", "loss_opt", "log_x_se", "n_opt_se", "d_opt_se", "loss_opt_se", "off_centre")


@dataclass(frozen=True, eq=False)
class IsoFlopFit:
    """The minima of all budgets of all families, and what they were fitted on."""

    minima: pd.DataFrame
    """family, budget, status, reason, n_opt, d_opt, loss_opt (each with _se), FLOPs at the vertex, …"""
    coefficients: pd.DataFrame
    runs: pd.DataFrame
    cells: tuple[Cell, ...]
    noise: dict[str, Noise]
    recipe: Recipe

    @property
    def x(self) -> str:
        """The abscissa's column."""
        return self.recipe.x

    @property
    def curve(self) -> str:
        """The curve's name."""
        return self.recipe.curve

    @property
    def log_loss(self) -> bool:
        """Whether log loss was fitted."""
        return self.recipe.log_loss

    @property
    def families(self) -> tuple[str, ...]:
        """Families with at least one usable run."""
        return tuple(dict.fromkeys(cell.family for cell in self.cells))

    def cells_of(self, family: str, status: str | None = None) -> list[Cell]:
        """A family's cells by rising budget, only those of one status if it is given."""
        pairs = zip(self.cells, self.minima["status"], strict=True)
        return [cell for cell, found in pairs if cell.family == family and status in (None, found)]

    def minima_of(self, family: str, status: str = "ok") -> pd.DataFrame:
        """A family's rows of `minima` with this status, by rising budget."""
        keep = (self.minima["family"] == family) & (self.minima["status"] == status)
        return select(self.minima, keep)

    def frontier(self, family: str, convention: str = "smdm_6nd") -> Frontier:
        """The family's usable minima under a FLOP convention; those whose FLOPs the table lacks are left out."""
        rows = self.minima_of(family)
        flops, loss = numbers(rows, flop_column(convention)), numbers(rows, "loss_opt")
        known = np.isfinite(flops)
        return Frontier(family, flops[known], loss[known], convention)

    def predict(self, cell: Cell, x: np.ndarray) -> np.ndarray:
        """The curve's loss at abscissae x (in x's own unit)."""
        y = cell.curve.value(np.log(x) - cell.center, cell.coefficients)
        return np.exp(y) if self.log_loss else y

    def residuals(self) -> pd.DataFrame:
        """family, budget, run_id, x / x_opt, residual of loss (nats) and of y in standard deviations, a row a run."""
        tables = []
        vertices = zip(self.cells, numbers(self.minima, "x_opt"), strict=True)
        for cell, x_opt in ((cell, x_opt) for cell, x_opt in vertices if cell.fitted):
            fit = cell.curve.design(cell.u) @ cell.coefficients
            loss, fit_loss = (np.exp(cell.y), np.exp(fit)) if self.log_loss else (cell.y, fit)
            sd = np.where(cell.variance > 0, np.sqrt(cell.variance), np.nan)
            x = np.exp(cell.u + cell.center) / (x_opt if np.isfinite(x_opt) else np.exp(cell.center))
            row = {"family": cell.family, "budget": cell.budget, "run_id": self.runs["run_id"].to_numpy()[cell.rows]}
            row |= {"x_ratio": x, "residual": loss - fit_loss, "standardised": (cell.y - fit) / sd}
            tables.append(pd.DataFrame(row))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def _repr_html_(self) -> str:
        return html_table([minimum_row(row) for row in records(self.minima)])


def fit_isoflop(
    runs: pd.DataFrame,
    x: str = "params_non_embedding",
    curve: str = "quadratic",
    log_loss: bool = False,
    window: float | None = None,
    noise_sd: float | Mapping[str, float] | None = None,
    weights: str = "errors",
    scatter: str = "add",
) -> IsoFlopFit:
    """Minima of all budgets by a curve each in log x (Hoffmann et al. 2022, approach 2).

    A quadratic is what that paper and SMDM fit, Akima's interpolant what Porian et al. (2024) do; the cubic has a
    seventieth of the quadratic's bias. `minima` has a row a family and budget: n_opt (parameters), d_opt (tokens) and
    loss_opt (nats per token), each with its standard error `_se`, FLOPs there under each convention, and `status` ok |
    edge | no_minimum | too_few with its `reason`; only `ok` ones enter the laws.

    Args:
        runs: from `read_runs`, or any table with its needed columns; rows with an `excluded_reason` are kept and not
            fitted.
        x: abscissa: params_non_embedding, params, tokens, or flops_per_token (exact FLOPs over tokens).
        curve: the curve's form in log x: quadratic, cubic or akima.
        log_loss: fit log loss in place of loss.
        window: fit only the runs within this factor of each budget's minimum; None fits all.
        noise_sd: run-to-run sd of a loss (nats) where it is known, of all families or by family; None estimates it.
        weights: "errors" (inverse variances) or "equal" (ordinary least squares).
        scatter: "add" lets intervals include the scatter between budgets (`minima/scatter.py`), "ignore" does not.

    Raises:
        ValueError: an unknown option, a column that lacks, no `budget`, no usable run, or runs of several groups or
            conventions.
    """
    return fit_recipe(runs, Recipe(x, curve, log_loss, window, noise_sd, weights, scatter))


def fit_recipe(runs: pd.DataFrame, recipe: Recipe) -> IsoFlopFit:
    """`fit_isoflop` by a recipe, such as another fit's.

    Raises:
        ValueError: no `budget` column, no usable run, or runs of several groups, losses or conventions.
    """
    runs = as_runs(runs)
    if np.isnan(numbers(runs, "budget")).all():
        raise ValueError("budget: every run lacks it, so there are no curves; map it with columns='budget=THEIRS'")
    runs = with_abscissa(runs, recipe.x)
    if usable_runs(runs).empty:
        reasons = ", ".join(f"{n} {why}" for why, n in runs["excluded_reason"].value_counts().items())
        raise ValueError(f"no run can be fitted: {reasons}")
    check_one_group(usable_runs(runs))
    check_one_loss(usable_runs(runs))
    check_one_convention(usable_runs(runs))
    runs = windowed(runs, recipe)
    raw = make_cells(runs, recipe)
    noise: dict[str, Noise] = {}
    cells: list[Cell] = []
    for family in dict.fromkeys(cell.family for cell in raw):
        group = [cell for cell in raw if cell.family == family]
        given = recipe.known_noise(family)
        noise[family] = _noise([cell for cell in group if cell.enough], given)
        rest = 0.0 if given is not None else noise[family].sd
        cells += [fitted(cell, rest, recipe.weights) for cell in group]
    minima = pd.DataFrame([_minimum(cell, noise[cell.family], recipe) for cell in cells])
    return IsoFlopFit(minima, _coefficients(cells), runs, tuple(cells), noise, recipe)


def _noise(cells: list[Cell], given: float | None) -> Noise:
    if given is not None:
        return Noise(given, math.inf)
    return estimate_noise([Observed.of(cell) for cell in cells])


def _status(cell: Cell, noun: str, log_loss: bool) -> tuple[str, str]:
    """Whether the minimum may be used, and why not; `noun` is what the abscissa counts."""
    if not cell.fitted:
        why = ": any three points lie on a parabola" if cell.sizes == 3 and cell.curve.name == "quadratic" else ""
        return "too_few", f"{cell.sizes} sizes, and a {cell.curve.name} curve takes {cell.curve.min_sizes}{why}"
    if cell.curve.extrapolates and not cell.curve.curvature(cell.coefficients) > 0:
        return "no_minimum", "the fitted curve has no minimum"
    low, high = cell.swept
    u = float(cell.curve.vertex(cell.coefficients)[0])
    margin = (EDGE_MARGIN if cell.curve.extrapolates else 1e-9) * (high - low)
    at, least, largest = (count(math.exp(value + cell.center)) for value in (u, low, high))
    if u < low + margin:
        return "edge", f"the minimum, {at}, lies {'below' if u < low else 'at'} the smallest {noun}, {least}"
    if u > high - margin:
        return "edge", f"the minimum, {at}, lies {'above' if u > high else 'at'} the largest {noun}, {largest}"
    if not cell.curve.lowest_within(cell.coefficients, low, high, cell.curve.vertex(cell.coefficients)[1]):
        y = cell.curve.value(np.array([low, high]), cell.coefficients)
        end = f"smallest {noun}, {least}" if y[0] < y[1] else f"largest {noun}, {largest}"
        return "edge", f"the curve is lower at the {end}, than at its minimum, {at}"
    return _support(cell, log_loss)


def _support(cell: Cell, log_loss: bool) -> tuple[str, str]:
    """Whether the loss at the minimum is one that the runs near it support, and why not."""
    least, dip = float(cell.least_supported(cell.y)), float(cell.curve.vertex(cell.coefficients)[1])
    if dip >= least and (log_loss or dip > 0):
        return "ok", ""
    said = [f"{math.exp(y) if log_loss else y:.4g}" for y in (dip, float(cell.y.min()))]
    return "no_minimum", f"the curve dips to {said[0]}, further below the lowest loss, {said[1]}, than its runs support"


def _minimum(cell: Cell, noise: Noise, recipe: Recipe) -> dict[str, object]:
    """One row of `minima`; standard errors are the curve's own."""
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
    u, y = (float(v) for v in cell.curve.vertex(cell.coefficients))
    covariance = (cell.smoother * cell.variance) @ cell.smoother.T
    u_se, y_se, bend_se = cell.curve.vertex_errors(cell.coefficients, covariance)
    loss = float(np.exp(y)) if recipe.log_loss else y
    at = {name: float(cell.read(name, np.asarray(u))) for name in AT_VERTEX}
    slope = {name: abs(float(cell.along[name][1] + 2 * cell.along[name][2] * u)) for name in ("n_opt", "d_opt")}
    errors = {f"{name}_se": at[name] * slope[name] * u_se for name in slope}
    bend = {"curvature": cell.curve.curvature(cell.coefficients), "curvature_se": bend_se}
    best = {"x_opt": float(np.exp(u + cell.center)), "loss_opt": loss, "log_x_se": u_se, **errors}
    best |= {"loss_opt_se": loss * y_se if recipe.log_loss else y_se, "off_centre": (2 * u - low - high) / (high - low)}
    return row | at | bend | best


def _coefficients(cells: list[Cell]) -> pd.DataFrame:
    """Family, budget, center (log abscissa), the curve's coefficients around it (Akima: the loss at each size)."""
    rows = []
    for cell in (cell for cell in cells if cell.fitted):
        named = {f"c{i}": float(value) for i, value in enumerate(cell.coefficients)}
        rows.append({"family": cell.family, "budget": cell.budget, "center": cell.center, **named})
    return pd.DataFrame(rows, columns=None if rows else ["family", "budget", "center"])
