"""Runs that lie off their curve by more than the other runs of their family explain.

Residuals are externally studentised (Cook and Weisberg 1982): divided by sqrt(1 - leverage) and by a scale estimated
from the other runs, so that a bad run does not make its own scale large. Without an outlier each residual has Student's
distribution, and Bonferroni's rule judges the largest of n. The worst run is set aside and the others are tested again,
until no outlier is left.

All budgets of a family are fitted together, in two ways. The first gives each budget its own parabola, and all budgets
one cubic term. It hides an outlier at the smallest or largest size, because the parabola bends towards it. The second
gives all budgets one shape: each has its own level, and the rest (powers 1 to 4 of the log distance from N*) is shared,
times a power of compute; N* is a power of compute too. Every surface E + A/N^alpha + B/D^beta has that form. The second
way counts only where, without the run in question, the parabolas fit no better (F-test).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.minima.cells import Cell
from analysis.minima.fit import IsoFlopFit

FALSE_ALARM = 0.03
"""Nominal share of clean sweeps in which some run is called an outlier, by either way of fitting; measured .043."""
ONE_SHAPE = 0.05
"""Probability of the F-test below which the budgets' curves have no common shape."""
LEAST_DOF = 3
"""Degrees of freedom without the run, below which nothing is called an outlier."""
ALONE = 1e-6
"""A run whose leverage is that close to one has no residual of its own."""
EXACT = 1e-9
"""Share of a loss that counts as rounding."""
STEEPEST = 1.5
"""Largest power of compute of the common bend, with log C scaled to run from -1 to 1."""


@dataclass(frozen=True)
class Outlier:
    """One run that lies off its curve."""

    family: str
    budget: float
    row: int
    """Position in the fit's table."""
    off: float
    """Nats above the curve of the other runs; negative below."""
    t: float
    """`off` in standard errors that the run itself does not enter."""
    swelling: float
    """The factor by which the run multiplies the scale of the family's residuals."""


@dataclass(frozen=True, eq=False)
class Studentised:
    """What each of m runs does to a least-squares fit."""

    t: np.ndarray
    """Externally studentised residuals, [m]; nan where a run alone decides its own fitted value."""
    deleted: np.ndarray
    """Distance of each run from the fit of the others, [m]."""
    swelling: np.ndarray
    """The factor by which each run multiplies the residual scale, [m]."""
    dof: int
    """Degrees of freedom of the residuals without the run."""


def outliers(fit: IsoFlopFit) -> list[Outlier]:
    """Runs that lie off their curves, family by family, the worst first."""
    cells = [cell for cell in fit.cells if cell.fitted]
    n = sum(len(cell.rows) for cell in cells)
    families = [[cell for cell in cells if cell.family == family] for family in fit.families]
    return [found for own in families if own for found in _family_outliers(own, n, fit.log_loss)]


def _family_outliers(cells: Sequence[Cell], n: int, log_loss: bool) -> list[Outlier]:
    """A family's outliers, where n runs of all families are looked at."""
    y = np.concatenate([cell.y for cell in cells])
    variance = np.concatenate([cell.variance for cell in cells])
    scale = np.sqrt(variance) if (variance > 0).all() else np.ones(len(y))
    rows = np.concatenate([cell.rows for cell in cells])
    budgets = np.repeat([cell.budget for cell in cells], [len(cell.rows) for cell in cells])
    designs = _Designs(cells, scale)
    kept, found = np.ones(len(y), bool), []
    while (worst := designs.worst(y, kept, n)) is not None:
        at, effects = worst
        i = int(np.flatnonzero(kept)[at])
        off = float(effects.deleted[at] * scale[i] * (np.exp(y[i]) if log_loss else 1.0))
        t, swelling = float(effects.t[at]), float(effects.swelling[at])
        found.append(Outlier(cells[0].family, float(budgets[i]), int(rows[i]), off, t, swelling))
        kept[i] = False
    return found


class _Designs:
    """Both ways of fitting all budgets of a family together; rows are divided by the runs' standard deviations."""

    def __init__(self, cells: Sequence[Cell], scale: np.ndarray) -> None:
        lengths = [len(cell.u) for cell in cells]
        member = np.repeat(np.arange(len(cells)), lengths)[:, None] == np.arange(len(cells))
        log_c = np.array([np.log(cell.budget) for cell in cells])
        half = np.ptp(log_c) / 2
        x = (log_c - log_c.min()) / half - 1 if half > 0 else np.zeros(len(log_c))
        centers = np.repeat([cell.center for cell in cells] - _best_sizes(cells, x), lengths)
        self.v = np.concatenate([cell.u for cell in cells]) + centers
        self.x = np.repeat(x, lengths)
        self.member, self.scale = member, scale
        shared = self.v[:, None] ** 3 if len(cells) > 1 else np.zeros((len(self.v), 0))
        own = [member * self.v[:, None] ** power for power in range(3)]
        self.parabolas = np.concatenate([*own, shared], axis=1) / scale[:, None]

    def worst(self, y: np.ndarray, kept: np.ndarray, n: int) -> tuple[int, Studentised] | None:
        """The position among the kept runs of the one that lies off, and what all of them do; None if none does."""
        y, steepness = (y / self.scale)[kept], self._steepness((y / self.scale)[kept], kept)
        own = self.parabolas[kept]
        for design, searched in ((self._one_shape(steepness)[kept], 1), (own, 0)):
            effects = studentised(design, y, searched)
            if effects.dof < LEAST_DOF or not np.isfinite(effects.t).any():
                continue
            at = int(np.nanargmax(np.abs(effects.t)))
            lies_off = abs(effects.t[at]) > _threshold(effects.dof, n)
            if lies_off and (not searched or _one_shape_fits(design, own, y, at)):
                return at, effects
        return None

    def _one_shape(self, steepness: float) -> np.ndarray:
        """Columns of the common shape; the last lets the best size follow a power of compute."""
        shape = self.v[:, None] ** np.arange(1, 5)
        bends = np.exp(steepness * self.x)[:, None] * np.concatenate([shape, (self.x * self.v)[:, None]], axis=1)
        return np.concatenate([self.member, bends], axis=1) / self.scale[:, None]

    def _steepness(self, y: np.ndarray, kept: np.ndarray) -> float:
        """The power of compute with which the common bend fits best."""
        low, high = -STEEPEST, STEEPEST
        best = 0.0
        for _ in range(2):
            grid = np.linspace(low, high, 21)
            best = float(grid[np.argmin([_squares_and_rank(self._one_shape(value)[kept], y)[0] for value in grid])])
            step = grid[1] - grid[0]
            low, high = best - step, best + step
        return best


def _best_sizes(cells: Sequence[Cell], x: np.ndarray) -> np.ndarray:
    """Log abscissa of the minima [B] by a line in x [B], through medians (Theil and Sen), so that one may be wrong."""
    bottoms = np.array([_minimum_within_sizes(cell) for cell in cells])
    first, second = np.triu_indices(len(cells), 1)
    slope = float(np.median((bottoms[second] - bottoms[first]) / (x[second] - x[first]))) if len(first) else 0.0
    return float(np.median(bottoms - slope * x)) + slope * x


def _minimum_within_sizes(cell: Cell) -> float:
    """Log abscissa of the cell's minimum, held within its sizes."""
    u = cell.vertex[0]
    return cell.center + (float(np.clip(u, *cell.swept)) if np.isfinite(u) else 0.0)


def _threshold(dof: int, n: int) -> float:
    """The studentised residual that one of n clean runs reaches with the probability of a false alarm."""
    from scipy.special import stdtrit

    return float(-stdtrit(dof, FALSE_ALARM / (2 * n)))


def _one_shape_fits(one_shape: np.ndarray, own: np.ndarray, y: np.ndarray, without: int) -> bool:
    """Whether, without one run, parabolas of their own fit the budgets no better than one shape does."""
    from scipy.special import fdtrc

    rest = np.arange(len(y)) != without
    (shared, few), (free, many) = (_squares_and_rank(design[rest], y[rest]) for design in (one_shape, own))
    more, dof = many - few - 1, len(y) - 1 - many
    if more <= 0 or dof <= 0 or free <= 0:
        return shared <= 2 * free
    return float(fdtrc(more, dof, max(shared - free, 0.0) / more / (free / dof))) > ONE_SHAPE


def _squares_and_rank(design: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """Squared residuals of a least-squares fit, and its rank."""
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ coefficients) ** 2).sum()), int(rank)


def studentised(design: np.ndarray, y: np.ndarray, searched: int = 0) -> Studentised:
    """Externally studentised residuals of a least-squares fit.

    Args:
        design: [m, p].
        y: [m].
        searched: parameters of the design that were fitted too.
    """
    basis, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, singular > 1e-10 * singular[0]]
    rest = 1 - (basis**2).sum(1)
    residual = y - basis @ (basis.T @ y)
    dof = len(y) - basis.shape[1] - searched - 1
    free = np.where(rest > ALONE, rest, np.nan)
    own, total = residual**2 / free, float(residual @ residual)
    rounding = (EXACT * np.abs(y).max()) ** 2
    if dof < 1 or total < len(y) * rounding:
        unknown = np.full(len(y), np.nan)
        return Studentised(unknown, unknown, unknown, dof)
    without = np.maximum(total - own, rounding) / dof
    return Studentised(residual / np.sqrt(free * without), residual / free, np.sqrt(total / (dof + 1) / without), dof)
