"""Positions in the order of a score, with ties that rounding does not break.

Equal scores are common: a row that is all MASK has the same prediction at every position, because attention then
averages equal values. Scores within a tolerance of the best are equal, and the leftmost of them is taken, as in the
likelihood in the order of confidence (`evaluate/likelihood/confidence.py`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def lowest(
    score_L: Float[Array, "L"], allowed_L: Bool[Array, "L"], count: Int[Array, ""], tolerance: float
) -> Bool[Array, "L"]:
    """The `count` allowed positions of lowest score, or all of them if there are fewer. They are taken one by one."""

    def take(_: Array, taken_L: Array) -> Array:
        left_L = allowed_L & ~taken_L
        least = jnp.where(left_L, score_L, jnp.inf).min()
        # NaN is not greater than anything, so that weights with NaN reveal tokens too, and their NaN is seen.
        next_L = left_L & ~(score_L > least + tolerance)
        return taken_L | (next_L & (jnp.cumsum(next_L) == 1))

    return jax.lax.fori_loop(0, count, take, allowed_L & False)
