"""The number of tokens that a step reveals, counted for each row by itself.

SMDM reveals `int(n (1 - s / t))` of n masked tokens, with the masked share going linearly to 0, but counts over the
whole batch, which couples the rows. In whole numbers this is n divided by the steps that are left, rounded down.
"""

import jax.numpy as jnp
from jaxtyping import Array

from mdm_jax.sample.rules.rule import View


def tokens_now(view: View) -> Array:
    """Tokens that this step reveals: an equal share, at least 1."""
    left = jnp.maximum(view.steps - view.step, 1)
    return jnp.maximum(view.masked_L.sum() // left, 1)
