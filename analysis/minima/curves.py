"""IsoFLOP curves: loss as a function of one log abscissa, u. Each is a linear smoother of the losses.

That linearity is what the bootstrap rests on: parameters of a perturbed data set are `smoother @ losses`, so thousands
of refits are one matrix product.

* quadratic: c0 + c1 u + c2 u^2 (Hoffmann et al. 2022, approach 2; SMDM). Three parameters, and a known bias: around
  its minimum a loss surface is no parabola unless its two exponents are equal. With exponents .30 and .42 it puts N* 3%
  too low on a grid from N*/4 to 4 N*, and 12% at N*/16 to 16 N*. The bias is the same at every budget, so that
  exponents do not suffer.
* cubic: one more parameter, which takes the surface's asymmetry; on the same grids its N* is .03% and .5% off.
* akima: through the mean loss of every size, without a shape (Porian et al. 2024). It smooths nothing, so residuals
  tell nothing about the noise: that must come from seed replicates or be given.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

AKIMA_DRAWS = 400
RECENTRINGS = 20
"""The most often that a window moves before it is taken as it stands."""
UNKNOWN = (float("nan"), float("nan"), float("nan"))
AKIMA_RESOLUTION = 1 / 3
"""The least standard error of an Akima minimum, in units of the sizes' mean log spacing (as Porian et al. take it)."""
ONE_SIZE = 1.03
"""Sizes within this factor of the smallest of them count as one size.

The slope between two close sizes is mostly noise, divided by a small distance. Akima's interpolant uses this slope and
carries it across the next gap: two sizes a ten-thousandth apart, .01 nats apart in loss, gave a minimum of -684 nats.
With sizes 3% apart and gaps of a factor 1.6 (seven sizes from N*/4 to 4 N*) the interpolant strays by three standard
deviations of a run at worst. Steps of planned grids are wider than 10%.
"""


def distinct(u: np.ndarray) -> np.ndarray:
    """The different abscissae, rising."""
    return np.unique(np.round(u, 9))


def merged(u: np.ndarray) -> np.ndarray:
    """The log abscissae [m]; those that count as one size (`ONE_SIZE`) have the mean of their runs."""
    order = np.argsort(u, kind="stable")
    out = np.array(u, np.float64)
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or u[order[end]] - u[order[start]] > np.log(ONE_SIZE):
            group = order[start:end]
            if np.ptp(u[group]) > 0:
                out[group] = u[group].mean()
            start = end
    return out


def powers(u: np.ndarray, degree: int) -> np.ndarray:
    """1, u, u^2, … up to the degree, [..., degree + 1]."""
    return np.stack([np.asarray(u, np.float64) ** power for power in range(degree + 1)], axis=-1)


@dataclass(frozen=True)
class Polynomial:
    """c0 + c1 u + c2 u^2, and c3 u^3 where the degree is 3."""

    degree: int
    extrapolates: ClassVar[bool] = True
    """Its minimum may lie beyond the runs."""

    @property
    def name(self) -> str:
        """quadratic or cubic."""
        return "quadratic" if self.degree == 2 else "cubic"

    @property
    def min_sizes(self) -> int:
        """One more than its parameters: any three points lie on a parabola, so the fit needs a fourth to test it."""
        return self.degree + 2

    def design(self, u: np.ndarray) -> np.ndarray:
        """Powers of u, [m, degree + 1]."""
        return powers(u, self.degree)

    def missed(self, u: np.ndarray) -> np.ndarray | None:
        """The shape of a loss surface that the parabola misses, u^3 [m]; None for the cubic, which misses little."""
        return np.asarray(u, np.float64) ** 3 if self.degree == 2 else None

    def value(self, u: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Loss at abscissae u."""
        return np.asarray((powers(u, self.degree) * coefficients).sum(-1))

    def vertex(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Abscissa and loss of the minimum, [...] each; nan where the curve has none."""
        c0, c1, c2, c3 = self._four(coefficients)
        u = _lowest_at(c1, c2, c3)
        return u, np.asarray(c0 + u * (c1 + u * (c2 + u * c3)))

    def lowest_within(self, coefficients: np.ndarray, low: float, high: float, y: np.ndarray) -> np.ndarray:
        """Whether the minimum's loss y [...] is below that at both ends of the sizes; a cubic falls again beyond."""
        ends = self.value(np.array([low, high]), np.asarray(coefficients)[..., None, :])
        return np.asarray(y <= ends.min(-1))

    def curvature(self, coefficients: np.ndarray) -> float:
        """c2, or for the cubic sqrt(c2^2 - 3 c1 c3)."""
        _, c1, c2, c3 = (float(c) for c in self._four(coefficients))
        return c2 if self.degree == 2 else float(_root(c1, c2, c3))

    def vertex_errors(self, coefficients: np.ndarray, covariance: np.ndarray) -> tuple[float, float, float]:
        """The errors by the delta method: f'(u) = 0 gives du/dc = -d(f')/dc / f''; in u the loss is stationary."""
        u = float(self.vertex(coefficients)[0])
        c3 = float(self._four(coefficients)[3])
        power = np.arange(self.degree + 1)
        first = power * u ** np.maximum(power - 1, 0)
        second = power * (power - 1) * u ** np.maximum(power - 2, 0)
        du = -first / float(second @ coefficients)
        gradients = (du, powers(np.asarray(u), self.degree), second / 2 + 3 * c3 * du)
        errors = [float(np.sqrt(g @ covariance @ g)) for g in gradients]
        return errors[0], errors[1], errors[2]

    def _four(self, coefficients: np.ndarray) -> np.ndarray:
        """c0 to c3, [4, ...]; zeros for the parabola's c3."""
        c = np.moveaxis(np.asarray(coefficients, np.float64), -1, 0)
        return np.concatenate([c, np.zeros((3 - self.degree, *c.shape[1:]))])


def _root(c1: Any, c2: Any, c3: Any) -> np.ndarray:
    """Half the second derivative of c1 u + c2 u^2 + c3 u^3 at its minimum; nan where it has none."""
    square = np.asarray(c2**2 - 3 * c1 * c3)
    return np.asarray(np.sqrt(np.where(square > 0, square, np.nan)))


def _lowest_at(c1: Any, c2: Any, c3: Any) -> np.ndarray:
    """The u at which c1 u + c2 u^2 + c3 u^3 has its minimum; nan where it has none."""
    root = _root(c1, c2, c3)
    with np.errstate(divide="ignore", invalid="ignore"):  # the form that does not cancel
        u = np.where(c2 + root > 1e-9 * root, -c1 / (c2 + root), (root - c2) / (3 * c3))
    return np.where(np.isfinite(u), u, np.nan)


@dataclass(frozen=True, eq=False)
class Akima:
    """Akima's (1970) piecewise cubic through the mean loss at each of k sizes."""

    knots: np.ndarray
    """[k], rising."""
    name: ClassVar[str] = "akima"
    min_sizes: ClassVar[int] = 5
    """Akima's slope at a point is computed from five points."""
    extrapolates: ClassVar[bool] = False
    """It has no value beyond its knots."""

    def design(self, u: np.ndarray) -> np.ndarray:
        """1 where a run has a size, else 0, [m, k]."""
        return (np.abs(np.round(u, 9)[:, None] - self.knots) < 1e-8).astype(np.float64)

    def missed(self, u: np.ndarray) -> None:
        """None: an interpolant misses nothing."""

    def value(self, u: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Loss at abscissae u; nan beyond the knots."""
        from scipy.interpolate import Akima1DInterpolator  # .2 s that a parabola does not cost

        inside = (u >= self.knots[0] - 1e-9) & (u <= self.knots[-1] + 1e-9)
        values = Akima1DInterpolator(self.knots, coefficients)(np.clip(u, self.knots[0], self.knots[-1]))
        return np.where(inside, values, np.nan)

    def vertex(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Abscissa and loss of the lowest point, [...] each; at an end where the curve is lowest there."""
        u, y, _ = self._lowest(np.atleast_2d(coefficients))
        shape = np.shape(coefficients)[:-1]
        return u.reshape(shape), y.reshape(shape)

    def lowest_within(self, coefficients: np.ndarray, low: float, high: float, y: np.ndarray) -> np.ndarray:
        """True: its minimum is the lowest point of all."""
        return np.asarray(np.isfinite(y))

    def curvature(self, coefficients: np.ndarray) -> float:
        """Half the second derivative at the lowest point; nan where that is an end."""
        return float(self._lowest(np.atleast_2d(coefficients))[2][0])

    def vertex_errors(self, coefficients: np.ndarray, covariance: np.ndarray) -> tuple[float, float, float]:
        """The errors from normal draws (always the same), divided by the share of them that has a minimum inside.

        The abscissa's is at least a third of the sizes' spacing: between two sizes the interpolant's own choice of
        shape decides where the minimum lies.
        """
        if not np.isfinite(covariance).all():
            return UNKNOWN
        draws = np.random.default_rng(0).standard_normal((AKIMA_DRAWS, len(self.knots)))
        u, y, bend = self._lowest(coefficients + draws * np.sqrt(np.diag(covariance)))
        inside = (u > self.knots[0]) & (u < self.knots[-1])
        if inside.mean() < 0.5:
            return UNKNOWN
        spacing = float(self.knots[-1] - self.knots[0]) / (len(self.knots) - 1)
        least = max(float(u[inside].std()), AKIMA_RESOLUTION * spacing)
        share = float(inside.mean())
        return least / share, float(y[inside].std()) / share, float(np.nanstd(bend[inside])) / share

    def _lowest(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(abscissa, loss, half the second derivative), [n] each, of the lowest point of n curves [n, k]."""
        from scipy.interpolate import Akima1DInterpolator

        c3, c2, c1, c0 = Akima1DInterpolator(self.knots, losses.T).c  # [k - 1, n] each
        s = _lowest_at(c1, c2, c3)
        s = np.where((s >= 0) & (s <= np.diff(self.knots)[:, None]), s, np.nan)
        y = c0 + s * (c1 + s * (c2 + s * c3))
        at = np.concatenate([np.where(np.isnan(y), np.inf, y), losses.T])
        where = np.concatenate([self.knots[:-1, None] + s, np.broadcast_to(self.knots[:, None], losses.T.shape)])
        bends = np.concatenate([_root(c1, c2, c3), np.full_like(losses.T, np.nan)])
        pick = np.argmin(at, axis=0)[None]
        u, low, bend = (np.take_along_axis(v, pick, 0)[0] for v in (where, at, bends))
        return u, low, bend


Curve = Polynomial | Akima


def make_curve(name: str, u: np.ndarray) -> Curve:
    """The curve for runs at abscissae u [m]."""
    return Akima(distinct(u)) if name == "akima" else Polynomial({"quadratic": 2, "cubic": 3}[name])


def within_window(u: np.ndarray, y: np.ndarray, name: str, half: float) -> np.ndarray:
    """Whether each run lies in the window around the minimum of the runs in the window, [m].

    The window moves until it stands still, and widens to the nearest sizes where it holds too few for a curve.

    Args:
        u: log abscissae, [m].
        y: losses, [m].
        name: of the curve.
        half: half width of the window, in log abscissa.
    """
    inside = np.ones(len(u), bool)
    for _ in range(RECENTRINGS):
        curve = make_curve(name, u[inside])
        center = np.clip(_window_center(curve, u[inside], y[inside]), u.min(), u.max())
        far = np.abs(distinct(u) - center)
        reach = max(half, float(np.sort(far)[min(curve.min_sizes, len(far)) - 1])) + 1e-8
        moved = np.abs(u - center) <= reach
        if (moved == inside).all():
            break
        inside = moved
    return inside


def _window_center(curve: Curve, u: np.ndarray, y: np.ndarray) -> float:
    """The minimum of the runs' curve; the best run where the curve has none."""
    best = float(u[np.argmin(y)])
    if len(distinct(u)) < curve.min_sizes:
        return best
    vertex = float(curve.vertex(np.linalg.pinv(curve.design(u)) @ y)[0])
    return vertex if np.isfinite(vertex) else best
