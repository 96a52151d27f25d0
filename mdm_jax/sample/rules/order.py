"""Positions in the order of a score. The leftmost of equal scores is taken, as in the likelihood by confidence."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.devices.precision import lowest_up_to_rounding


def lowest(
    score_L: Float[Array, "L"], allowed_L: Bool[Array, "L"], count: Int[Array, ""], tolerance: float
) -> Bool[Array, "L"]:
    """The `count` allowed positions of lowest score, or all of them if there are fewer. They are taken one by one."""

    def take(_: Array, taken_L: Array) -> Array:
        next_L = lowest_up_to_rounding(score_L, allowed_L & ~taken_L, tolerance)
        return taken_L | (next_L & (jnp.cumsum(next_L) == 1))

    return jax.lax.fori_loop(0, count, take, allowed_L & False)
