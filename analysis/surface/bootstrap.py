"""Bootstrap of a parametric fit: thousands of refits, from which E, A, B, alpha, beta and the optimum get intervals.

unit="run" resamples runs with replacement, which needs no model of their errors and is what the literature reports
(Besiroglu et al. 2024). unit="budget" resamples whole budgets, for errors that the runs of a budget share; with five
budgets it is rough. unit="noise" keeps the design and draws losses around the fitted surface (parametric bootstrap):
residuals drawn with replacement, but for the five that a robust fit passes through, scaled to each run's own scatter
where `loss_se_mc` gave the runs different weights, and widened by Student's factor as in `minima/bootstrap.py`. It
takes the scatter to be the same all over the plane: on the Chinchilla points, where large models scatter twice as
much as small ones, its standard errors are half of those of "run".

In 1200 simulated sweeps (benchmarks/parametric_coverage.py: 5 budgets by 7 sizes, eight cells of noise, spacing and
centring) the 95% interval of the parametric gap held the truth in 94 to 98% of a cell's sweeps with "run", in 94 to 97%
with "noise" and in 92 to 98% with "budget"; at ten times the ARM's largest budget in 95 to 99%, 93 to 96% and 91 to
97%. "run" is the default and what reports use. The sweeps' truth has the surface's form: its error is in none of them.

Resampled runs carry their Monte Carlo error with them, so `loss_se_mc` enters through the weights only. Refits start
from the full fit. A refit that does not converge is nan, counted in `lost` and never drawn again.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from analysis import sampling
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT, check_bootstrap
from analysis.surface.fit import PARAMETERS, ParametricFit, solver_theta
from analysis.surface.frontier import SIX_ND, SurfaceFrontier, TokenCost
from analysis.surface.problem import centred, natural
from analysis.surface.solver import Points, minimise

UNITS = (*sampling.UNITS, "noise")
CHUNK = 512
"""Resamples between two calls of `progress`. They are drawn and fitted at once, or in parts if there are many runs."""
BLOCK = 1 << 20
"""Most weights, and most losses, that are drawn at once: 8 MiB each."""


@dataclass(frozen=True, eq=False)
class ParametricDraws:
    """n refits; the same seed gives the same draws. nan where one did not converge."""

    unit: str
    n: int
    seed: int
    family: str
    E: np.ndarray
    A: np.ndarray
    B: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray

    @property
    def lost(self) -> float:
        """Share of draws that did not converge."""
        return float(np.isnan(self.alpha).mean())

    def standard_errors(self) -> dict[str, float]:
        """Standard deviation of each parameter over the draws; B's has a heavy tail, so prefer its interval."""
        return {name: float(np.nanstd(getattr(self, name))) for name in PARAMETERS}

    def intervals(self, level: float = LEVEL) -> dict[str, tuple[float, float]]:
        """Percentile intervals of the parameters and of the exponents of N* and D*."""
        tails = [(1 - level) / 2, (1 + level) / 2]
        a = self.beta / (self.alpha + self.beta)
        drawn = {name: getattr(self, name) for name in PARAMETERS}
        drawn |= {"n_exponent": a, "d_exponent": 1 - a}
        ends = {name: np.nanquantile(values, tails) for name, values in drawn.items()}
        return {name: (float(low), float(high)) for name, (low, high) in ends.items()}

    def frontier(self, cost: TokenCost = SIX_ND) -> SurfaceFrontier:
        """Every draw's compute-optimal frontier: log FLOPs [n, G] of log losses, nan at or below a draw's E.

        Args:
            cost: FLOPs per token, `ParametricFit.token_cost(convention)`; 6 N by default.
        """
        terms = np.stack([self.E, np.log(self.A), np.log(self.B), self.alpha, self.beta])[:, :, None]
        return SurfaceFrontier(terms, cost)

    def predict_interval(
        self, fit: ParametricFit, n: np.ndarray, d: np.ndarray, level: float = LEVEL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Percentile interval (lower, upper), nats per token, [m] each, of the loss of new runs.

        A new run's own error is a residual of the fit, drawn for each draw.

        Args:
            fit: what was redrawn.
            n: parameters of the new runs, [m].
            d: their training tokens, [m].
            level: of the interval.
        """
        log_n, log_d = np.log(n)[None, :], np.log(d)[None, :]
        E, A, B, alpha, beta = (values[:, None] for values in (self.E, self.A, self.B, self.alpha, self.beta))
        losses = E + A * np.exp(-alpha * log_n) + B * np.exp(-beta * log_d)
        pool, rng = _pool(fit), np.random.default_rng([self.seed, zlib.crc32(self.family.encode()), 1])
        error = rng.choice(pool, losses.shape)
        new = losses * np.exp(error) if fit.criterion.space == "log" else losses + error
        low, high = np.nanquantile(new, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


def bootstrap_parametric(
    fit: ParametricFit,
    unit: str = UNIT,
    n: int = DRAWS,
    seed: int = SEED,
    progress: Callable[[int, int], None] | None = None,
) -> ParametricDraws:
    """Refits of resampled runs, n times, each started from the full fit.

    "run" resamples runs with replacement (Besiroglu et al. 2024), which supposes nothing about their errors; "budget"
    whole budgets, for errors that their runs share; "noise" keeps the runs and draws their errors from the residuals.

    Args:
        fit: converged, from `fit_parametric`.
        unit: "run", "budget" (needs runs that name three budgets or more) or "noise".
        n: draws, 1 to 1,000,000.
        seed: any integer from 0.
        progress: called with (draws done, n) after every 512.

    Raises:
        ValueError: a fit that is not converged, an unknown unit, or n or seed out of range.
    """
    check_bootstrap(unit, UNITS, n, seed)
    if not fit.converged:
        raise ValueError(f"fit: is not converged ({fit.reason}), so its refits would mean nothing")
    runs, huber = fit.runs, fit.criterion.huber
    points, means = centred(runs, huber.log)
    resamples = _resamples(fit, unit, points.y, np.random.default_rng([seed, zlib.crc32(fit.family.encode())]))
    start, theta, fitted = solver_theta(fit, means), np.empty((n, 5)), 0
    for weights, y in resamples:
        state = minimise(np.tile(start, (len(weights), 1)), weights, Points(points.u, points.v, y), huber)
        found = np.where(state.done[:, None], state.theta, np.nan)
        theta[fitted : fitted + len(found)] = found[: n - fitted]
        fitted = min(fitted + len(found), n)
        if progress is not None and (fitted == n or fitted % CHUNK == 0):
            progress(fitted, n)
        if fitted == n:
            break
    return ParametricDraws(unit, n, seed, fit.family, *natural(theta, means))


def _pool(fit: ParametricFit) -> np.ndarray:
    """The residuals that errors are drawn from, in units where the runs' weights are 1, as wide as the errors are."""
    scaled, parameters = fit.residuals * np.sqrt(fit.runs.weights), len(PARAMETERS)
    if fit.criterion.loss == "squares":
        return scaled * np.sqrt(len(scaled) / max(len(scaled) - parameters, 1))
    return scaled[np.argsort(np.abs(scaled))[parameters:]]  # a robust fit passes through that many runs


def _resamples(
    fit: ParametricFit, unit: str, y: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights and targets, [k, m] each, of block after block of resamples, without end. `BLOCK` changes no number.

    Raises:
        ValueError: budgets are asked for, and the runs do not name three of them.
    """
    runs = len(y)
    blocks = np.split(np.arange(CHUNK), np.arange(0, CHUNK, max(BLOCK // runs, 1))[1:])
    if unit == "noise":
        return _redrawn_noise(fit, y, rng, blocks)
    groups, member = np.arange(runs), np.arange(runs)
    if unit == "budget":
        groups, member = np.unique(fit.runs.budgets, return_inverse=True)
        if not np.isfinite(fit.runs.budgets).all() or len(groups) < 3:
            raise ValueError("unit = 'budget': needs runs that name three budgets or more; use 'run' or 'noise'")
    even = np.full(len(groups), 1 / len(groups))
    return (
        (
            rng.multinomial(len(groups), even, len(rows))[:, member] * fit.runs.weights,
            np.broadcast_to(y, (len(rows), runs)),
        )
        for rows in itertools.chain.from_iterable(itertools.repeat(blocks))
    )


def _redrawn_noise(
    fit: ParametricFit, y: np.ndarray, rng: np.random.Generator, blocks: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights of the runs, and losses drawn around the fitted surface."""
    scale, dof, pool = np.sqrt(fit.runs.weights), len(y) - len(PARAMETERS), _pool(fit)
    fitted = y - fit.residuals
    while True:
        student = np.sqrt(dof / rng.chisquare(dof, (CHUNK, 1)))  # the scatter is itself an estimate
        for rows in blocks:
            shape = (len(rows), len(y))
            yield np.broadcast_to(fit.runs.weights, shape), fitted + rng.choice(pool, shape) * student[rows] / scale
