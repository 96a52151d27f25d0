"""Laws floor + k C^a by least squares on log loss, for many draws at once; families may share the floor and the slope.

The objective is the sum of squares of log loss - log(floor + k C^a). Its weights are fixed, so a floor that comes near
the lowest loss takes no point out of the sum, and a law without a floor is the case floor = 0 of the same objective.
(The straight line through log(loss - floor) with weights ((loss - floor) / loss)^2 equals it to first order only: its
weight vanishes where the floor meets a loss. It gives the starts here, and no result.)

Levenberg and Marquardt's method starts from several floors. The floor stays between 0 and the lowest loss; the exact
minimum at floor 0 is always among the candidates, so that no result is worse than the power law.
"""

from dataclasses import dataclass

import numpy as np

HIGHEST = 1 - 1e-6
"""The largest floor that is tried, as a share of the lowest loss."""
STARTS = (0.0, 0.5, 0.8, 0.94, 0.985)
"""Floors to start from, as shares of the lowest loss."""
FIRST_STEPS, STEPS = 3, 60
"""Steps at each start's own floor, and at most with a free floor from the best start."""
SETTLED = 1e-9
"""Relative decrease of the objective below which a draw is done: its floor is then off by 1e-4 of its own error."""
MOST_DAMPING = 1e8
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Saturated:
    """n draws of the laws of F families: log (loss - floor) = level + slope * log C."""

    floor: np.ndarray
    """[n], nats per token."""
    level: np.ndarray
    """[n, F]; nan where a family has fewer than two budgets."""
    slope: np.ndarray
    """[n, F]."""
    cost: np.ndarray
    """Sum of squared residuals of log loss, all families together, [n]."""


@dataclass(frozen=True, eq=False)
class _Problem:
    """n draws of P points: y = log loss, the design of log (loss - floor), and which points there are."""

    y: np.ndarray
    """[n, P]."""
    design: np.ndarray
    """[n, P, q]."""
    known: np.ndarray
    """[n, P], 1 or 0."""
    highest: np.ndarray
    """The largest floor, [n]."""

    def rows(self, at: np.ndarray) -> "_Problem":
        return _Problem(self.y[at], self.design[at], self.known[at], self.highest[at])

    def cost(self, floor: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Sum of squared residuals, [n]."""
        return (self._residual(floor, theta)[0] ** 2).sum(1)

    def _residual(self, floor: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals, the part above the floor and the prediction, [n, P] each."""
        above = np.exp(np.clip((self.design @ theta[:, :, None])[:, :, 0], -700, 700))
        predicted = np.maximum(floor[:, None] + above, TINY)
        return (self.y - np.log(predicted)) * self.known, above, predicted

    def step(
        self, floor: np.ndarray, theta: np.ndarray, damping: np.ndarray, free: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """One damped Gauss-Newton step: the new floors, held within their range, and the new theta."""
        residual, above, predicted = self._residual(floor, theta)
        by_floor = self.known / predicted
        by_theta = (above * by_floor)[:, :, None] * self.design
        transposed = by_theta.transpose(0, 2, 1)
        normal = transposed @ by_theta
        size = np.arange(normal.shape[1])
        normal[:, size, size] *= 1 + damping[:, None]
        normal[:, size, size] += 1e-14 + TINY
        right = transposed @ np.stack([residual, by_floor], axis=2)
        solved = np.linalg.solve(normal, right)
        move = np.zeros_like(floor)
        if free:
            slack = (by_floor**2).sum(1) * (1 + damping) - (right[:, :, 1] * solved[:, :, 1]).sum(1)
            pull = (by_floor * residual).sum(1) - (right[:, :, 1] * solved[:, :, 0]).sum(1)
            move = np.clip(floor + pull / np.maximum(slack, TINY), 0.0, self.highest) - floor
        return floor + move, theta + solved[:, :, 0] - move[:, None] * solved[:, :, 1]

    def linearised(self, floor: np.ndarray) -> np.ndarray:
        """Theta [n, q] of the straight lines through log (loss - floor); exact where the floor is 0."""
        loss = np.exp(self.y)
        above = np.maximum(loss - floor[:, None], 1e-9 * loss)
        weight = (above / loss) ** 2 * self.known
        weighted = self.design.transpose(0, 2, 1) * weight[:, None, :]
        normal = weighted @ self.design
        size = np.arange(normal.shape[1])
        normal[:, size, size] += 1e-14 * normal[:, size, size] + TINY
        return np.linalg.solve(normal, (weighted @ np.log(above)[:, :, None]))[:, :, 0]


def fit_floors(
    log_c: list[np.ndarray], log_l: list[np.ndarray], floor: np.ndarray | None = None, one_slope: bool = False
) -> Saturated:
    """The laws of least squared residuals of log loss, with one floor for all families.

    Args:
        log_c: one [n, B] a family, log FLOPs; nan marks a budget that the draw lost.
        log_l: log losses, as log_c.
        floor: [n] nats per token, where it is given; None fits it.
        one_slope: the families have one slope; by default each has its own.
    """
    problem, centers = _stacked(log_c, log_l, one_slope)
    if floor is not None:
        theta = _descend(problem, floor, problem.linearised(floor), free=False)[1]
    else:
        floor, theta = _best(problem)
    cost = problem.cost(floor, theta)
    families = len(log_c)
    slope = np.broadcast_to(theta[:, families:], (len(theta), families))
    known = np.stack([(np.isfinite(c) & np.isfinite(z)).sum(1) >= 2 for c, z in zip(log_c, log_l, strict=True)], 1)
    level = np.where(known, theta[:, :families] - slope * centers, np.nan)
    return Saturated(floor, level, np.where(known, slope, np.nan), cost)


def _stacked(log_c: list[np.ndarray], log_l: list[np.ndarray], one_slope: bool) -> tuple[_Problem, np.ndarray]:
    """All families' points as one problem, and the mean log FLOPs [n, F] that its slopes turn around."""
    known = [np.isfinite(c) & np.isfinite(z) for c, z in zip(log_c, log_l, strict=True)]
    count = [np.maximum(k.sum(1), 1) for k in known]
    centers = [np.where(k, c, 0.0).sum(1) / m for k, c, m in zip(known, log_c, count, strict=True)]
    dx = [np.where(k, c - at[:, None], 0.0) for k, c, at in zip(known, log_c, centers, strict=True)]
    y = np.concatenate([np.where(k, z, 0.0) for k, z in zip(known, log_l, strict=True)], axis=1)
    there = np.concatenate(known, axis=1)
    family = np.repeat(np.arange(len(log_c)), [c.shape[1] for c in log_c])
    own = np.broadcast_to(family[:, None] == np.arange(len(log_c)), (*there.shape, len(log_c)))
    slopes = np.concatenate(dx, axis=1)[:, :, None] * (np.ones((1, 1, 1)) if one_slope else own)
    lowest = np.exp(np.where(there, y, np.inf).min(1))
    highest = HIGHEST * np.where(np.isfinite(lowest), lowest, 1.0)
    design = np.concatenate([own, slopes], axis=2).astype(np.float64)
    return _Problem(y, design, there.astype(np.float64), highest), np.stack(centers, axis=1)


def _best(problem: _Problem) -> tuple[np.ndarray, np.ndarray]:
    """Floor [n] and theta [n, q] of the least cost from all starts; the exact law without a floor where none is less.

    The starts run as draws of one larger problem.
    """
    n, starts = len(problem.y), len(STARTS)
    every = problem.rows(np.tile(np.arange(n), starts))
    floor = np.repeat(STARTS, n) * every.highest
    theta = _descend(every, floor, every.linearised(floor), free=False, steps=FIRST_STEPS)[1]
    cost = every.cost(floor, theta).reshape(starts, n)
    at = np.argmin(cost, axis=0) * n + np.arange(n)
    best_floor, best_theta = _descend(problem, floor[at], theta[at], free=True)
    none = np.zeros(n)
    straight = problem.linearised(none)
    better = problem.cost(best_floor, best_theta) < problem.cost(none, straight)
    return np.where(better, best_floor, 0.0), np.where(better[:, None], best_theta, straight)


def _descend(
    problem: _Problem, floor: np.ndarray, theta: np.ndarray, free: bool, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Floors and thetas after damped steps that never raise the cost; draws that have settled are left alone."""
    floor, theta = floor.copy(), theta.copy()
    cost, damping = problem.cost(floor, theta), np.full(len(floor), 1e-3)
    active = np.arange(len(floor))
    for _ in range(steps):
        part = problem if len(active) == len(floor) else problem.rows(active)
        new_floor, new_theta = part.step(floor[active], theta[active], damping[active], free)
        new_cost = part.cost(new_floor, new_theta)
        better = new_cost < cost[active]
        gained = np.where(better, cost[active] - new_cost, 0.0)
        done = (better & (gained <= SETTLED * cost[active])) | (damping[active] > MOST_DAMPING)
        moved = active[better]
        floor[moved], theta[moved], cost[moved] = new_floor[better], new_theta[better], new_cost[better]
        damping[active] *= np.where(better, 0.1, 10.0)
        active = active[~done]
        if not len(active):
            break
    return floor, theta
