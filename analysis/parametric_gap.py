"""The compute gap by parametric fits: the families' surfaces, each minimised over N and D at C = 6 N D.

Of the laws it is the one that uses all runs, not only the minima, and it gives each family its own floor. Near either
floor the ratio grows without bound or vanishes, and which of the two is decided by a parameter that no run reaches.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.frontier import Frontier, overlap
from analysis.gap import EXTRAPOLATED, GRID_POINTS, INTERPOLATED, GapCurve, percentile_interval
from analysis.parametric import ParametricFit, fit_parametric
from analysis.parametric_bootstrap import ParametricDraws
from mdm_jax.spec import FlopConvention

LAW = "parametric"
CONVENTION = FlopConvention.SMDM_6ND.value


def fit_families(runs: pd.DataFrame, families: Iterable[str]) -> tuple[dict[str, ParametricFit], dict[str, str]]:
    """Converged surfaces by family, and for every other family why it has none."""
    fits, doubts = {}, {}
    for family in families:
        try:
            fit = fit_parametric(runs, family=family)
        except ValueError as error:  # too few runs or sizes for a surface: a finding, not the end of a report
            doubts[family] = str(error)
            continue
        if fit.converged:
            fits[family] = fit
        else:
            doubts[family] = fit.reason
    return fits, doubts


def parametric_gap(
    arm: Frontier,
    mdm: Frontier,
    fits: tuple[ParametricFit, ParametricFit],
    at: str = "loss",
    grid: np.ndarray | None = None,
    draws: tuple[ParametricDraws, ParametricDraws] | None = None,
    level: float = 0.95,
) -> GapCurve:
    """Ratio of compute, C_MDM / C_ARM, at equal loss; nan at or below a floor.

    Args:
        arm: the ARM's minima, which say where the ratio is supported; under smdm_6nd, the surfaces' own convention.
        mdm: the MDM's.
        fits: of the ARM and of the MDM, converged.
        at: what `grid` holds: "loss" (nats per token) or "flops" (the ARM's).
        grid: where to evaluate, [G]; by default the union of the loss ranges.
        draws: bootstraps of the two fits, of equal length; they give the interval.
        level: of the interval.

    Raises:
        ValueError: an unknown `at`, another convention, a fit that is not converged, no minima, or draws that differ in
            length.
    """
    _check(arm, mdm, fits, at, draws, level)
    laws = [fit.optimum.loss_law for fit in fits]
    log_l = _log_losses(arm, mdm, fits[0], at, grid)
    log_arm, log_mdm = (np.log(law.invert(np.exp(log_l))) for law in laws)
    shared = overlap(arm, mdm)
    inside = np.zeros(len(log_l), bool)
    if shared is not None:
        inside = (log_l >= np.log(shared[0]) - 1e-12) & (log_l <= np.log(shared[1]) + 1e-12)
    nothing = np.full(len(log_l), np.nan)
    lower, upper, unknown = nothing, nothing, nothing
    if draws is not None:
        drawn_arm, drawn_mdm = (side.log_flops(log_l) for side in draws)
        lower, upper, unknown = percentile_interval(drawn_mdm - drawn_arm, level)
    bound = any(law.at_bound for law in laws)
    return GapCurve(
        at, LAW, CONVENTION, level, np.exp(log_l), np.exp(log_arm), np.exp(log_mdm), np.exp(log_mdm - log_arm),
        lower, upper, np.where(inside, INTERPOLATED, EXTRAPOLATED), unknown, shared, float("nan"), bound,
    )  # fmt: skip


def _check(
    arm: Frontier, mdm: Frontier, fits: tuple[ParametricFit, ParametricFit], at: str,
    draws: tuple[ParametricDraws, ParametricDraws] | None, level: float,
) -> None:  # fmt: skip
    if at not in ("loss", "flops"):
        raise ValueError(f"at = {at!r}: must be 'loss' or 'flops'")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: must be between 0 and 1")
    for side, fit in zip((arm, mdm), fits, strict=True):
        if side.convention != CONVENTION:
            raise ValueError(f"convention = {side.convention!r}: surfaces are minimised at C = 6ND, use {CONVENTION!r}")
        if not len(side.loss):
            raise ValueError(f"{side.family}: no usable minimum, so nothing says where the gap is supported")
        if not fit.converged:
            raise ValueError(f"{side.family}: the parametric fit is not converged: {fit.reason}")
    if draws is not None and draws[0].n != draws[1].n:
        raise ValueError(f"draws: {draws[0].n} and {draws[1].n}; both families need the same number")


def _log_losses(arm: Frontier, mdm: Frontier, fit: ParametricFit, at: str, grid: np.ndarray | None) -> np.ndarray:
    """Log losses [G] of the grid."""
    law = fit.optimum.loss_law
    if grid is None:
        low, high = (pick(arm.loss_range[i], mdm.loss_range[i]) for i, pick in enumerate((min, max)))
        if at == "loss":
            return np.linspace(np.log(low), np.log(high), GRID_POINTS)
        return np.log(law.predict(np.geomspace(arm.flops.min(), arm.flops.max(), GRID_POINTS)))
    given = np.asarray(grid, np.float64)
    if given.ndim != 1 or not len(given) or not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError("grid: must be a list of finite positive numbers")
    return np.log(given) if at == "loss" else np.log(law.predict(given))
