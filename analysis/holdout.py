"""Hold-out: fit below a budget, predict above it, and report the error. The one test of a law that costs no new run."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.bootstrap import fit_law
from analysis.frontier import flop_column
from analysis.isoflop_fit import IsoFlopFit, fit_recipe
from analysis.load import numbers, select, usable_runs
from analysis.power_law import PowerLaw, SaturatingPowerLaw, fit_saturating_power_law, t_quantile
from analysis.wording import family_name, scientific

QUANTITIES = ("loss_opt", "n_opt", "d_opt")
FEWEST_FOR_A_FLOOR = 4


def holdout(fit: IsoFlopFit, budget_max: float, convention: str = "smdm_6nd", level: float = 0.95) -> pd.DataFrame:
    """Predictions of the minima above `budget_max` from those at or below it, a row a minimum, quantity and law.

    Columns: family, budget, quantity (loss_opt, n_opt, d_opt), law (power_law; for the loss also saturating, with the
    family's own floor, from four budgets on), predicted, observed, error (predicted / observed - 1; for the loss also
    `error_nats`), lower and upper (Student-t prediction interval of the power law; nan with two budgets below),
    inside (None without interval).

    Args:
        fit: the whole sweep; what lies below is fitted again by the same recipe, noise and all.
        budget_max: FLOPs as planned.
        convention: how FLOPs are counted.
        level: of the prediction intervals.

    Raises:
        ValueError: nothing to predict above, or in no family two minima below.
    """
    runs = fit.runs.copy()
    runs.loc[runs["excluded_reason"] == "outside the window", "excluded_reason"] = ""
    below = select(runs, numbers(runs, "budget") <= budget_max * (1 + 1e-6))
    if usable_runs(below).empty:
        raise ValueError(f"budget_max = {budget_max:.4g}: no usable run lies at or below it; {_range(fit)}")
    trained = fit_recipe(below, fit.recipe)
    rows: list[dict[str, Any]] = []
    for family in fit.families:
        above = fit.minima_of(family)
        above = select(above, numbers(above, "budget") > budget_max * (1 + 1e-6))
        if len(above) and len(trained.minima_of(family)) >= 2:
            rows += _family(trained, family, above, convention, level)
    if not rows:
        need = "a family with two usable minima at or below it and one above"
        raise ValueError(f"budget_max = {budget_max:.4g}: needs {need}; {_range(fit)}")
    return pd.DataFrame(rows)


def _range(fit: IsoFlopFit) -> str:
    spans = []
    for family in fit.families:
        budgets = numbers(fit.minima_of(family), "budget")
        spans.append(f"{family_name(family)} has {', '.join(scientific(b) for b in budgets) or 'none'}")
    return "usable budgets: " + "; ".join(spans)


def _family(
    trained: IsoFlopFit, family: str, above: pd.DataFrame, convention: str, level: float
) -> list[dict[str, Any]]:
    """Rows of one family."""
    rows = []
    column = flop_column(convention)
    c_below, c_above = numbers(trained.minima_of(family), column), numbers(above, column)
    for quantity in QUANTITIES:
        law = fit_law(trained, family, quantity, convention)
        laws: dict[str, PowerLaw | SaturatingPowerLaw] = {} if law is None else {"power_law": law}
        if quantity == "loss_opt" and len(c_below) >= FEWEST_FOR_A_FLOOR:
            losses = numbers(trained.minima_of(family), "loss_opt")
            laws["saturating"] = fit_saturating_power_law(c_below, losses, "free")
        for name, fitted in laws.items():
            predicted, observed = fitted.predict(c_above), numbers(above, quantity)
            half = _half_width(fitted, c_below, c_above, level)
            for i, budget in enumerate(numbers(above, "budget")):
                low, high = predicted[i] * np.exp(-half[i]), predicted[i] * np.exp(half[i])
                inside = bool(low <= observed[i] <= high) if np.isfinite(half[i]) else None
                rows.append({
                    "family": family, "budget": budget, "quantity": quantity, "law": name,
                    "predicted": float(predicted[i]), "observed": float(observed[i]),
                    "error": float(predicted[i] / observed[i] - 1),
                    "error_nats": float(predicted[i] - observed[i]) if quantity == "loss_opt" else float("nan"),
                    "lower": float(low), "upper": float(high), "inside": inside,
                })  # fmt: skip
    return rows


def _half_width(law: PowerLaw | SaturatingPowerLaw, below: np.ndarray, above: np.ndarray, level: float) -> np.ndarray:
    """Half width [n], in log y, of the prediction interval of a new minimum; nan where there is none."""
    if isinstance(law, SaturatingPowerLaw):
        return np.full(len(above), np.nan)
    x, center = np.log(above), float(np.log(below).mean())
    spread = float(((np.log(below) - center) ** 2).sum())
    leverage = 1 + 1 / len(below) + (x - center) ** 2 / spread
    return t_quantile(level, law.dof) * law.residual_sd * np.sqrt(leverage)
