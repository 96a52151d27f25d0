"""Entropy-bounded sampling (Ben-Hamu et al. 2025, arXiv 2505.24857): the tokens that may be drawn together.

Tokens that are drawn independently of each other miss their mutual information, which is at most the sum of their
entropies without the greatest. Each step takes the positions in the order of entropy for as long as this sum is within
the bound, in nats; the first one is always taken. The bound 0 reveals one token a step, besides certain ones.
"""

import jax.numpy as jnp
from jaxtyping import Array, Key

from mdm_jax.sample.rules.rule import Change, Rule, View, only_reveal


def _choose(view: View, _: Key[Array, ""]) -> Change:
    assert view.predicted is not None
    # Weights with NaN reveal tokens too, and their NaN is seen in the nats.
    entropy_L = jnp.nan_to_num(view.predicted.entropy)
    # Entropies that round to the same multiple are equal, and the sort keeps equal ones from left to right.
    order_L = jnp.argsort(jnp.where(view.masked_L, jnp.round(entropy_L / view.tolerance), jnp.inf), stable=True)
    sorted_L = jnp.where(view.masked_L, entropy_L, jnp.inf)[order_L]
    before_L = jnp.concatenate([jnp.zeros(1), jnp.cumsum(sorted_L)[:-1]])
    taken_L = jnp.zeros_like(view.masked_L).at[order_L].set(before_L <= view.bound)
    return only_reveal(taken_L & view.masked_L)


ENTROPY_BOUND = Rule(_choose, sees=True)
