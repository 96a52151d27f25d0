"""Accuracy and Matthews correlation of predicted labels, with errors over test examples and over seeds.

The same test examples are predicted by a model that was trained with each of R seeds. A score is the mean over seeds.
Its error has two parts: the test examples (a bootstrap that draws examples, each with the predictions of all seeds) and
the seeds (the standard deviation between them, divided by the root of R). The 95% interval adds the squares of both
half widths: 1.96 standard errors of the examples, and of the seeds as many as Student's t has for R - 1 degrees of
freedom. With one seed the interval is over examples alone.

A difference of two models is taken seed by seed and example by example, and then has its error in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from analysis.sampling import LEVEL

DRAWS = 1000
CHUNK = 100
"""Draws at a time, so that memory does not grow with their number."""


class Counts(NamedTuple):
    """Weights of examples, for any number of draws and seeds."""

    right_x: np.ndarray
    """Weight of the examples whose label is predicted."""
    true_xC: np.ndarray
    """Weight of the examples with each label."""
    predicted_xC: np.ndarray
    """Weight of the examples with each prediction."""


Statistic = Callable[[Counts], np.ndarray]


@dataclass(frozen=True)
class Score:
    """The mean over seeds, its standard error from the test examples and from the seeds, and the 95% interval."""

    value: float
    se_examples: float
    se_seeds: float | None
    lower: float
    upper: float


def accuracy(counts: Counts) -> Float[np.ndarray, "*x"]:
    """The share of examples whose label is predicted."""
    return counts.right_x / counts.true_xC.sum(-1)


def matthews(counts: Counts) -> Float[np.ndarray, "*x"]:
    """Matthews correlation in Gorodkin's form for any number of classes (R_K, 2004): 1 is perfect, 0 is chance.

    It is 0 where all labels or all predictions are equal, because the ratio is not defined there.
    """
    right_x, true_xC, predicted_xC = counts
    total_x = true_xC.sum(-1)
    above_x = right_x * total_x - (true_xC * predicted_xC).sum(-1)
    spread_x = (total_x**2 - (predicted_xC**2).sum(-1)) * (total_x**2 - (true_xC**2).sum(-1))
    return np.divide(above_x, np.sqrt(spread_x), out=np.zeros_like(above_x), where=spread_x > 0)


def score(
    label_S: Int[np.ndarray, "S"],
    predicted_RS: Int[np.ndarray, "R S"],
    statistic: Statistic,
    base_RS: Int[np.ndarray, "R S"] | None = None,
    seed: int = 0,
) -> Score:
    """A score of predictions, or its difference from that of other predictions.

    Args:
        label_S: numbers of the labels.
        predicted_RS: predicted labels, for each seed.
        statistic: `accuracy` or `matthews`.
        base_RS: predictions whose score is subtracted, seed by seed; None subtracts nothing.
        seed: seed of the bootstrap.
    """
    seeds, examples = predicted_RS.shape
    both = [predicted_RS] if base_RS is None else [predicted_RS, base_RS]
    # Examples with the same label and predictions are drawn as one, with their joint frequency.
    kind_KU, times_U = np.unique(np.stack([label_S, *np.concatenate(both)]), axis=1, return_counts=True)

    def by_seed(weight_xU: np.ndarray) -> np.ndarray:
        parts = [statistic(_counts(weight_xU, kind_KU[0], one_RU)) for one_RU in np.split(kind_KU[1:], len(both))]
        return parts[0] if base_RS is None else parts[0] - parts[1]

    value_R = by_seed(times_U[None].astype(np.float64))[:, 0]
    draw, drawn = np.random.default_rng(seed), []
    for start in range(0, DRAWS, CHUNK):
        weight_xU = draw.multinomial(examples, times_U / examples, min(CHUNK, DRAWS - start)).astype(np.float64)
        drawn.append(by_seed(weight_xU).mean(0))
    se_examples = float(np.concatenate(drawn).std(ddof=1))
    se_seeds = float(value_R.std(ddof=1) / seeds**0.5) if seeds > 1 else None
    half = _half_width(se_examples, se_seeds, seeds)
    value = float(value_R.mean())
    return Score(value, se_examples, se_seeds, value - half, value + half)


def _half_width(se_examples: float, se_seeds: float | None, seeds: int) -> float:
    level = (1 + LEVEL) / 2
    of_examples = float(scipy.stats.norm.ppf(level)) * se_examples
    of_seeds = 0.0 if se_seeds is None else float(scipy.stats.t.ppf(level, seeds - 1)) * se_seeds
    return float(np.hypot(of_examples, of_seeds))


def _counts(weight_xU: np.ndarray, label_U: np.ndarray, predicted_RU: np.ndarray) -> Counts:
    """The counts of each seed, `[R, x]` and `[R, x, C]`, for each row of weights."""
    classes = int(max(label_U.max(), predicted_RU.max())) + 1
    one_hot_CC = np.eye(classes)
    right_Rx = (predicted_RU == label_U).astype(np.float64) @ weight_xU.T
    true_xC = weight_xU @ one_hot_CC[label_U]
    predicted_RxC = np.stack([weight_xU @ one_hot_CC[predicted_U] for predicted_U in predicted_RU])
    return Counts(right_Rx, np.broadcast_to(true_xC, predicted_RxC.shape), predicted_RxC)
