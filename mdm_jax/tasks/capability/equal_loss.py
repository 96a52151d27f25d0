"""Does equal loss mean equal capability? The difference of accuracy between the families at one loss.

In each family, the log odds of a right answer are a line in the loss, fitted over the runs whose losses both families
reach. The difference is read in the middle of these losses. Its interval is a bootstrap over runs and over groups of
questions (`draws`). 0 means that the loss tells all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdm_jax.spec.validation import require
from mdm_jax.tasks.capability.draws import FamilyRuns, fitted, interval

FEWEST_RUNS = 3
"""Runs of a family beyond the coefficients of its curve."""


@dataclass(frozen=True)
class Line:
    """A family's log odds of a right answer, as a polynomial in (loss - the middle loss).

    Attributes:
        coefficients: the constant first, for losses in nats.
        slope_interval: the interval of the second coefficient.
    """

    coefficients: tuple[float, ...]
    slope_interval: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """What the MDM's log odds are above the ARM's at one loss, for a task or the mean of all.

    Attributes:
        task: the task, or "all".
        loss: nats per token, the middle of `losses`.
        losses: the losses that both families reach.
        runs: ARMs and MDMs with such losses.
        lines: the lines of "arm" and "mdm".
        log_odds: MDM less ARM.
        interval: the interval of `log_odds`.
    """

    task: str
    loss: float
    losses: tuple[float, float]
    runs: tuple[int, int]
    lines: dict[str, Line]
    log_odds: float
    interval: tuple[float, float]

    def accuracy(self, family: str) -> float:
        """The family's accuracy at the loss; for "all", the one whose log odds are the tasks' mean."""
        return float(1 / (1 + np.exp(-self.lines[family].coefficients[0])))


def common_losses(runs: Mapping[str, FamilyRuns]) -> tuple[float, float]:
    """The losses that both families reach.

    Raises:
        ValueError: there are none.
    """
    low = max(float(one.loss_R.min()) for one in runs.values())
    high = min(float(one.loss_R.max()) for one in runs.values())
    require(low < high, "losses that both families reach", f"none: {high:.4g} is below {low:.4g}", "an interval")
    return low, high


def differences(runs: Mapping[str, FamilyRuns], degree: int = 1) -> list[Difference]:
    """The difference of each task at equal loss, and last of all tasks together.

    Args:
        runs: the runs of "arm" and "mdm", from `family_runs`.
        degree: 1 for lines, 2 for parabolas.

    Raises:
        ValueError: the losses of the families do not overlap, or too few runs have such losses.
    """
    low, high = common_losses(runs)
    inside = {family: (one.loss_R >= low) & (one.loss_R <= high) for family, one in runs.items()}
    for family, chosen in inside.items():
        what = f"{family.upper()} runs with losses from {low:.4g} to {high:.4g}"
        require(int(chosen.sum()) >= degree + 1 + FEWEST_RUNS, what, int(chosen.sum()), f"{degree + 1 + FEWEST_RUNS}")
    counts, middle = (int(inside["arm"].sum()), int(inside["mdm"].sum())), (low + high) / 2
    found = []
    for task in runs["arm"].logit:
        curves = {family: _curve(one, inside[family], task, middle, degree) for family, one in runs.items()}
        lines = {f: Line(tuple(map(float, curve[0])), interval(curve[:, 1])) for f, curve in curves.items()}
        less = curves["mdm"][:, 0] - curves["arm"][:, 0]
        found.append(Difference(task, middle, (low, high), counts, lines, float(less[0]), interval(less)))
    return found


def _curve(runs: FamilyRuns, chosen: np.ndarray, task: str, middle: float, degree: int) -> np.ndarray:
    """Coefficients of each draw."""
    return fitted(runs.loss_R[chosen] - middle, runs.logit[task][:, chosen], runs.weight[:, chosen], degree)
