"""The autoregressive loss, nats per token: the mean of `-log p(x_i | x_<i)` over all L tokens of a row.

The first token is predicted too, from a start token, so that the ARM scores the same tokens x_0 .. x_{L-1} as the MDM.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def shifted(tokens_BL: Int[Array, "B L"], start_id: int) -> Int[Array, "B L"]:
    """The model's input at each position: start, x_0, .., x_{L-2}."""
    return jnp.pad(tokens_BL[:, :-1], ((0, 0), (1, 0)), constant_values=start_id)


def equal_weights(tokens_BL: Int[Array, "B L"], kept: Int[Array, ""] | None = None) -> Float[Array, "B L"]:
    """The weight 1 / (B L) of each token; with `kept`, 1 / (B kept) of the first `kept` tokens of each row."""
    if kept is None:
        return jnp.full_like(tokens_BL, 1 / tokens_BL.size, dtype=jnp.float32)
    batch, length = tokens_BL.shape
    weight_L = jnp.where(jnp.arange(length) < kept, 1 / (batch * kept.astype(jnp.float32)), 0.0)
    return jnp.ones_like(tokens_BL, dtype=jnp.float32) * weight_L
