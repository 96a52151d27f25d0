"""The exact average over all orders: minus the mean over the n! orders of the log-probability of revealing the target.

The count form of the NELBO draws K from 1..n, masks a random set S of K tokens, and takes n / K times the nats of S.
Its expectation is the sum over all non-empty sets S of `nats(S) / (K C(n, K))`, because a set of K tokens has the
probability 1 / (n C(n, K)). The expectation equals the average over all orders. So it takes 2^n - 1 forward passes.
"""

import math

import numpy as np

from mdm_jax.evaluate.likelihood.masked import MaskSets

MOST_TOKENS = 12


def forwards(tokens: int) -> int:
    """Forward passes that the exact average of a target takes."""
    return 2**tokens - 1


def all_sets(pair: int, tokens: int) -> MaskSets:
    """All sets of masked tokens with their weights. Each set is followed by its complement."""
    half = np.arange(2 ** (tokens - 1))
    code_M = np.stack([half, 2**tokens - 1 - half], 1).reshape(-1)
    mask_Mn = (code_M[:, None] >> np.arange(tokens)) & 1 == 1
    by_size = [0.0, *(1 / (k * math.comb(tokens, k)) for k in range(1, tokens + 1))]
    return MaskSets(pair, mask_Mn, np.array(by_size)[mask_Mn.sum(1)])
