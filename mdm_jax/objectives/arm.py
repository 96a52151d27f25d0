"""The autoregressive loss, nats per token: the mean of `-log p(x_i | x_<i)` over all L tokens of a row.

The first token is predicted too, from a start token, so that the ARM scores the same tokens x_0 .. x_{L-1} as the MDM.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def draw(
    tokens_BL: Int[Array, "B L"], start_id: int, kept: Int[Array, ""] | None = None
) -> tuple[Int[Array, "B L"], Float[Array, "B L"]]:
    """The model's input at each position (start, x_0, .., x_{L-2}), and the equal weights 1 / (B L).

    Args:
        kept: L, the number of tokens of a row that have a weight; all by default.
    """
    shifted_BL = jnp.pad(tokens_BL[:, :-1], ((0, 0), (1, 0)), constant_values=start_id)
    if kept is None:
        return shifted_BL, jnp.full_like(tokens_BL, 1 / tokens_BL.size, dtype=jnp.float32)
    batch, length = tokens_BL.shape
    weight = 1 / (batch * kept.astype(jnp.float32))
    equal_BL = jnp.ones_like(tokens_BL, dtype=jnp.float32)
    return shifted_BL, equal_BL * jnp.where(jnp.arange(length) < kept, weight, 0.0)
