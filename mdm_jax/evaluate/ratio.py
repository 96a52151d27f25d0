"""A ratio of sums, such as nats per token, with its two standard errors."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Real


@dataclass(frozen=True)
class Ratio:
    """A ratio and its standard errors.

    `se_mc` is the error of the Monte Carlo draws on the texts at hand; 0 if there is one exact value. `se_data` is the
    error from the choice of the texts. It contains the Monte Carlo error, because each part of the text has its own
    draws. It is NaN for a single part.
    """

    value: float
    se_mc: float
    se_data: float


def ratio(top_RG: Float64[np.ndarray, "R G"], bottom_G: Real[np.ndarray, "G"]) -> Ratio:
    """`sum_g top / sum_g bottom` of the draws' mean, with errors over draws and over parts.

    The error over the parts is that of a ratio of two sums over independent parts (Cochran 1977, Sampling Techniques,
    section 6.4, without the correction for a finite population): parts with more tokens weigh more.

    Args:
        top_RG: a quantity of each part of the text in each of R independent draws.
        bottom_G: the size of each part, at least one above 0.
    """
    draws, parts = top_RG.shape
    total = float(bottom_G.sum())
    value_R = top_RG.sum(1) / total
    value = float(value_R.mean())
    se_mc = float(value_R.std(ddof=1)) / math.sqrt(draws) if draws > 1 else 0.0
    if parts == 1:
        return Ratio(value, se_mc, math.nan)
    rest_G = top_RG.mean(0) - value * bottom_G
    return Ratio(value, se_mc, math.sqrt(parts / (parts - 1) * float((rest_G**2).sum())) / total)
