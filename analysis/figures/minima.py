"""What figures draw of a family: its minima against compute with their errors, the power law, and the law's draws."""

from dataclasses import dataclass

import numpy as np

from analysis.laws.frontier import Frontier
from analysis.laws.power_law import PowerLaw, t_quantile
from analysis.minima.bootstrap import Bootstrap, fit_law, law_interval
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, select
from mdm_jax.results import flop_column

MOST_ERROR = 10.0
"""The longest error bar of a log quantity, so that an unbounded one can still be drawn."""


@dataclass(frozen=True, eq=False)
class FamilyMinima:
    """One quantity at a family's B usable minima, by rising compute."""

    family: str
    flops: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    """Lengths of the error bars below and above each value, [2, B]; 0 where the error is unknown."""
    law: PowerLaw | None
    draws: tuple[np.ndarray, np.ndarray] | None
    """Bootstrap draws of the law: (log coefficient, exponent), [n] each."""
    level: float

    @property
    def frontier(self) -> Frontier:
        """The minima as a frontier, where the quantity is the loss."""
        return Frontier(self.family, self.flops, self.values)

    @property
    def exponent_interval(self) -> tuple[float, float] | None:
        """Percentile interval of the law's exponent, or None without draws."""
        return None if self.draws is None else law_interval(self.draws, self.level)["exponent"]

    def band(self, flops: np.ndarray) -> np.ndarray | None:
        """Ends of the law's interval at these FLOPs, [2, C], or None where no draw has a law."""
        if self.draws is None or not np.isfinite(self.draws[1]).any():
            return None
        log_k, exponent = (draw[np.isfinite(self.draws[1]), None] for draw in self.draws)
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        return np.exp(np.quantile(log_k + exponent * np.log(flops), tails, axis=0))


def family_minima(
    fit: IsoFlopFit, quantity: str, convention: str, draws: Bootstrap | None, level: float
) -> list[FamilyMinima]:
    """The families that have a usable minimum, in the order of their names.

    Args:
        fit: from `fit_isoflop`.
        quantity: "loss_opt", "n_opt" or "d_opt".
        convention: how FLOPs are counted; minima whose FLOPs are unknown are left out.
        draws: bootstrap of the fit, or None for laws without an interval.
        level: of the error bars and of the law's interval.
    """
    column, found = flop_column(convention), []
    for family in sorted(fit.families):
        rows = fit.minima_of(family).sort_values(column, kind="stable")
        rows = select(rows, np.isfinite(rows[column]))
        if rows.empty:
            continue
        values = numbers(rows, quantity)
        half = t_quantile(level, float(rows["noise_dof"].iloc[0])) * numbers(rows, f"{quantity}_se")
        factor = np.exp(np.minimum(np.nan_to_num(half / values), MOST_ERROR))
        log_errors = np.array([values - values / factor, values * factor - values])
        errors = np.tile(np.nan_to_num(half), (2, 1)) if quantity == "loss_opt" else log_errors
        law = fit_law(fit, family, quantity, convention)
        drawn = draws.power_laws(family, quantity, convention) if draws and family in draws.families else None
        found.append(FamilyMinima(family, numbers(rows, column), values, errors, law, drawn, level))
    return found
