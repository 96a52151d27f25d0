"""IsoFLOP fits: the best size of each budget, with a standard error and a status that says whether it may be used.

Loss is fitted as a curve in log N (or log D, or the log of FLOPs per token), budget by budget (Hoffmann et al. 2022,
approach 2; SMDM uses the same with a parabola). `minima/curves.py` has the curves, `minima/noise.py` the scatter of the
runs around them.

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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws.frontier import Frontier
from analysis.minima.cells import OUTSIDE, Cell, Recipe, make_cells
from analysis.minima.minimum import minimum_of
from analysis.minima.noise import Noise, family_noise, fitted
from analysis.runs.budgets import same_budgets, with_abscissa
from analysis.runs.groups import check_one_convention, check_one_group, check_one_loss
from analysis.runs.load import as_runs, numbers, records, select, usable_runs
from analysis.tables import html_table, minimum_row
from mdm_jax.files.results import flop_column


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

    def minima_of(self, family: str) -> pd.DataFrame:
        """A family's usable minima, by rising budget: its rows of `minima` whose status is ok."""
        return select(self.minima, (self.minima["family"] == family) & (self.minima["status"] == "ok"))

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
            fit = cell.design @ cell.coefficients
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
    recipe = Recipe(x, curve, log_loss, window, noise_sd, weights, scatter)
    return fit_recipe(as_runs(runs), recipe)


def fit_recipe(runs: pd.DataFrame, recipe: Recipe) -> IsoFlopFit:
    """`fit_isoflop` by a recipe, such as another fit's, of runs from `read_runs`.

    Raises:
        ValueError: no `budget` column, no usable run, or runs of several groups, losses or conventions.
    """
    if np.isnan(numbers(runs, "budget")).all():
        raise ValueError("budget: every run lacks it, so there are no curves; map it with columns='budget=THEIRS'")
    runs = with_abscissa(runs, recipe.x)
    usable = usable_runs(runs)
    if usable.empty:
        reasons = ", ".join(f"{n} {why}" for why, n in runs["excluded_reason"].value_counts().items())
        raise ValueError(f"no run can be fitted: {reasons}")
    budgets = same_budgets(runs)
    check_one_group(usable)
    check_one_loss(usable)
    check_one_convention(usable)
    raw = make_cells(runs, budgets, recipe)
    within = np.isin(np.arange(len(runs)), np.concatenate([cell.rows for cell in raw]))
    runs.loc[(runs["excluded_reason"] == "") & ~within, "excluded_reason"] = OUTSIDE
    noise: dict[str, Noise] = {}
    cells: list[Cell] = []
    for family in dict.fromkeys(cell.family for cell in raw):
        group, given = [cell for cell in raw if cell.family == family], recipe.known_noise(family)
        noise[family] = family_noise(group, given)
        rest = 0.0 if given is not None else noise[family].sd
        cells += [fitted(cell, rest, recipe.weights) for cell in group]
    minima = pd.DataFrame([minimum_of(cell, noise[cell.family], recipe) for cell in cells])
    return IsoFlopFit(minima, _coefficients(cells), runs, tuple(cells), noise, recipe)


def _coefficients(cells: list[Cell]) -> pd.DataFrame:
    """Family, budget, center (log abscissa), the curve's coefficients around it (Akima: the loss at each size)."""
    rows = []
    for cell in (cell for cell in cells if cell.fitted):
        named = {f"c{i}": float(value) for i, value in enumerate(cell.coefficients)}
        rows.append({"family": cell.family, "budget": cell.budget, "center": cell.center, **named})
    return pd.DataFrame(rows, columns=None if rows else ["family", "budget", "center"])
