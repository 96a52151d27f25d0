"""The autoregressive loss, nats per token: the mean of `-log p(x_i | x_<i)` over all L tokens of a row.

The first token is predicted too, from a start token, so that the ARM scores the same tokens x_0 .. x_{L-1} as the MDM.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def draw(tokens_BL: Int[Array, "B L"], start_id: int) -> tuple[Int[Array, "B L"], Float[Array, "B L"]]:
    """The model's input at each position (start, x_0, .., x_{L-2}), and the equal weights 1 / (B L)."""
    shifted_BL = jnp.pad(tokens_BL[:, :-1], ((0, 0), (1, 0)), constant_values=start_id)
    return shifted_BL, jnp.full_like(tokens_BL, 1 / tokens_BL.size, dtype=jnp.float32)
