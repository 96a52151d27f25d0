"""How much faster an MDM reaches the perplexity of an ARM, and what entropy its texts have there.

A sampler's curve is its log perplexity against the log of its seconds, from few steps to many, with straight lines
between. It meets the ARM where it first comes down to the ARM's perplexity. The speed-up is the ARM's seconds divided
by the sampler's. Texts that repeat themselves have a low perplexity too. So the difference of the sequence entropies at
that point stands beside the speed-up, and the quality is equal only where that difference is about 0.

The interval comes from bootstrap draws of the texts of each setting. Seconds are taken as exact.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

LEVEL = 0.95


@dataclass(frozen=True)
class Point:
    """One setting.

    Attributes:
        seconds: seconds for each text.
        log_perplexity: log perplexity of all its texts.
        log_perplexity_R: the same in each bootstrap sample of its texts.
        entropy: mean sequence entropy of all its texts, nats.
        entropy_R: the same in each bootstrap sample.
    """

    seconds: float
    log_perplexity: float
    log_perplexity_R: Float64[np.ndarray, "R"]
    entropy: float
    entropy_R: Float64[np.ndarray, "R"]


@dataclass(frozen=True)
class Meeting:
    """The point at which a sampler's curve meets an ARM.

    Attributes:
        speed_up: the ARM's seconds over the sampler's; NaN if the curve stays above the ARM.
        low: lower end of the 95% interval; 0 if more than 2.5% of the draws stay above the ARM.
        high: upper end; NaN if no draw meets the ARM, and infinite if the first setting is at or below the ARM in more
            than 2.5% of the draws, because fewer steps were not tried.
        reached: share of the draws that meet the ARM.
        at_first: whether the setting with the fewest steps already is at or below the ARM.
        entropy_difference: sequence entropy at the meeting less the ARM's, nats; NaN if there is no meeting.
        entropy_difference_se: its standard deviation over the draws that meet.
    """

    speed_up: float
    low: float
    high: float
    reached: float
    at_first: bool
    entropy_difference: float
    entropy_difference_se: float


def meeting(curve: Sequence[Point], arm: Point) -> Meeting:
    """The point at which the curve meets the ARM.

    Args:
        curve: settings of one sampler, from few steps to many, at least one. All have equally many draws.
        arm: the ARM.
    """
    whole = _crossing([p.log_perplexity for p in curve], arm.log_perplexity)
    above_RP = np.stack([p.log_perplexity_R for p in curve], 1)
    places = [_crossing(line.tolist(), level) for line, level in zip(above_RP, arm.log_perplexity_R, strict=True)]
    log_seconds, entropy_RP = [math.log(p.seconds) for p in curve], np.stack([p.entropy_R for p in curve], 1)
    meets = [r for r, place in enumerate(places) if place is not None]
    speeds = np.array([_speed_up(_at(log_seconds, places[r]), arm) for r in meets])
    differences = np.array([_at(entropy_RP[r].tolist(), places[r]) - arm.entropy_R[r] for r in meets])
    reached, first = len(meets) / len(places), sum(place == 0 for place in places) / len(places)
    outside = (1 - LEVEL) / 2
    each_R = np.concatenate([np.zeros(len(places) - len(meets)), speeds])  # a curve that stays above has no speed-up
    return Meeting(
        speed_up=math.nan if whole is None else _speed_up(_at(log_seconds, whole), arm),
        low=float(np.quantile(each_R, outside)),
        high=math.nan if not meets else math.inf if first > outside else float(np.quantile(each_R, 1 - outside)),
        reached=reached,
        at_first=whole == 0,
        entropy_difference=math.nan if whole is None else _at([point.entropy for point in curve], whole) - arm.entropy,
        entropy_difference_se=float(differences.std(ddof=1)) if len(meets) > 1 else math.nan,
    )


def _crossing(line: Sequence[float], level: float) -> float | None:
    """The first place, in points from 0, at which the line is at or below the level; None if it stays above."""
    if line[0] <= level:
        return 0.0
    for i, (before, after) in enumerate(itertools.pairwise(line)):
        if after <= level:
            return i + (before - level) / (before - after)
    return None


def _at(values: Sequence[float], place: float | None) -> float:
    assert place is not None
    return float(np.interp(place, np.arange(len(values)), values))


def _speed_up(log_seconds: float, arm: Point) -> float:
    return arm.seconds / math.exp(log_seconds)
