"""Power laws y = coefficient * C^exponent by least squares in log-log. `laws/saturating.py` has those with a floor.

With the three to five budgets that a sweep has, intervals are Student's t with as few degrees of freedom as there are.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from analysis.laws.law import Law


@dataclass(frozen=True, eq=False)
class PowerLaw(Law):
    """y = coefficient * C^exponent. `covariance` is of (log coefficient, exponent); nan with two points."""

    coefficient: float
    exponent: float
    covariance: np.ndarray
    dof: int
    residual_sd: float
    """Scatter of log y around the line."""

    floor: ClassVar[float] = math.nan
    floor_undetermined: ClassVar[bool] = False

    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log y at log FLOPs, of the same shape."""
        return np.asarray(np.log(self.coefficient) + self.exponent * log_flops)

    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log FLOPs at which the law gives log y, of the same shape."""
        return np.asarray((log_loss - np.log(self.coefficient)) / self.exponent)

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Student-t intervals of `coefficient` and `exponent`; (nan, nan) with two points, which leave no scatter."""
        half = t_quantile(level, self.dof) * np.sqrt(np.diag(self.covariance))
        log_k = np.log(self.coefficient)
        return {
            "coefficient": (float(np.exp(log_k - half[0])), float(np.exp(log_k + half[0]))),
            "exponent": (float(self.exponent - half[1]), float(self.exponent + half[1])),
        }

    def band(self, c: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the line itself at compute c, lower and upper."""
        return self._around(c, t_quantile(level, self.dof) * np.sqrt(self._line_variance(c)))

    def prediction_interval(self, c: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Interval of a new point at compute c, which scatters around the line as the fitted ones do."""
        return self._around(c, t_quantile(level, self.dof) * np.sqrt(self.residual_sd**2 + self._line_variance(c)))

    def _line_variance(self, c: np.ndarray) -> np.ndarray:
        """Variance of log y on the line at compute c."""
        x = np.stack([np.ones_like(c), np.log(c)], axis=-1)
        return np.maximum(((x @ self.covariance) * x).sum(-1), 0)

    def _around(self, c: np.ndarray, half_width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = self.predict(c)
        return y * np.exp(-half_width), y * np.exp(half_width)


def t_quantile(level: float, dof: float | int) -> float:
    """Half width, in standard errors, of a central Student-t interval (normal at inf); nan without dof."""
    from scipy.special import ndtri, stdtrit  # 0.2 s that a caller who wants no interval does not pay

    if dof <= 0:
        return float("nan")
    return float(stdtrit(dof, (1 + level) / 2) if np.isfinite(dof) else ndtri((1 + level) / 2))


@dataclass(frozen=True)
class SlopeTest:
    """Whether two laws have the same exponent: Welch's t-test, two-sided."""

    difference: float
    """first.exponent - second.exponent."""
    se: float
    dof: float
    """Welch and Satterthwaite's."""
    t: float
    p: float
    """Probability of a difference this large between equal exponents; nan where a law has only two points."""


def compare_slopes(first: PowerLaw, second: PowerLaw) -> SlopeTest:
    """The test of first.exponent == second.exponent from the scatter of the points around either line.

    It compares straight lines. Where losses have a floor, a line is steeper the higher the losses that it goes through,
    so that two families read at different losses differ although their laws are alike: exact points of two surfaces
    with the same exponents and floor gave p = .004. `compare_saturating_slopes` allows for a floor.

    Args:
        first: from `fit_power_law`, with three points or more.
        second: likewise.
    """
    from scipy.special import stdtr

    difference = first.exponent - second.exponent
    parts = [(float(law.covariance[1, 1]), law.dof) for law in (first, second)]
    variance = sum(v for v, _ in parts)
    if min(dof for _, dof in parts) < 1 or not variance > 0:
        same = 0.0 if difference else 1.0
        p = same if variance == 0 else float("nan")
        return SlopeTest(difference, float(np.sqrt(variance)), float("nan"), float("nan"), p)
    dof = variance**2 / sum(v**2 / k for v, k in parts)
    t = difference / float(np.sqrt(variance))
    return SlopeTest(difference, float(np.sqrt(variance)), dof, t, float(2 * stdtr(dof, -abs(t))))


def fit_power_law(c: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> PowerLaw:
    """The line through log y against log c by (weighted) least squares.

    Args:
        c: compute, FLOPs, [n], positive.
        y: loss, N or D, [n], positive.
        weights: relative precision of log y, [n]; the scatter around the line still sets the covariance.

    Raises:
        ValueError: fewer than two different c, or values that are not positive and finite.
    """
    x, z = checked_logs(c, y)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if w.shape != x.shape or not (np.isfinite(w).all() and (w > 0).all()):
        raise ValueError(f"weights: must be {x.shape[0]} finite positive numbers")
    w, dof = w / w.mean(), len(x) - 2
    center = float(np.average(x, weights=w))
    spread = float((w * (x - center) ** 2).sum())
    slope = float((w * (x - center) * z).sum() / spread)
    level = float(np.average(z, weights=w))
    residual = z - level - slope * (x - center)
    variance = float((w * residual**2).sum() / dof) if dof else float("nan")
    jacobian = np.array([[1.0, -center], [0.0, 1.0]])
    covariance = jacobian @ np.diag([variance / w.sum(), variance / spread]) @ jacobian.T
    return PowerLaw(float(np.exp(level - slope * center)), slope, covariance, dof, float(np.sqrt(variance)))


def checked_logs(c: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log compute and log y, [n] each.

    Raises:
        ValueError: fewer than two different c, or values that are not positive and finite.
    """
    c, y = np.asarray(c, np.float64), np.asarray(y, np.float64)
    if c.ndim != 1 or c.shape != y.shape:
        raise ValueError(f"c {c.shape} and y {y.shape}: must be two equal lists")
    for name, values in (("c", c), ("y", y)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name}: must be finite and positive, is {values.tolist()}")
    if len(np.unique(c)) < 2:
        raise ValueError(f"c: a law needs two different budgets, got {len(np.unique(c))}")
    return np.log(c), np.log(y)


def lines(log_c: np.ndarray, log_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares (intercept, slope) of each row, [n] each, over its finite entries; nan below two of them."""
    good = np.isfinite(log_c) & np.isfinite(log_y)
    count = good.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mx = np.where(good, log_c, 0.0).sum(1) / count
        my = np.where(good, log_y, 0.0).sum(1) / count
        dx = np.where(good, log_c - mx[:, None], 0.0)
        dy = np.where(good, log_y - my[:, None], 0.0)
        slope = np.where(count >= 2, (dx * dy).sum(1) / (dx * dx).sum(1), np.nan)
    return my - slope * mx, slope
