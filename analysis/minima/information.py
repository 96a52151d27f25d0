"""How much one more run would tell: the variance of the gap, and of an optimal size, before it and after it.

A budget's curve is linear in its coefficients. A run at abscissa u therefore changes their covariance V, whatever its
loss turns out to be, to V - V x x' V / (s^2 + x' V x), with x the curve's row at u and s^2 the run's variance
(Fedorov 1972, Theory of Optimal Experiments). What follows from the coefficients is linearised (delta method). The
slopes of the log gap are differences through the interpolation of the minima. They are as wide as a standard error, so
that they span what the interval spans.

The same run-to-run noise is assumed as in the fit, and the reference loss is held.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from analysis.laws.interpolate import Interpolation
from analysis.laws.power_law import t_quantile
from analysis.minima.cells import Cell
from analysis.minima.curves import Akima
from analysis.minima.fit import IsoFlopFit
from analysis.minima.scatter import UNKNOWN_SCATTER, scatter_added, scatter_dof
from analysis.runs.columns import ROLES
from analysis.runs.load import numbers
from analysis.sampling import LEVEL
from mdm_jax.files.results import flop_column

STEP = 1e-4
"""The step of numeric derivatives, in standard errors of a coefficient, or in log FLOPs."""


def half_width(parts: Iterable[tuple[float, float]], level: float) -> float:
    """Half width of the interval of a quantity whose variance is a sum, by Student's t.

    Args:
        parts: (variance, degrees of freedom that it was estimated with) of each term; Welch and Satterthwaite's
            formula gives those of the sum.
        level: of the interval.
    """
    known = [(part, dof) for part, dof in parts if part > 0]
    total, spread = sum(part for part, _ in known), sum(part**2 / dof for part, dof in known)
    return t_quantile(level, total**2 / spread if spread > 0 else np.inf) * float(np.sqrt(total))


@dataclass(frozen=True, eq=False)
class KnownCurve:
    """What a fit knows of one budget's curve with k coefficients."""

    cell: Cell
    covariance: np.ndarray
    """The covariance of the coefficients, [k, k]."""
    run_variance: float
    """The variance of a further run's loss around the curve."""
    d_size: np.ndarray
    """Derivative of log abscissa of the minimum by the coefficients, [k]."""
    d_gap: np.ndarray
    """Derivative of the log gap by the coefficients, [k]; zeros where no gap is read."""
    scatter: float = 0.0
    """The part of the log gap's variance that scatter between budgets adds; further runs do not reduce it."""

    @property
    def gap_variance(self) -> float:
        """This minimum's part of the variance of the log gap."""
        return self.variance(self.d_gap) + self.scatter

    def variance(self, gradient: np.ndarray) -> float:
        """Variance of a quantity with this gradient."""
        return float(gradient @ self.covariance @ gradient)

    def gain(self, gradient: np.ndarray, x: float) -> float:
        """The fall of a quantity's variance that one run at abscissa x brings (in the quantity's unit, squared)."""
        row = self._row(x)
        spread = self.run_variance + float(row @ self.covariance @ row)
        return float(gradient @ self.covariance @ row) ** 2 / spread if spread > 0 else 0.0

    def with_run(self, x: float) -> "KnownCurve":
        """What is known once there is one more run at abscissa x."""
        row = self._row(x)
        toward = self.covariance @ row
        spread = self.run_variance + float(row @ toward)
        if not spread > 0:
            return self
        return replace(self, covariance=self.covariance - np.outer(toward, toward) / spread)

    def _row(self, x: float) -> np.ndarray:
        u = np.array([np.log(x) - self.cell.center])
        return self.cell.curve.design(u)[0]


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a fit knows of its usable minima, and of the gap at one loss."""

    curves: dict[tuple[str, float], KnownCurve]
    """The known curves, by family and budget."""
    loss: float
    """Nats per token at which the gap is read; nan where it is not."""
    ratio: float
    """The gap there."""
    dof: dict[str, float]
    """Degrees of freedom of each family's noise."""
    scatter_dof: float = np.inf
    """Degrees of freedom of the scatter between budgets."""

    @property
    def gap_variance(self) -> float:
        """Variance of the log gap."""
        return sum(curve.gap_variance for curve in self.curves.values())

    def gap_factor(self, level: float = LEVEL) -> float:
        """Half width of the gap's interval as a factor: it runs from ratio / factor to ratio * factor."""
        parts = dict.fromkeys(self.dof, 0.0)
        for (family, _), curve in self.curves.items():
            parts[family] += curve.variance(curve.d_gap)
        added = sum(curve.scatter for curve in self.curves.values())
        known = [(part, self.dof[family]) for family, part in parts.items()]
        return float(np.exp(half_width([*known, (added, self.scatter_dof)], level)))

    def gap_gain(self, family: str, budget: float, x: float) -> float:
        """The fall of the log gap's variance that one run at abscissa x of a budget brings."""
        curve = self.curves[family, budget]
        return curve.gain(curve.d_gap, x)

    @property
    def scatter_share(self) -> float:
        """Share of the variance of the log gap that comes from scatter between budgets; 0 without a gap."""
        added = sum(curve.scatter for curve in self.curves.values())
        return added / self.gap_variance if added > 0 else 0.0

    def gap_share(self, family: str, budget: float) -> float:
        """Share of the variance of the log gap that comes from one budget's minimum."""
        curve = self.curves[family, budget]
        return curve.gap_variance / self.gap_variance

    def size_sd(self, family: str, budget: float) -> float:
        """Standard error of the log of a budget's optimal size."""
        curve = self.curves[family, budget]
        return float(np.sqrt(max(curve.variance(curve.d_size), 0.0)))

    def size_gain(self, family: str, budget: float, x: float) -> float:
        """The fall of the variance of a budget's log optimal size that one run at abscissa x brings."""
        curve = self.curves[family, budget]
        return curve.gain(curve.d_size, x)

    def with_run(self, family: str, budget: float, x: float) -> "Knowledge":
        """What is known once a budget has one more run at abscissa x."""
        key = family, budget
        return replace(self, curves={**self.curves, key: self.curves[key].with_run(x)})


def knowledge(fit: IsoFlopFit, loss: float | None = None, convention: str = "smdm_6nd") -> Knowledge:
    """What the fit knows.

    Args:
        fit: by quadratics or cubics; an interpolant's curve has another form with every size.
        loss: nats per token at which the gap is read; None reads none.
        convention: how the gap counts FLOPs.

    Raises:
        ValueError: an Akima fit, an unknown convention, or a loss at which there is no interpolated gap.
    """
    if any(isinstance(cell.curve, Akima) for cell in fit.cells):
        raise ValueError("curve = 'akima': must be quadratic or cubic, which keep their form when a size is added")
    cells = [cell for family in fit.families for cell in fit.cells_of(family, "ok")]
    gap = _LogGap(fit, convention, loss) if loss is not None else None
    curves, scatter = {}, scatter_added(fit)
    for cell in cells:
        covariance, y = cell.covariance, cell.vertex[1]
        d_size, d_loss, d_flops = _vertex_slopes(cell, fit.log_loss, convention)
        share = scatter.get(cell.family, UNKNOWN_SCATTER).sd / (float(np.exp(y)) if fit.log_loss else y)
        sd = float(np.sqrt(max(d_loss @ covariance @ d_loss, 0.0)))
        by_loss, by_flops = (0.0, 0.0) if gap is None else gap.slopes(cell, np.hypot(sd, share))
        d_gap, run_variance = by_loss * d_loss + by_flops * d_flops, float(np.median(cell.variance))
        known = KnownCurve(cell, covariance, run_variance, d_size, d_gap, (by_loss * share) ** 2)
        curves[cell.family, cell.budget] = known
    dof = {family: float(fit.noise[family].dof) for family in fit.families}
    ratio = float("nan") if gap is None else float(np.exp(gap.log_ratio()))
    return Knowledge(curves, float("nan") if loss is None else loss, ratio, dof, float(scatter_dof(scatter)))


def _vertex_slopes(cell: Cell, log_loss: bool, convention: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives of the minimum's log abscissa, log loss and log FLOPs by the curve's coefficients, [k] each."""
    scale = np.sqrt(np.diag(cell.covariance))
    steps = np.diag(STEP * np.where(scale > 0, scale, np.abs(cell.coefficients) + 1e-9))
    u, y = (np.asarray(v) for v in cell.curve.vertex(cell.coefficients + np.concatenate([steps, -steps])))
    log_flops = np.log(cell.read(flop_column(convention), u))
    k, width = len(steps), 2 * np.diag(steps)
    d_u, d_y, d_flops = ((v[:k] - v[k:]) / width for v in (u, y, log_flops))
    return d_u, d_y if log_loss else d_y / cell.vertex[1], d_flops


class _LogGap:
    """The log of the interpolated gap at one loss as a function of the minima."""

    def __init__(self, fit: IsoFlopFit, convention: str, loss: float) -> None:
        self.target = np.log([loss])
        self.sides: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for family in ROLES:
            rows = fit.minima_of(family)
            flops = numbers(rows, flop_column(convention))
            known = np.isfinite(flops)
            budgets, losses = numbers(rows, "budget"), numbers(rows, "loss_opt")
            self.sides[family] = budgets[known], np.log(flops[known]), np.log(losses[known])
        for family, (_, _, log_l) in self.sides.items():
            if len(log_l) < 2 or not log_l.min() <= self.target[0] <= log_l.max():
                raise ValueError(
                    f"loss = {loss:.4g}: no two minima of the {family} enclose it, so no gap is read there"
                )

    def log_ratio(self) -> float:
        return self._log_flops("mdm") - self._log_flops("arm")

    def slopes(self, cell: Cell, log_loss_sd: float) -> tuple[float, float]:
        """Derivatives of the log gap by a minimum's log loss and log FLOPs."""
        budgets = self.sides[cell.family][0]
        at = np.flatnonzero(budgets == cell.budget)
        if not len(at):
            return 0.0, 0.0
        unit = np.zeros(len(budgets))
        unit[at[0]] = 1.0
        h = max(log_loss_sd, STEP)
        sign = 1.0 if cell.family == "mdm" else -1.0
        by_loss = self._log_flops(cell.family, 0 * unit, h * unit) - self._log_flops(cell.family, 0 * unit, -h * unit)
        by_flops = self._log_flops(cell.family, STEP * unit) - self._log_flops(cell.family, -STEP * unit)
        return sign * by_loss / (2 * h), sign * by_flops / (2 * STEP)

    def _log_flops(self, family: str, move_c: np.ndarray | float = 0.0, move_l: np.ndarray | float = 0.0) -> float:
        _, log_c, log_l = self.sides[family]
        return float(Interpolation((log_c + move_c)[None], (log_l + move_l)[None]).log_flops(self.target)[0, 0])
