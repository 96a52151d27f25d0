"""Confidence threshold (Fast-dLLM, Wu et al. 2025, arXiv 2505.22618): all tokens of which the model is sure enough.

Each step reveals every token that was drawn with more than the threshold's probability, and at least the surest one.
So the number of steps follows from the text.
"""

import jax.numpy as jnp
from jaxtyping import Array, Key

from mdm_jax.sample.rules.order import lowest
from mdm_jax.sample.rules.rule import Change, Rule, View, only_reveal


def _choose(view: View, _: Key[Array, ""]) -> Change:
    assert view.predicted is not None
    nats_L = view.predicted.nats
    surest_L = lowest(nats_L, view.masked_L, jnp.int32(1), view.tolerance)
    return only_reveal(surest_L | (view.masked_L & (jnp.exp(-nats_L) > view.bound)))


THRESHOLD = Rule(_choose, sees=True)
