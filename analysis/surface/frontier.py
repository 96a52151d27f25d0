"""The compute-optimal frontier of a surface L(N, D) = E + A/N^alpha + B/D^beta, under any way to count FLOPs.

At C = 6 N D the best N, D and loss are in closed form. Under another convention a token costs F(N) FLOPs, known at the
sizes that the sweep ran. F is fitted to them as 6 N (1 + k N^-q), since the parts that 6 N leaves out (head, attention)
weigh less in larger models. Over the sizes of SMDM, 6M to 2.1B parameters, that is within 4% of `exact` and 3% of
`with_head`, which is exactly 6 (N + d V). Minimising L at C = F(N) D gives, with g = dlog F / dlog N,

    A/N^alpha (1 + alpha / (beta g)) = L* - E   and   D* = (beta g B N^alpha / (alpha A))^(1/beta),

so that every N is the best size of one compute, C = F(N) D*. g rises with N, hence the left side falls and one N
belongs to a loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from analysis.laws.law import Law
from analysis.laws.saturating import SaturatingPowerLaw

LEAST_SLOPE = 0.05
"""The least g. If F hardly rises with N, or falls, larger models are free and there is no best size."""
MOST_MISFIT = 0.1
SLACK = 1e-6
"""Logarithm by which a root's bracket is widened, so that rounding does not put the root outside."""
FEWEST_SIZES = 3


@dataclass(frozen=True)
class ComputeOptimal:
    """The best N and D of a surface at C = 6 N D, in closed form.

    N* = G (C/6)^a and D* = (C/6)^b / G, with a = beta/(alpha+beta), b = 1 - a and
    G = (alpha A / (beta B))^(1/(alpha+beta)).
    """

    loss_law: SaturatingPowerLaw
    """L*(C) = E + k C^(-alpha beta / (alpha + beta)), nats per token; `invert` gives the FLOPs of a loss."""
    n_exponent: float
    log_g: float

    @property
    def d_exponent(self) -> float:
        """D* grows as C to this power."""
        return 1 - self.n_exponent

    def n_opt(self, c: np.ndarray | float) -> np.ndarray:
        """The best number of parameters at c FLOPs."""
        return np.asarray(np.exp(self.log_g + self.n_exponent * np.log(np.asarray(c, np.float64) / 6)))

    def d_opt(self, c: np.ndarray | float) -> np.ndarray:
        """The best number of training tokens at c FLOPs."""
        return np.asarray(np.exp(-self.log_g + self.d_exponent * np.log(np.asarray(c, np.float64) / 6)))


def optimum_terms(
    log_a: np.ndarray | float, log_b: np.ndarray | float, alpha: np.ndarray | float, beta: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(log k, s, log G, a) of L* = E + k C^s and N* = G (C/6)^a, of the shape of the arguments.

    A resample whose surface ran away has no optimum: its terms are not finite.
    """
    with np.errstate(all="ignore"):
        total = np.asarray(alpha) + beta
        log_g = (np.log(alpha) + log_a - np.log(beta) - log_b) / total
        slope = np.asarray(alpha) * beta / total
        log_k = np.logaddexp(log_a - alpha * log_g, log_b + beta * log_g) + slope * math.log(6)
    return np.asarray(log_k), np.asarray(-slope), np.asarray(log_g), np.asarray(beta / total)


@dataclass(frozen=True)
class TokenCost:
    """Training FLOPs per token of a model with N parameters: F(N) = 6 N (1 + k N^-q)."""

    log_k: float
    q: float
    misfit: float
    """The largest relative error of F at the sizes that were run."""

    def log_flops(self, log_n: np.ndarray) -> np.ndarray:
        """Log F, of the shape of log N."""
        return np.asarray(math.log(6) + log_n + np.logaddexp(0.0, self.log_k - self.q * log_n))

    def slope(self, log_n: np.ndarray) -> np.ndarray:
        """The exponent g = dlog F / dlog N, of the shape of log N."""
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(self.q * log_n - self.log_k))
        return np.asarray(np.maximum(1 - self.q * share, LEAST_SLOPE))

    @property
    def slopes(self) -> tuple[float, float]:
        """The least and the largest slope."""
        ends = (1.0, max(1 - self.q, LEAST_SLOPE)) if math.isfinite(self.log_k) else (1.0, 1.0)
        return min(ends), max(ends)


SIX_ND = TokenCost(-math.inf, 0.0, 0.0)


def fit_token_cost(n: np.ndarray, flops_per_token: np.ndarray) -> TokenCost:
    """F(N) by least squares in logarithms, from the runs' own parameters and FLOPs per token, [m] each.

    Raises:
        ValueError: FLOPs are unknown or below 6 N, sizes are too few, or F does not describe them.
    """
    if not np.isfinite(flops_per_token).all():
        raise ValueError("some runs lack FLOPs under this convention")
    beyond_6n = flops_per_token / (6 * n) - 1
    if (np.abs(beyond_6n) < 1e-9).all():
        return SIX_ND
    if (beyond_6n <= 0).any():
        raise ValueError(f"a run spends {1 + float(beyond_6n.min()):.3g} times 6 N a token; less than 6 N fits no F(N)")
    if len(np.unique(n)) < FEWEST_SIZES:
        raise ValueError(f"{len(np.unique(n))} sizes do not tell FLOPs per token as a function of N")
    slope, level = np.polyfit(np.log(n), np.log(beyond_6n), 1)
    cost = TokenCost(float(level), -float(slope), misfit=0.0)
    misfit = float(np.abs(np.exp(cost.log_flops(np.log(n))) / flops_per_token - 1).max())
    if misfit > MOST_MISFIT:
        raise ValueError(f"FLOPs per token are no smooth function of N: 6 N (1 + k N^-q) is {misfit:.0%} off")
    return replace(cost, misfit=misfit)


@dataclass(frozen=True, eq=False)
class SurfaceFrontier(Law):
    """The best loss at each compute, of n surfaces at once."""

    terms: np.ndarray
    """E, log A, log B, alpha and beta, [5, n, 1]."""
    cost: TokenCost

    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log FLOPs [n, G] at which the best size reaches log losses [G] or [n, G]; nan at or below a surface's E."""
        floor, log_a, log_b, alpha, beta = self.terms
        with np.errstate(all="ignore"):  # surfaces that ran away have no frontier
            above = np.exp(np.atleast_2d(log_loss)) - floor
            base = log_a - np.log(np.where(above > 0, above, np.nan))
            least, most = self.cost.slopes
            low, high = ((base + np.log1p(alpha / (beta * slope))) / alpha for slope in (most, least))
            log_n = low if least == most else _root(self._too_small, low, high, base, alpha, beta)
            return self._flops_beyond(log_n, log_a, log_b, alpha, beta, np.zeros(1))

    def _too_small(self, log_n: np.ndarray, base: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """A value above 0 where a log size is below the best one of a loss, below 0 where it is above."""
        return base + np.log1p(alpha / (beta * self.cost.slope(log_n))) - alpha * log_n

    def _flops_beyond(
        self,
        log_n: np.ndarray,
        log_a: np.ndarray,
        log_b: np.ndarray,
        alpha: np.ndarray,
        beta: np.ndarray,
        log_c: np.ndarray,
    ) -> np.ndarray:
        """Log FLOPs at which these log sizes are the best, less log_c."""
        ratio = np.log(beta * self.cost.slope(log_n)) + log_b - np.log(alpha) - log_a
        return self.cost.log_flops(log_n) + (ratio + alpha * log_n) / beta - log_c

    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log of the best loss [n, G] at log FLOPs [G] or [n, G]."""
        floor, log_a, log_b, alpha, beta = self.terms
        log_c = np.atleast_2d(log_flops)
        _, _, log_g, a = optimum_terms(log_a, log_b, alpha, beta)
        high = log_g + a * (log_c - math.log(6)) + 5.0
        with np.errstate(all="ignore"):  # surfaces that ran away have no frontier
            log_n = _root(self._flops_beyond, high - 60.0, high, log_a, log_b, alpha, beta, log_c)
            return np.log(floor + np.exp(log_a - alpha * log_n) * (1 + alpha / (beta * self.cost.slope(log_n))))


def _root(f: Callable[..., np.ndarray], low: np.ndarray, high: np.ndarray, *given: np.ndarray) -> np.ndarray:
    """The root of f(x, *given) between low and high, in their shape; nan where an end is nan."""
    from scipy.optimize.elementwise import find_root  # a third of a second that 6 N D does not cost

    return np.asarray(find_root(f, (low - SLACK, high + SLACK), args=given).x)
