"""IsoFLOP fits: the best size of each budget, with a standard error and a status that says whether it may be used.

Loss is fitted as a parabola in log N, budget by budget (Hoffmann et al. 2022, approach 2; SMDM uses the same).

Weights. A run's loss scatters around its parabola by the Monte Carlo error of its evaluation (`loss_se_mc`, known)
and by everything else: the seed, the recipe, the parabola's lack of fit. The second, `noise_sd`, is estimated once a
family from the residuals of all its budgets together (Paule and Mandel 1982: the variance that makes the weighted
residuals as large as their degrees of freedom), because one budget of five to seven sizes cannot tell it. Weights are
1 / (noise_sd^2 + loss_se_mc^2), so a loss that claims no Monte Carlo error (the ARM's) never gets infinite weight.

Compute. Runs of a budget spend equal FLOPs only under the convention they were planned with; under another, FLOPs
vary along the curve. Every quantity of a minimum (N, D, and FLOPs under each convention) is therefore interpolated as
a smooth (quadratic in log-log) function of the abscissa and read at the vertex. The vertex is the best size at equal
*planned* FLOPs; the other conventions say what that choice costs.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.curves import CURVES, Quadratic, smoother
from analysis.frontier import FLOP_COLUMNS, Frontier, flop_column
from analysis.load import numbers, select, usable_runs

EDGE_MARGIN = 0.05
"""A vertex in the outer 5% of the swept log range counts as at the edge: at most one size stands beyond it."""
ABSCISSAE = ("params_non_embedding", "params", "tokens")
AT_VERTEX = {"n_opt": "params_non_embedding", "d_opt": "tokens", **{name: name for name in FLOP_COLUMNS.values()}}
VERTEX_COLUMNS = ("x_opt", "loss_opt", "log_x_se", "n_opt_se", "d_opt_se", "loss_opt_se", "off_centre")


@dataclass(frozen=True, eq=False)
class Cell:
    """One budget of one family: its m runs, its curve's k coefficients, and the smooth quantities along it."""

    family: str
    budget: float
    center: float
    u: np.ndarray
    """log abscissa minus `center`, [m]."""
    y: np.ndarray
    """loss, or log loss, [m]."""
    se_mc: np.ndarray
    """Known standard error of y, [m]."""
    sizes: int
    along: dict[str, np.ndarray]
    """log of N, D and FLOPs as quadratics in u, [3] each; nan where the table lacks them."""
    variance: np.ndarray = field(default_factory=lambda: np.zeros(0))
    smoother: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    coefficients: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def fitted(self) -> bool:
        """Whether there were enough sizes for a curve."""
        return len(self.coefficients) > 0

    def read(self, name: str, u: np.ndarray) -> np.ndarray:
        """N, D or FLOPs (a key of AT_VERTEX) at abscissa u, [...]."""
        return np.asarray(np.exp(Quadratic().basis(u) @ self.along[name]))


@dataclass(frozen=True)
class Noise:
    """Scatter of a family's runs around their curves beyond `loss_se_mc`: sd, in units of y, and degrees of freedom."""

    sd: float
    dof: int


@dataclass(frozen=True, eq=False)
class IsoFlopFit:
    """The minima of all budgets of all families, and what they were fitted on."""

    minima: pd.DataFrame
    """family, budget, status, reason, n_opt, d_opt, loss_opt (each with _se), FLOPs at the vertex, …"""
    coefficients: pd.DataFrame
    runs: pd.DataFrame
    cells: tuple[Cell, ...]
    noise: dict[str, Noise]
    x: str
    curve: str
    log_loss: bool

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
        y = CURVES[self.curve].basis(np.log(x) - cell.center) @ cell.coefficients
        return np.exp(y) if self.log_loss else y


def fit_isoflop(
    runs: pd.DataFrame, x: str = "params_non_embedding", curve: str = "quadratic", log_loss: bool = False
) -> IsoFlopFit:
    """Minima of all budgets, `status` ok | edge | no_minimum | too_few; only `ok` ones enter the laws.

    Args:
        runs: from `read_runs`; rows with an `excluded_reason` are kept and not fitted.
        x: abscissa: params_non_embedding, params or tokens.
        curve: the curve's form in log x.
        log_loss: fit log loss in place of loss.

    Raises:
        ValueError: an unknown x or curve, no `budget` column, or no usable run.
    """
    if curve not in CURVES:
        raise ValueError(f"curve = {curve!r}: must be one of {', '.join(CURVES)}")
    if x not in ABSCISSAE:
        raise ValueError(f"x = {x!r}: must be one of {', '.join(ABSCISSAE)}")
    if np.isnan(numbers(runs, "budget")).all():
        raise ValueError("budget: every run lacks it, so there are no curves; map it with columns='budget=THEIRS'")
    runs = _excluding(runs, x)
    usable = usable_runs(runs)
    if usable.empty:
        reasons = ", ".join(f"{n} {why}" for why, n in runs["excluded_reason"].value_counts().items())
        raise ValueError(f"no run can be fitted: {reasons}")
    raw = _cells(usable, x, log_loss)
    noise: dict[str, Noise] = {}
    cells: list[Cell] = []
    for family in dict.fromkeys(cell.family for cell in raw):
        group = [cell for cell in raw if cell.family == family]
        noise[family] = _pooled_noise(group, CURVES[curve])
        cells += [_fitted(cell, noise[family].sd, CURVES[curve]) for cell in group]
    minima = pd.DataFrame([_minimum(cell, noise[cell.family], CURVES[curve], log_loss) for cell in cells])
    return IsoFlopFit(minima, _coefficients(cells), runs, tuple(cells), noise, x, curve, log_loss)


def _excluding(runs: pd.DataFrame, x: str) -> pd.DataFrame:
    """A copy whose `excluded_reason` also covers what this fit needs."""
    runs = runs.copy()
    for bad, why in ((~(runs["budget"] > 0), "no budget"), (~(runs[x] > 0), f"{x} is not positive")):
        runs.loc[bad & (runs["excluded_reason"] == ""), "excluded_reason"] = why
    return runs


def _cells(usable: pd.DataFrame, x: str, log_loss: bool) -> list[Cell]:
    """One cell for each family and budget, in that order; budgets equal to six digits are one."""
    keys = [(str(f), float(f"{b:.6g}")) for f, b in zip(usable["family"], usable["budget"], strict=True)]
    cells = []
    for family, budget in sorted(set(keys)):
        rows = select(usable, [key == (family, budget) for key in keys])
        cells.append(_cell(family, budget, rows, x, log_loss))
    return cells


def _cell(family: str, budget: float, rows: pd.DataFrame, x: str, log_loss: bool) -> Cell:
    log_x = np.log(numbers(rows, x))
    center = float(log_x.mean())
    u, loss = log_x - center, numbers(rows, "loss")
    se = np.nan_to_num(numbers(rows, "loss_se_mc"))
    sizes = len(np.unique(np.round(log_x, 9)))
    design = Quadratic().basis(u)[:, : min(3, sizes)]
    along = {}
    for name, column in AT_VERTEX.items():
        values = numbers(rows, column)
        good = bool(np.all(values > 0))
        fit = np.linalg.pinv(design) @ np.log(values) if good else np.full(design.shape[1], np.nan)
        along[name] = np.pad(fit, (0, 3 - len(fit)))
    y, se = (np.log(loss), se / loss) if log_loss else (loss, se)
    return Cell(family, budget, center, u, y, se, sizes, along)


def _pooled_noise(cells: list[Cell], curve: Quadratic) -> Noise:
    """The family's scatter beyond `loss_se_mc` from the residuals of all budgets (Paule and Mandel 1982)."""
    cells = [cell for cell in cells if cell.sizes >= curve.min_sizes]
    dof = sum(len(cell.u) - curve.parameters for cell in cells)
    if dof <= 0:
        return Noise(float("nan"), 0)

    def squares(cell: Cell, weights: np.ndarray) -> float:
        design = curve.basis(cell.u)
        return float((weights * (cell.y - design @ (smoother(design, weights) @ cell.y)) ** 2).sum())

    def excess(sd: float) -> float:
        return sum(squares(cell, 1 / (cell.se_mc**2 + sd**2)) for cell in cells) - dof

    high = 2 * float(np.sqrt(sum(squares(cell, np.ones_like(cell.u)) for cell in cells) / dof))
    low = 1e-6 * high
    if high == 0 or excess(low) <= 0:
        return Noise(0.0 if high == 0 else low, dof)
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return Noise(float(high), dof)


def _fitted(cell: Cell, sd: float, curve: Quadratic) -> Cell:
    """The cell with its curve, where it has sizes enough."""
    if cell.sizes < curve.min_sizes:
        return cell
    variance = cell.se_mc**2 + sd**2
    matrix = smoother(curve.basis(cell.u), 1 / variance if (variance > 0).all() else np.ones_like(variance))
    return replace(cell, variance=variance, smoother=matrix, coefficients=matrix @ cell.y)


def swept(cell: Cell) -> tuple[float, float]:
    """The least and the largest abscissa u of the cell's runs."""
    return float(cell.u.min()), float(cell.u.max())


def _status(cell: Cell, curve: Quadratic) -> tuple[str, str]:
    """Whether the minimum may be used, and why not."""
    if not cell.fitted:
        why = "any three points lie on a parabola" if cell.sizes == 3 else "no curve"
        return "too_few", f"{cell.sizes} sizes, needs {curve.min_sizes}: {why}"
    if curve.curvature(cell.coefficients) <= 0:
        return "no_minimum", "the fitted curve bends downwards"
    low, high = swept(cell)
    u = float(curve.vertex(cell.coefficients)[0])
    margin = EDGE_MARGIN * (high - low)
    if u < low + margin:
        return "edge", "the minimum is at or below the smallest size: add smaller ones"
    if u > high - margin:
        return "edge", "the minimum is at or above the largest size: add larger ones"
    return "ok", ""


def _minimum(cell: Cell, noise: Noise, curve: Quadratic, log_loss: bool) -> dict[str, object]:
    """One row of `minima`; standard errors by the delta method."""
    status, reason = _status(cell, curve)
    low, high = swept(cell)
    row: dict[str, object] = {
        "family": cell.family, "budget": cell.budget, "status": status, "reason": reason,
        "n_sizes": cell.sizes, "n_runs": len(cell.u), "noise_sd": noise.sd, "noise_dof": noise.dof,
        "x_min": float(np.exp(low + cell.center)), "x_max": float(np.exp(high + cell.center)),
    }  # fmt: skip
    blank = dict.fromkeys([*VERTEX_COLUMNS, *AT_VERTEX, "curvature", "curvature_se"], float("nan"))
    if not cell.fitted:
        return row | blank
    covariance = (cell.smoother * cell.variance) @ cell.smoother.T
    bend = {"curvature": float(curve.curvature(cell.coefficients)), "curvature_se": float(np.sqrt(covariance[2, 2]))}
    if status == "no_minimum":
        return row | blank | bend
    u, y = (float(v) for v in curve.vertex(cell.coefficients))
    du, dy = curve.vertex_gradient(cell.coefficients)
    u_se, y_se = float(np.sqrt(du @ covariance @ du)), float(np.sqrt(dy @ covariance @ dy))
    loss = float(np.exp(y)) if log_loss else y
    at = {name: float(cell.read(name, np.asarray(u))) for name in AT_VERTEX}
    slope = {name: abs(float(cell.along[name][1] + 2 * cell.along[name][2] * u)) for name in ("n_opt", "d_opt")}
    return row | bend | at | {
        "x_opt": float(np.exp(u + cell.center)), "loss_opt": loss, "log_x_se": u_se,
        "n_opt_se": at["n_opt"] * slope["n_opt"] * u_se, "d_opt_se": at["d_opt"] * slope["d_opt"] * u_se,
        "loss_opt_se": loss * y_se if log_loss else y_se, "off_centre": (2 * u - low - high) / (high - low),
    }  # fmt: skip


def _coefficients(cells: list[Cell]) -> pd.DataFrame:
    """Family, budget, center (log abscissa) and the curve's coefficients around it."""
    rows = []
    for cell in (cell for cell in cells if cell.fitted):
        named = {f"c{i}": float(value) for i, value in enumerate(cell.coefficients)}
        rows.append({"family": cell.family, "budget": cell.budget, "center": cell.center, **named})
    return pd.DataFrame(rows, columns=None if rows else ["family", "budget", "center"])
