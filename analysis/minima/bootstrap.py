"""Bootstrap of an IsoFLOP fit: thousands of refits of every minimum, from which laws and gaps get their intervals.

Runs are not resampled with replacement: 44% of the resamples of seven sizes hold at most four different sizes, and 58%
of the resamples of five hold at most three, through which a parabola passes exactly. The design stays, and the *losses*
are perturbed (residual bootstrap, Davison and Hinkley 1997, ch. 6):

* unit="run": a run's error is a residual of its family, drawn with replacement from all budgets. Residuals are
  divided by sqrt(1 - leverage) and their own standard deviation, so that they have unit variance, and multiplied by
  the run's standard deviation, sqrt(noise_sd^2 + loss_se_mc^2). All runs of a budget move together besides, by the
  scatter between budgets where the minima show one (`analysis.minima.scatter`).
* unit="budget": a budget's minimum moves by a residual of log loss, log N and log D (drawn together) around the
  family's power laws, with the same correction. This carries the law's own lack of fit, and scatter from budget to
  budget by it, so that none is added.

Each draw is also divided by sqrt(chi2 / dof), one factor a family: the noise is itself estimated, from few degrees of
freedom, and without this factor intervals are those of a normal where Student's t is due. How often the resulting
intervals cover the truth is measured by `benchmarks/coverage.py`; docs/analysis.md has the table.

A draw whose curve has no minimum within the swept sizes, or within half their range beyond, has lost that budget.
Lost draws are counted, never redrawn. What is left of such a draw is read as a sweep with one budget fewer would be:
laws and interpolation go through its other minima, and only a draw with fewer than two is unknown. Budgets' errors are
independent, so those are fair draws of a poorer sweep, and wider: with .02 nats of noise and sizes from N*/1.8 to
1.8 N*, where 64% of the draws lost a budget, the 95% intervals of three laws covered the truth in 98 to 100% of 135
sweeps; at N*/3 to 3 N* (7% lost) in 93 to 97% of 150. Counting every such draw as unknown made the former infinite.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.laws.power_law import PowerLaw, fit_power_law, lines
from analysis.minima.cells import AT_VERTEX, QUANTITIES, Cell, least_supported
from analysis.minima.fit import IsoFlopFit
from analysis.minima.scatter import UNKNOWN_SCATTER, Scatter, scatter_added, student_factors
from analysis.runs.load import numbers
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT, UNITS, check_bootstrap
from analysis.tables import drawn_minimum_row, html_table
from mdm_jax.files.results import flop_column

BEYOND = 0.5
"""A draw's vertex is read up to this far beyond the swept sizes, in units of their log range."""
IN_A_TAIL = 5
"""Draws that must lie beyond either end of an interval, for the end to be one of many and not the wildest."""
BLOCK = 1 << 16
"""Redrawn losses that are in memory at a time, 512 KiB. Arrays of 2 MiB take four times as long to draw, because the
system gives and takes their memory anew each time."""


@dataclass(frozen=True, eq=False)
class FamilyDraws:
    """n draws of a family's B usable minima, [n, B] each; nan where the draw lost the budget."""

    budgets: np.ndarray
    log_loss: np.ndarray
    log_at: dict[str, np.ndarray]
    """log of n_opt, d_opt and FLOPs under each convention."""
    outside: np.ndarray
    """Share of draws whose vertex left the swept sizes, [B]."""
    lost: np.ndarray
    """Share of draws without a usable minimum, [B]."""
    log_minimum: dict[str, np.ndarray]
    """The fit's own minima: log of loss_opt, n_opt, d_opt and FLOPs, [B] each."""

    def by_compute(self, convention: str) -> np.ndarray:
        """Positions of the budgets whose FLOPs are known, by rising FLOPs: those of `IsoFlopFit.frontier`."""
        log_c = self.log_minimum[flop_column(convention)]
        order = np.argsort(log_c, kind="stable")
        return order[np.isfinite(log_c[order])]


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Draws of every family's minima; the same seed gives the same draws.

    Other families of the fit enter a family's draws only by the degrees of freedom of the scatter between budgets.
    """

    unit: str
    n: int
    seed: int
    families: dict[str, FamilyDraws]
    scatter: dict[str, Scatter] = field(default_factory=dict)
    """Scatter between budgets that the draws add, by family; empty where they add none."""

    def frontier(self, family: str, convention: str = "smdm_6nd") -> tuple[np.ndarray, np.ndarray]:
        """Draws of (log FLOPs, log loss), [n, B] each, in the order and with the budgets of `IsoFlopFit.frontier`."""
        draws = self.families[family]
        log_c = draws.log_at[flop_column(convention)]
        order = draws.by_compute(convention)
        return log_c[:, order], draws.log_loss[:, order]

    def power_laws(self, family: str, y: str, convention: str = "smdm_6nd") -> tuple[np.ndarray, np.ndarray]:
        """Draws of (log coefficient, exponent), [n] each, of y ("loss_opt", "n_opt", "d_opt") against FLOPs."""
        draws = self.families[family]
        values = draws.log_loss if y == "loss_opt" else draws.log_at[y]
        return lines(draws.log_at[flop_column(convention)], values)

    def minimum_rows(self) -> list[dict[str, Any]]:
        """A row a minimum: family, budget, share of lost draws, and (value, lower, upper) of loss_opt, n_opt, d_opt."""
        rows = []
        for family, draws in self.families.items():
            drawn = {"loss_opt": draws.log_loss, "n_opt": draws.log_at["n_opt"], "d_opt": draws.log_at["d_opt"]}
            for i, budget in enumerate(draws.budgets):
                row: dict[str, Any] = {"family": family, "budget": float(budget), "lost": float(draws.lost[i])}
                for name, values in drawn.items():
                    ends = np.nanquantile(values[:, i], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                    row[name] = tuple(np.exp([draws.log_minimum[name][i], *ends]).tolist())
                rows.append(row)
        return rows

    def _repr_html_(self) -> str:
        return html_table([drawn_minimum_row(row) for row in self.minimum_rows()])


def bootstrap(fit: IsoFlopFit, unit: str = UNIT, n: int = DRAWS, seed: int = SEED) -> Bootstrap:
    """Refits of every usable minimum, n times (residual bootstrap, Davison and Hinkley 1997, ch. 6).

    Runs are not resampled: 44% of the resamples of seven sizes hold at most four. The design stays, and errors are
    drawn around the fitted curves (unit="run": of each run, from its family's residuals and `loss_se_mc`, and of each
    budget, from the scatter of the minima around smooth laws unless the fit's recipe ignores it) or around the power
    laws through the minima (unit="budget", which carries scatter from budget to budget and the law's lack of fit).

    Args:
        fit: from `fit_isoflop`; families without a usable minimum are left out.
        unit: "run" (errors of runs) or "budget" (errors of minima around the family's laws; needs three of them).
        n: draws, 1 to 1,000,000.
        seed: any integer from 0.

    Raises:
        ValueError: an unknown unit, or n or seed out of range.
    """
    check_bootstrap(unit, UNITS, n, seed)
    families = {}
    scatter = scatter_added(fit) if unit == "run" else {}
    factors = student_factors(scatter, np.random.default_rng([seed, 2]), n)[:, None]
    for family in fit.families:
        cells = fit.cells_of(family, "ok")
        name = zlib.crc32(family.encode())
        rng = np.random.default_rng([seed, name])
        if unit == "run" and cells and np.isfinite(fit.noise[family].sd):
            # a stream of its own, so that runs' errors are the same with scatter and without
            unit_moves = np.random.default_rng([seed, name, 1]).standard_normal((n, len(_fitted(fit, family))))
            sd = scatter.get(family, UNKNOWN_SCATTER).sd
            families[family] = _run_draws(fit, family, cells, rng, sd * factors * unit_moves)
        elif unit == "budget" and len(cells) >= 3:
            families[family] = _budget_draws(fit, family, cells, rng, n)
    return Bootstrap(unit, n, seed, families, scatter)


def _student_factor(rng: np.random.Generator, dof: float | int, n: int) -> np.ndarray:
    """[n] factors that turn residuals of known scale into ones whose scale was estimated from dof."""
    return np.sqrt(dof / rng.chisquare(dof, n)) if np.isfinite(dof) else np.ones(n)


def _run_draws(
    fit: IsoFlopFit, family: str, cells: list[Cell], rng: np.random.Generator, moves: np.ndarray
) -> FamilyDraws:
    """Draws of a family's minima from its runs' errors; `moves` [n, fitted budgets] shifts a budget's losses, in nats.

    Errors are drawn for every fitted budget, and only the usable ones (`cells`) are kept. So two fits of the same runs
    draw the same errors, even if a budget is usable in one of them alone.
    """
    n = len(moves)
    pool = _unit_residuals(fit, family)
    factor = _student_factor(rng, fit.noise[family].dof, n)[:, None]
    log_loss, outside, lost = [], [], []
    log_at: dict[str, list[np.ndarray]] = {name: [] for name in AT_VERTEX}
    for cell, move in zip(_fitted(fit, family), moves.T, strict=True):
        coefficients, least = _redrawn_curves(cell, pool, factor, rng)
        if cell not in cells:
            continue
        u, own = cell.curve.vertex(coefficients)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # draws without a minimum, lost below
            y = own + (move / np.exp(own) if fit.log_loss else move)
        low, high = cell.swept
        beyond = ~((u >= low) & (u <= high))
        reach = BEYOND * (high - low) if cell.curve.extrapolates else -1e-9
        good = (u >= low - reach) & (u <= high + reach) & (fit.log_loss | (y > 0))
        good &= cell.curve.lowest_within(coefficients, low, high, own) & (own >= least)
        u = np.where(good, u, np.nan)
        y = np.where(good, y, np.nan)
        log_loss.append(y if fit.log_loss else np.log(y))
        for name in AT_VERTEX:
            log_at[name].append(np.log(cell.read(name, u)))
        outside.append(float(beyond.mean()))
        lost.append(float(1 - good.mean()))
    stacked = {name: np.stack(values, axis=1) for name, values in log_at.items()}
    budgets = np.array([cell.budget for cell in cells])
    own = _log_minima(fit, family)
    return FamilyDraws(budgets, np.stack(log_loss, axis=1), stacked, np.array(outside), np.array(lost), own)


def _redrawn_curves(
    cell: Cell, pool: np.ndarray | None, factor: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients [n, k] of the curves through redrawn losses, and the least minima [n] that these losses support.

    A block of draws is made at a time, so that memory does not grow with draws times runs.

    Args:
        cell: the budget's runs.
        pool: residuals of unit variance that errors are drawn from; None draws normal errors.
        factor: Student's factors, [n, 1].
        rng: gives the same errors for any size of the blocks.
    """
    sd, by_size, rows = np.sqrt(cell.variance), cell.by_size(), max(BLOCK // len(cell.y), 1)
    coefficients, least = [], []
    for first in range(0, len(factor), rows):
        own = factor[first : first + rows]
        shape = (len(own), len(cell.y))
        unit = rng.standard_normal(shape) if pool is None else rng.choice(pool, shape)
        redrawn = cell.y + unit * own * sd
        coefficients.append(redrawn @ cell.smoother.T)
        least.append(least_supported(redrawn, by_size))
    return np.concatenate(coefficients), np.concatenate(least)


def _fitted(fit: IsoFlopFit, family: str) -> list[Cell]:
    """The family's budgets with a curve, also those whose minimum is not usable."""
    return [cell for cell in fit.cells_of(family) if cell.fitted]


def _log_minima(fit: IsoFlopFit, family: str) -> dict[str, np.ndarray]:
    rows = fit.minima_of(family)
    return {name: np.log(numbers(rows, name)) for name in ("loss_opt", *AT_VERTEX)}


def _unit_residuals(fit: IsoFlopFit, family: str) -> np.ndarray | None:
    """The family's residuals from all fitted budgets, scaled to unit variance; zeros where the fit is exact.

    None where normal errors are drawn: the curve passes through every size, or the noise was given.
    """
    if fit.curve == "akima" or fit.recipe.known_noise(family) is not None:
        return None
    pool = []
    for cell in _fitted(fit, family):
        free = np.maximum(1 - np.einsum("mk,km->m", cell.design, cell.smoother), 1e-6)
        if (cell.variance > 0).all():
            pool.append((cell.y - cell.design @ cell.coefficients) / np.sqrt(free * cell.variance))
    if not pool:
        return np.zeros(1)
    return _standardised(np.concatenate(pool))


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    sd = np.sqrt((centred**2).mean())
    return centred / sd if sd > 0 else centred


def _budget_draws(fit: IsoFlopFit, family: str, cells: list[Cell], rng: np.random.Generator, n: int) -> FamilyDraws:
    minima = fit.minima_of(family)
    log_c = np.log(numbers(minima, "budget"))
    values = np.log(np.stack([numbers(minima, name) for name in QUANTITIES], axis=1))
    design = np.stack([np.ones_like(log_c), log_c - log_c.mean()], axis=1)
    hat = design @ np.linalg.pinv(design)
    dof = len(log_c) - 2
    residual = (values - hat @ values) / np.sqrt(np.maximum(1 - np.diag(hat), 1e-6))[:, None]
    residual -= residual.mean(0)
    scale = np.sqrt(((values - hat @ values) ** 2).sum(0) / dof) / np.maximum(np.sqrt((residual**2).mean(0)), 1e-300)
    picks = rng.integers(len(log_c), size=(n, len(log_c)))
    factor = _student_factor(rng, dof, n)[:, None, None]
    moved = values + residual[picks] * scale * factor
    log_at = {"n_opt": moved[:, :, 1], "d_opt": moved[:, :, 2]}
    moving = 2 if fit.x == "tokens" else 1
    shift = moved[:, :, moving] - values[:, moving]
    for column in (name for name in AT_VERTEX if name not in log_at):
        log_at[column] = np.log(_at_moved_size(cells, column, shift))
    none = np.zeros(len(log_c))
    own = _log_minima(fit, family)
    return FamilyDraws(numbers(minima, "budget"), moved[:, :, 0], log_at, none, none, own)


def _at_moved_size(cells: list[Cell], column: str, shift: np.ndarray) -> np.ndarray:
    """FLOPs [n, B] where the log abscissa is `shift` away from each vertex, held within the swept sizes."""
    out = []
    for index, cell in enumerate(cells):
        out.append(cell.read(column, np.clip(cell.vertex[0] + shift[:, index], *cell.swept)))
    return np.stack(out, axis=1)


def check_draws(n: int, level: float) -> None:
    """Refuses draws that are too few for an interval of this level.

    Raises:
        ValueError: they are too few.
    """
    least = int(np.ceil(2 * IN_A_TAIL / (1 - level) - 1e-9))
    if n < least:
        raise ValueError(f"draws = {n}: too few for a {level:.4g} interval, which needs {least}; draw more, or none")


def law_interval(draws: tuple[np.ndarray, np.ndarray], level: float) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a law's coefficient and exponent from `Bootstrap.power_laws`.

    Raises:
        ValueError: too few draws for the level.
    """
    check_draws(len(draws[0]), level)
    log_k, exponent = (values[np.isfinite(values)] for values in draws)
    tails = [(1 - level) / 2, (1 + level) / 2]
    if not len(exponent):
        nothing = (float("nan"), float("nan"))
        return {"coefficient": nothing, "exponent": nothing}
    k, a = np.exp(np.quantile(log_k, tails)), np.quantile(exponent, tails)
    return {"coefficient": (float(k[0]), float(k[1])), "exponent": (float(a[0]), float(a[1]))}


def fit_law(
    fit: IsoFlopFit, family: str, y: str, convention: str = "smdm_6nd", weighted: bool = False
) -> PowerLaw | None:
    """The power law of y ("loss_opt", "n_opt", "d_opt") against FLOPs through a family's usable minima, or None.

    Args:
        fit: from `fit_isoflop`.
        family: whose minima.
        y: the column of `minima`.
        convention: how FLOPs are counted.
        weighted: by the inverse variance of log y at each minimum, where all of them are known.
    """
    rows = fit.minima_of(family)
    flops, values = numbers(rows, flop_column(convention)), numbers(rows, y)
    known = np.isfinite(flops)
    if known.sum() < 2:
        return None
    relative = numbers(rows, f"{y}_se")[known] / values[known]
    weights = 1 / relative**2 if weighted and (relative > 0).all() else None
    return fit_power_law(flops[known], values[known], weights)
