"""The compute gap at equal accuracy, beside the gap at equal loss.

The gap is the MDM's training compute divided by the ARM's (6ND). In each family, the log loss and the log odds of a
right answer are lines in the log compute, fitted over the runs whose loss is in the better half of their budget. Both
gaps are read at one compute of the ARM: how much compute takes an MDM to the ARM's accuracy, and how much to its loss?
That compute is the middle of those at which both lines of the MDM, over the compute that was measured, have the ARM's
values. If accuracy says the same as the loss, the ratio of the gaps is 1. Intervals are a bootstrap over runs and
groups of questions. Lines through all budgets are cruder than the report's gap, which interpolates between the minima
of its curves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdm_jax.tasks.capability.draws import FamilyRuns, fitted, interval

SURE = 0.999
"""The share of draws in which an accuracy must rise with compute, so that a compute can be read from it.

The draws in which it does not are left out.
"""
FEWEST_RUNS = 4


@dataclass(frozen=True)
class AccuracyGap:
    """The gap of one task, or why there is none.

    Attributes:
        task: the task, or "all".
        reason: why there is no gap; "" if there is one. Then the other values are numbers.
        accuracy: the share of right answers of an ARM of `arm_flops`.
        arm_flops: compute of the ARM at which the gaps are read.
        at_accuracy: C_MDM / C_ARM at equal accuracy, and its interval.
        at_loss: C_MDM / C_ARM at equal loss, and its interval.
        ratio: gap at equal accuracy divided by that at equal loss, and its interval.
    """

    task: str
    reason: str
    accuracy: float = math.nan
    arm_flops: float = math.nan
    at_accuracy: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    at_loss: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    ratio: tuple[float, float, float] = (math.nan, math.nan, math.nan)


def better_half(runs: FamilyRuns) -> np.ndarray:
    """Which runs have at most the median loss of the runs of their budget."""
    median = {budget: np.median(runs.loss_R[runs.budget_R == budget]) for budget in np.unique(runs.budget_R)}
    return runs.loss_R <= np.array([median[budget] for budget in runs.budget_R])


def accuracy_gaps(runs: Mapping[str, FamilyRuns]) -> list[AccuracyGap]:
    """The gap of each task, and last of all tasks together."""
    chosen = {family: better_half(one) for family, one in runs.items()}
    log_c = {family: np.log(one.flops_R[chosen[family]]) for family, one in runs.items()}
    few = [family for family, x_R in log_c.items() if len(np.unique(x_R)) < FEWEST_RUNS]
    if few:
        return [AccuracyGap(task, f"fewer than {FEWEST_RUNS} {few[0].upper()}s") for task in runs["arm"].logit]
    weights = {family: one.weight[:, chosen[family]] for family, one in runs.items()}

    def lines(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {family: fitted(log_c[family], y, weights[family], 1) for family, y in values.items()}

    losses = lines({f: np.broadcast_to(np.log(one.loss_R[chosen[f]]), weights[f].shape) for f, one in runs.items()})
    return [
        _gap(task, lines({f: one.logit[task][:, chosen[f]] for f, one in runs.items()}), losses, log_c)
        for task in runs["arm"].logit
    ]


def _gap(
    task: str, odds: Mapping[str, np.ndarray], losses: Mapping[str, np.ndarray], log_c: Mapping[str, np.ndarray]
) -> AccuracyGap:
    """The gap of one task from the lines of each draw, [draws, 2]."""
    flat = [family for family, line in odds.items() if (line[1:, 1] > 0).mean() < SURE]
    if flat:
        names = " and ".join(family.upper() for family in flat)
        return AccuracyGap(task, f"the accuracy of the {names} does not surely rise with compute")
    log_arm = _middle_of_matched(odds, losses, log_c)
    if log_arm is None:
        return AccuracyGap(task, "no MDM that was measured has both the accuracy and the loss of an ARM")
    rising = (odds["arm"][:, 1] > 0) & (odds["mdm"][:, 1] > 0)
    log_gap, log_gap_loss = (_matching(lines, log_arm)[rising] - log_arm for lines in (odds, losses))
    found = [_with_interval(values) for values in (log_gap, log_gap_loss, log_gap - log_gap_loss)]
    arm_odds = odds["arm"][0, 0] + odds["arm"][0, 1] * log_arm
    return AccuracyGap(task, "", float(1 / (1 + np.exp(-arm_odds))), float(np.exp(log_arm)), *found)


def _matching(lines: Mapping[str, np.ndarray], log_arm: float | np.ndarray) -> np.ndarray:
    """Log compute at which each draw's MDM has the value of an ARM."""
    arm, mdm = lines["arm"], lines["mdm"]
    return (arm[:, 0] + arm[:, 1] * log_arm - mdm[:, 0]) / mdm[:, 1]


def _middle_of_matched(
    odds: Mapping[str, np.ndarray], losses: Mapping[str, np.ndarray], log_c: Mapping[str, np.ndarray]
) -> float | None:
    """The middle of the ARM's log compute at which an MDM of measured compute has its accuracy, and one its loss."""
    low, high = float(log_c["arm"].min()), float(log_c["arm"].max())
    for lines in (odds, losses):
        swapped = {"arm": lines["mdm"][:1], "mdm": lines["arm"][:1]}
        ends = sorted(float(_matching(swapped, x)[0]) for x in (log_c["mdm"].min(), log_c["mdm"].max()))
        low, high = max(low, ends[0]), min(high, ends[1])
    return (low + high) / 2 if low < high else None


def _with_interval(log_values: np.ndarray) -> tuple[float, float, float]:
    low, high = interval(log_values)
    with np.errstate(over="ignore"):
        return float(np.exp(log_values[0])), float(np.exp(low)), float(np.exp(high))
