"""How far the gap moves with what an analyst chooses: the law, the floor, the FLOP convention and the curve.

All rows are read at one place, so that they answer one question: at one loss, or at="flops" at one compute of the ARM,
which each law turns into a loss of its own. The rows differ by model error, or rather by the part of it that these laws
show. Their intervals are statistical and do not include it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis.gap.curve import GapCurve, compute_gap, middle_of_overlap
from analysis.gap.surfaces import Surfaces, fit_surfaces
from analysis.laws.names import LawName
from analysis.minima.bootstrap import Bootstrap, bootstrap, check_draws
from analysis.minima.cells import Recipe, without_window
from analysis.minima.choices import CURVES
from analysis.minima.fit import IsoFlopFit, fit_recipe
from analysis.runs.load import numbers, select
from analysis.sampling import DRAWS, LEVEL, SEED
from analysis.wording import MODEL_ERRORS
from mdm_jax.files.results import FLOP_COLUMNS

DEFAULT_LAWS = tuple(
    law.value for law in (LawName.INTERPOLATED, LawName.POWER_LAW, LawName.SHARED_FLOOR, LawName.PARAMETRIC)
)
GIVEN, DETERMINED, UNDETERMINED = "given", "determined", "undetermined"
SURFACE = "surface"
"""The value of `curve` in a parametric row: a surface goes through all runs and has no IsoFLOP curves."""


def gap_sensitivity(
    fit: IsoFlopFit,
    at: str = "loss",
    where: float | None = None,
    laws: Sequence[str] = DEFAULT_LAWS,
    floors: Sequence[float] = (),
    conventions: Sequence[str] | None = None,
    curves: Sequence[str] = CURVES,
    draws: int | Bootstrap = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
    surfaces: Surfaces | None = None,
) -> pd.DataFrame:
    """One row a choice of curve, convention and law, with the gap there or the reason why there is none.

    Columns: curve, convention, law, floor (of both families; nan for laws without), floor_arm, floor_mdm, floor_status
    ("given", or fitted and "determined" or "undetermined" by the minima), loss, flops_arm, ratio, lower, upper,
    support, not_in_interval (the error that the law's interval leaves out) and reason.

    Args:
        fit: the sweep; its runs are fitted again with every curve, the rest of its recipe as it is.
        at: whether `where` is a "loss" or the ARM's "flops".
        where: nats per token, or FLOPs; by default the middle of the fit's overlap, or the ARM's largest budget.
        laws: names in `analysis.gap.laws.GAP_LAWS` but given_floor, and "parametric", which has one row a convention.
        floors: nats per token; each adds a row with the law given_floor.
        conventions: FLOP conventions; by default all whose FLOPs the runs hold.
        curves: IsoFLOP curves. Akima, which has no residuals, takes the noise of the fit.
        draws: how many the bootstrap behind the intervals has, 0 for none; or a bootstrap of the fit, whose unit,
            number of draws and seed the other curves' bootstraps share.
        seed: of the bootstrap, where it is not given.
        level: of the intervals.
        surfaces: of the same runs, from `fit_surfaces`, where they are fitted already.

    Raises:
        ValueError: no default for `where`, because the families share no loss, or an argument out of range, such as
            too few draws for the level.
    """
    own = draws if isinstance(draws, Bootstrap) else bootstrap(fit, n=draws, seed=seed) if draws else None
    if own is not None:
        check_draws(own.n, level)
    where = default_place(fit, at) if where is None else where
    if conventions is None:
        conventions = [c for c, column in FLOP_COLUMNS.items() if np.isfinite(numbers(fit.runs, column)).any()]
    choices = [(law, None) for law in laws if law != LawName.PARAMETRIC]
    choices += [(LawName.GIVEN_FLOOR.value, float(floor)) for floor in floors]
    grid, rows = np.array([where]), []
    for curve in curves:
        other = fit if curve == fit.curve else fit_recipe(without_window(fit.runs), _with_curve(fit, curve))
        sampled = own if other is fit or own is None else bootstrap(other, own.unit, own.n, own.seed)
        for convention in conventions:
            sides = other.frontier("arm", convention), other.frontier("mdm", convention)
            for law, floor in choices:
                read = partial(compute_gap, *sides, at, law, grid, sampled, level, floor)
                rows.append(_row(_choice(curve, convention, law, floor), read))
    if LawName.PARAMETRIC in laws:
        n, start = (own.n, own.seed) if own is not None else (0, seed)
        fitted = surfaces or fit_surfaces(without_window(fit.runs), n, start)
        for convention in conventions:
            sides = fit.frontier("arm", convention), fit.frontier("mdm", convention)
            choice = _choice(SURFACE, convention, LawName.PARAMETRIC.value, None)
            rows.append(_row(choice, partial(fitted.gap, sides, at, grid, level)))
    return pd.DataFrame(rows)


def _choice(curve: str, convention: str, law: str, floor: float | None) -> dict[str, Any]:
    """A row without a ratio."""
    row: dict[str, Any] = {"curve": curve, "convention": convention, "law": law}
    row |= {"floor": math.nan if floor is None else floor, "floor_arm": math.nan, "floor_mdm": math.nan}
    row |= {"floor_status": ""} | dict.fromkeys(("loss", "flops_arm", "ratio", "lower", "upper"), math.nan)
    return row | {"support": "", "not_in_interval": MODEL_ERRORS[law], "reason": ""}


def _row(choice: dict[str, Any], read: Callable[[], GapCurve]) -> dict[str, Any]:
    """The choice with the gap that it gives at one place, or with the reason why it gives none."""
    try:
        gap = read()
    except ValueError as refusal:
        return choice | {"reason": str(refusal)}
    point = vars(gap.points()[0])
    read_there = {name: point[name] for name in ("loss", "flops_arm", "ratio", "lower", "upper", "support")}
    floors = {"floor": gap.floor, "floor_arm": gap.floors[0], "floor_mdm": gap.floors[1]}
    return choice | floors | {"floor_status": _floor_status(gap)} | read_there


def _floor_status(gap: GapCurve) -> str:
    if math.isnan(gap.floors[0]):
        return ""
    if gap.pair.floors[0].given:
        return GIVEN
    return UNDETERMINED if gap.floor_undetermined else DETERMINED


def check_place(fit: IsoFlopFit, at: str, where: float | None) -> None:
    """Refuses a place that no law should be read at, such as a loss where FLOPs were meant.

    Raises:
        ValueError: not a positive number, or far from everything that was measured.
    """
    if where is None:
        return
    if not (math.isfinite(where) and where > 0):
        raise ValueError(f"{at} = {where:g}: must be a positive number, such as {'2.84' if at == 'loss' else '1e19'}")
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    known, factor = (arm.flops, 1e6) if at == "flops" else (np.concatenate([arm.loss, mdm.loss]), 5.0)
    if len(known) and not known.min() / factor <= where <= known.max() * factor:
        meant = f"; was {'loss' if at == 'flops' else 'flops'}={where:g} meant?"
        raise ValueError(
            f"{at} = {where:g}: must be within a factor {factor:g} of what was measured, {known.min():.4g} to "
            f"{known.max():.4g}{meant}"
        )


def default_place(fit: IsoFlopFit, at: str) -> float:
    """The middle of the losses that both families reached, or the ARM's largest budget; see `gap_sensitivity`."""
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    if at == "flops" and len(arm.flops):
        return float(arm.flops.max())
    middle = middle_of_overlap(arm, mdm)
    if middle is None:
        raise ValueError("where: the families share no loss, so there is no default; give the loss to compare at")
    return middle


def _with_curve(fit: IsoFlopFit, curve: str) -> Recipe:
    """The fit's recipe with another curve; Akima is told each family's noise, where no replicates tell it."""
    recipe = replace(fit.recipe, curve=curve)
    if curve != "akima":
        return recipe
    told: dict[str, float] = {}
    for family, noise in fit.noise.items():
        given = recipe.known_noise(family)
        if given is not None:
            told[family] = given
        elif math.isfinite(noise.sd) and not noise.replicate_dof:
            losses = numbers(select(fit.runs, fit.runs["family"] == family), "loss")
            told[family] = noise.sd * (float(np.nanmedian(losses)) if fit.log_loss else 1.0)
    return replace(recipe, noise_sd=told or None)
