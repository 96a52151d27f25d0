"""Hold-out: fit below a budget, predict above it, and report the error. The one test of a law that costs no new run.

Laws through IsoFLOP minima predict the minima above; a parametric surface predicts every run above.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws.names import LawName
from analysis.laws.power_law import PowerLaw
from analysis.laws.saturating import SaturatingPowerLaw, fit_saturating_power_law
from analysis.minima.bootstrap import fit_law
from analysis.minima.cells import QUANTITIES, without_window
from analysis.minima.fit import IsoFlopFit, fit_recipe
from analysis.runs.load import numbers, select, usable_runs
from analysis.sampling import LEVEL
from analysis.surface.bootstrap import bootstrap_parametric
from analysis.surface.fit import ParametricFit, fit_parametric, fit_surface
from analysis.wording import family_name, scientific
from mdm_jax.files.results import flop_column

RUN_LOSS = "run_loss"
FEWEST_FOR_A_FLOOR = 4
FEWEST_BELOW = 3
DRAWS = 400
SLACK = 1 + 1e-6
"""Budgets equal to rounding are one."""


def holdout(
    fit: IsoFlopFit | ParametricFit,
    budget_max: float | Mapping[str, float],
    convention: str = "smdm_6nd",
    level: float = LEVEL,
) -> pd.DataFrame:
    """Predictions for the budgets above `budget_max`, from a fit of those at or below it.

    An IsoFLOP fit gives one row for each minimum, quantity and law; a parametric fit one row for each run. Columns:
    family, budget, quantity (loss_opt, n_opt, d_opt; run_loss), law (power_law; for the loss also saturating, with the
    family's own floor, from four budgets on; parametric), floor (nats per token; nan for laws without one),
    floor_undetermined, predicted, observed, error (predicted / observed - 1), error_nats (for losses), lower and upper
    (prediction interval of a new minimum, Student's t, or of a new run, from bootstrapped surfaces and their residuals;
    nan where too few budgets lie below), inside (None without interval).

    Args:
        fit: the whole sweep; its runs at or below `budget_max` are fitted again by the same recipe.
        budget_max: FLOPs as planned (6 N D of a run that names no budget), of all families or by family.
        convention: how the laws of an IsoFLOP fit count FLOPs; a surface is one of N and D.
        level: of the prediction intervals.

    Raises:
        ValueError: nothing to predict above, or too little below: two minima of a family, or the runs of a surface
            that converges.
    """
    if isinstance(fit, ParametricFit):
        return pd.DataFrame(_runs_above(fit, budget_max, level))
    return pd.DataFrame(_minima_above(fit, budget_max, convention, level))


def largest_held_out(fit: IsoFlopFit, level: float, surfaces: Mapping[str, ParametricFit]) -> pd.DataFrame:
    """`holdout` of the losses of each family's largest usable budget, by laws and by the surface of its runs.

    Empty where no family has three usable budgets below. A surface that does not converge below gives no row.

    Args:
        fit: the whole sweep.
        level: of the prediction intervals.
        surfaces: by family, where they are fitted already.
    """
    below: dict[str, float] = {}
    for family in fit.families:
        budgets = np.sort(numbers(fit.minima_of(family), "budget"))
        if len(budgets) > FEWEST_BELOW:
            below[family] = float(budgets[-2])
    if not below:
        return pd.DataFrame()
    rows = [row for row in _minima_above(fit, below, "smdm_6nd", level) if row["quantity"] == "loss_opt"]
    for family, budget in below.items():
        try:
            whole = surfaces.get(family) or fit_parametric(without_window(fit.runs), family=family)
            rows += _runs_above(whole, {family: budget}, level)
        except ValueError:  # too few runs, or no converged surface: the laws' rows stand alone
            continue
    return pd.DataFrame(rows)


def summarise_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Held-out runs gathered by family and budget: runs, bias and rms error (nats), share of them inside."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        if row["quantity"] == RUN_LOSS:
            groups.setdefault((row["family"], float(f"{row['budget']:.6g}")), []).append(row)
    out = []
    for (family, budget), group in sorted(groups.items()):
        errors = np.array([row["error_nats"] for row in group])
        error = {"bias_nats": float(errors.mean()), "rms_nats": float(np.sqrt((errors**2).mean()))}
        inside = sum(bool(row["inside"]) for row in group)
        out.append({"family": family, "budget": budget, "runs": len(group), **error, "inside": inside})
    return out


def _largest_fitted_budget(budget_max: float | Mapping[str, float], family: str) -> float:
    """The largest budget that is fitted; everything of a family that the mapping leaves out."""
    return SLACK * (budget_max.get(family, math.inf) if isinstance(budget_max, Mapping) else budget_max)


def _asked(budget_max: float | Mapping[str, float]) -> str:
    values = budget_max.values() if isinstance(budget_max, Mapping) else (budget_max,)
    return "budget_max = " + ", ".join(f"{value:.4g}" for value in values)


def _minima_above(
    fit: IsoFlopFit, budget_max: float | Mapping[str, float], convention: str, level: float
) -> list[dict[str, Any]]:
    """Rows of all families of an IsoFLOP fit."""
    runs = without_window(fit.runs)
    limits = np.array([_largest_fitted_budget(budget_max, str(family)) for family in runs["family"]])
    below = select(runs, numbers(runs, "budget") <= limits)
    if usable_runs(below).empty:
        raise ValueError(f"{_asked(budget_max)}: no usable run lies at or below it; {_usable_budgets(fit)}")
    trained = fit_recipe(below, fit.recipe)
    rows: list[dict[str, Any]] = []
    for family in fit.families:
        above = fit.minima_of(family)
        above = select(above, numbers(above, "budget") > _largest_fitted_budget(budget_max, family))
        if len(above) and len(trained.minima_of(family)) >= 2:
            rows += _family_above(trained, family, above, convention, level)
    if not rows:
        need = "a family with two usable minima at or below it and one above"
        raise ValueError(f"{_asked(budget_max)}: needs {need}; {_usable_budgets(fit)}")
    return rows


def _usable_budgets(fit: IsoFlopFit) -> str:
    spans = []
    for family in fit.families:
        budgets = numbers(fit.minima_of(family), "budget")
        spans.append(f"{family_name(family)} has {', '.join(scientific(b) for b in budgets) or 'none'}")
    return "usable budgets: " + "; ".join(spans)


def _family_above(
    trained: IsoFlopFit, family: str, above: pd.DataFrame, convention: str, level: float
) -> list[dict[str, Any]]:
    """Rows of one family."""
    rows = []
    column = flop_column(convention)
    c_below, c_above = numbers(trained.minima_of(family), column), numbers(above, column)
    for quantity in QUANTITIES:
        law = fit_law(trained, family, quantity, convention)
        laws: dict[str, PowerLaw | SaturatingPowerLaw] = {} if law is None else {LawName.POWER_LAW.value: law}
        if quantity == "loss_opt" and len(c_below) >= FEWEST_FOR_A_FLOOR:
            losses = numbers(trained.minima_of(family), "loss_opt")
            laws[LawName.SATURATING.value] = fit_saturating_power_law(c_below, losses, "free")
        for name, fitted in laws.items():
            ends = fitted.prediction_interval(c_above, level)
            law_of = {"family": family, "quantity": quantity, "law": name}
            law_of |= {"floor": fitted.floor, "floor_undetermined": fitted.floor_undetermined}
            predicted = fitted.predict(c_above)
            rows += _prediction_rows(law_of, numbers(above, "budget"), predicted, numbers(above, quantity), ends)
    return rows


def _runs_above(fit: ParametricFit, budget_max: float | Mapping[str, float], level: float) -> list[dict[str, Any]]:
    """Rows of one family's runs."""
    runs = fit.runs
    compute = np.where(np.isfinite(runs.budgets), runs.budgets, 6 * runs.n * runs.d)
    above = compute > _largest_fitted_budget(budget_max, fit.family)
    if not above.any() or above.all():
        side = "above" if not above.any() else "at or below"
        span = f"they have {scientific(float(compute.min()))} to {scientific(float(compute.max()))}"
        raise ValueError(f"{_asked(budget_max)}: no run of {family_name(fit.family)} lies {side} it; {span}")
    below = fit_surface(runs.only(~above), fit.criterion)
    if not below.converged:
        raise ValueError(f"{_asked(budget_max)}: the surface of the runs below is not converged: {below.reason}")
    draws = bootstrap_parametric(below, n=DRAWS)
    n, d = runs.n[above], runs.d[above]
    ends = draws.predict_interval(below, n, d, level)
    law_of = {"family": fit.family, "quantity": RUN_LOSS, "law": LawName.PARAMETRIC.value}
    law_of |= {"floor": below.E, "floor_undetermined": below.floor_vanished}
    return _prediction_rows(law_of, compute[above], below.predict(n, d), runs.losses[above], ends)


def _prediction_rows(
    law_of: dict[str, Any],
    budgets: np.ndarray,
    predicted: np.ndarray,
    observed: np.ndarray,
    ends: tuple[np.ndarray, ...],
) -> list[dict[str, Any]]:
    """One row a prediction; `law_of` says which law of which family predicts what, and its floor."""
    rows, in_nats = [], "loss" in law_of["quantity"]
    for budget, said, seen, low, high in zip(budgets, predicted, observed, *ends, strict=True):
        row = {"family": law_of["family"], "budget": float(budget), **law_of}
        row |= {"predicted": float(said), "observed": float(seen), "error": float(said / seen - 1)}
        row |= {"error_nats": float(said - seen) if in_nats else math.nan, "lower": float(low), "upper": float(high)}
        rows.append(row | {"inside": bool(low <= seen <= high) if np.isfinite(low) else None})
    return rows
