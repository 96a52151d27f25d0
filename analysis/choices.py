"""What a report says beside its intervals: the parametric gap, the sensitivity to every choice, and model error."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.frontier import Frontier
from analysis.gap import GapCurve
from analysis.parametric import fit_parametric
from analysis.parametric_bootstrap import bootstrap_parametric
from analysis.parametric_gap import parametric_gap
from analysis.wording import family_name

PARAMETRIC_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class ParametricGaps:
    """The gap by parametric fits, where both converged."""

    point: GapCurve
    """At the headline's loss."""
    curve: GapCurve
    at_arm: GapCurve


def parametric_gaps(
    runs: pd.DataFrame, arm: Frontier, mdm: Frontier, target: float, budgets: np.ndarray, n: int, seed: int,
    level: float,
) -> tuple[ParametricGaps | None, str]:  # fmt: skip
    """The three curves, or None and why there are none. Runs are redrawn around the surfaces (unit="noise").

    Args:
        runs: from `read_runs`.
        arm: the ARM's minima under smdm_6nd, which is how a surface counts.
        mdm: the MDM's.
        target: nats per token, of `point`.
        budgets: the ARM's FLOPs, of `at_arm`.
        n: draws, of which at most PARAMETRIC_DRAWS are made.
        seed: of the draws.
        level: of the intervals.
    """
    fits = []
    for family in ("arm", "mdm"):
        try:
            fit = fit_parametric(runs, family=family)
        except ValueError as refusal:
            return None, f"{family_name(family)}: {refusal}"
        if not fit.converged:
            return None, f"{family_name(family)}: {fit.reason}"
        fits.append(fit)
    count = min(n, PARAMETRIC_DRAWS)
    sampled = [bootstrap_parametric(fit, "noise", count, seed, backend="numpy") for fit in fits]
    pair, draws = (fits[0], fits[1]), (sampled[0], sampled[1])
    point = parametric_gap(arm, mdm, pair, "loss", np.array([target]), draws, level)
    curve = parametric_gap(arm, mdm, pair, "loss", None, draws, level)
    at_arm = parametric_gap(arm, mdm, pair, "flops", budgets, draws, level)
    return ParametricGaps(point, curve, at_arm), ""


def spread(gaps: dict[tuple[str, str], GapCurve], convention: str, index: int) -> tuple[float, float] | None:
    """The lowest and the highest ratio that laws give at one place; None with fewer than two laws."""
    ratios = [float(gap.ratio[index]) for (c, _), gap in gaps.items() if c == convention]
    known = [ratio for ratio in ratios if np.isfinite(ratio)]
    return (min(known), max(known)) if len(known) >= 2 else None
