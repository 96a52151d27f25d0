"""What figures draw, as plain arrays: IsoFLOP curves, and minima against compute with their errors and their law."""

from dataclasses import dataclass

import numpy as np

from analysis.laws.power_law import PowerLaw, fit_power_law, t_quantile
from analysis.minima.bootstrap import Bootstrap, check_draws, law_interval
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, select, usable_runs
from analysis.wording import family_name
from mdm_jax.files.results import flop_column

MOST_ERROR = 10.0
"""The longest error bar of a log quantity, so that an unbounded one can still be drawn."""


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """One budget of one family: its n runs, the curve through them, and its minimum."""

    family: str
    budget: float
    status: str
    x: np.ndarray
    """Abscissae of the runs, [n]."""
    loss: np.ndarray
    line: tuple[np.ndarray, np.ndarray] | None
    """Abscissae and losses of the fitted curve."""
    minimum: tuple[float, float]
    x_errors: np.ndarray
    """Lengths of the minimum's error bar below and above, [2, 1]."""


@dataclass(frozen=True, eq=False)
class LawLine:
    """A family's power law, its draws, and its line over C values of compute."""

    law: PowerLaw
    flops: np.ndarray
    values: np.ndarray
    band: np.ndarray | None
    """Ends of the interval of the law's values, [2, C], or None without draws."""
    exponents: np.ndarray
    """Bootstrap draws of the exponent, [n], nan where a draw has no law; empty without draws."""
    exponent_interval: tuple[float, float] | None
    """Percentile interval of the exponent, or None without draws that have a law."""


@dataclass(frozen=True, eq=False)
class FamilyMinima:
    """One quantity at a family's B usable minima, by rising compute."""

    family: str
    name: str
    """The family's name, with a word where the values are losses that are bounds."""
    flops: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    """Lengths of the error bars below and above each value, [2, B]; 0 where the error is unknown."""
    line: LawLine | None
    """The power law, from two minima on."""


def budget_curves(fit: IsoFlopFit, level: float) -> list[BudgetCurve]:
    """All budgets of all families.

    Args:
        fit: from `fit_isoflop`.
        level: of the minima's intervals.
    """
    found = []
    for cell, row in zip(fit.cells, fit.minima.to_dict("records"), strict=True):
        runs, line = fit.runs.iloc[cell.rows], None
        if cell.fitted:
            x = np.exp(np.linspace(*cell.swept, 200) + cell.center)
            line = x, fit.predict(cell, x)
        half = t_quantile(level, row["noise_dof"]) * row["log_x_se"]
        errors = row["x_opt"] * np.array([[-np.expm1(-half)], [np.expm1(half)]])
        best, x, loss = (row["x_opt"], row["loss_opt"]), numbers(runs, fit.x), numbers(runs, "loss")
        found.append(BudgetCurve(cell.family, cell.budget, row["status"], x, loss, line, best, errors))
    return found


def family_minima(
    fit: IsoFlopFit, quantity: str, convention: str, draws: Bootstrap | None, level: float, reach: float = 0.5
) -> list[FamilyMinima]:
    """The families that have a usable minimum, in the order of their names.

    Args:
        fit: from `fit_isoflop`.
        quantity: "loss_opt", "n_opt" or "d_opt".
        convention: how FLOPs are counted; minima whose FLOPs are unknown are left out.
        draws: bootstrap of the fit, or None for laws without an interval.
        level: of the error bars and of the law's interval.
        reach: how far a law's line goes beyond the minima, as a share of their log range of compute.

    Raises:
        ValueError: too few draws for the level.
    """
    if draws is not None:
        check_draws(draws.n, level)
    found, column = [], flop_column(convention)
    for family in sorted(fit.families):
        rows = fit.minima_of(family).sort_values(column, kind="stable")
        rows = select(rows, np.isfinite(rows[column]))
        if rows.empty:
            continue
        flops, values = numbers(rows, column), numbers(rows, quantity)
        half = t_quantile(level, float(rows["noise_dof"].iloc[0])) * numbers(rows, f"{quantity}_se")
        factor = np.exp(np.minimum(np.nan_to_num(half / values), MOST_ERROR))
        log_errors = np.array([values - values / factor, values * factor - values])
        errors = np.tile(np.nan_to_num(half), (2, 1)) if quantity == "loss_opt" else log_errors
        law = fit_power_law(flops, values) if len(flops) >= 2 else None
        drawn = draws.power_laws(family, quantity, convention) if draws and family in draws.families else None
        line = _line(law, drawn, np.log(flops), level, reach) if law is not None else None
        name = name_with_bound(fit, family) if quantity == "loss_opt" else family_name(family)
        found.append(FamilyMinima(family, name, flops, values, errors, line))
    return found


def _line(
    law: PowerLaw, drawn: tuple[np.ndarray, np.ndarray] | None, log_c: np.ndarray, level: float, reach: float
) -> LawLine:
    beyond = reach * np.ptp(log_c)
    grid = np.linspace(log_c.min() - beyond, log_c.max() + beyond, 200)
    flops, values = np.exp(grid), law.predict(np.exp(grid))
    if drawn is None or not np.isfinite(drawn[1]).any():
        return LawLine(law, flops, values, None, np.empty(0) if drawn is None else drawn[1], None)
    log_k, exponents = (draw[np.isfinite(drawn[1]), None] for draw in drawn)
    band = np.exp(np.quantile(log_k + exponents * grid, [(1 - level) / 2, (1 + level) / 2], axis=0))
    return LawLine(law, flops, values, band, drawn[1], law_interval(drawn, level)["exponent"])


def name_with_bound(fit: IsoFlopFit, family: str) -> str:
    """The family's name, with a word where its losses are bounds."""
    used = usable_runs(fit.runs)
    bounded = "nelbo" in set(used.loc[used["family"] == family, "loss_kind"])
    return family_name(family) + (" (NELBO, a bound)" if bounded else "")
