"""Dropout, with one seed for each row: a row has the same zeros on any mesh and in any microbatch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from mdm_jax.devices.sharding import BATCH, BATCH_LD, REPLICATED, over_shards, reshard


def dropout(
    x_BLD: Float[Array, "B L D"], rate: float, seed_B: UInt[Array, "B"], place: int | Array
) -> Float[Array, "B L D"]:
    """`x` with zeros in place of a share `rate` of its numbers; the others are divided by `1 - rate`.

    Args:
        place: the number of the place in the model; each has its own zeros.
    """

    def local(x_bLD: Array, seed_b: Array, place: Array) -> Array:
        def row(x_LD: Array, seed: Array) -> Array:
            key = jax.random.fold_in(jax.random.key(seed), place)
            return jnp.where(jax.random.bernoulli(key, 1 - rate, x_LD.shape), x_LD / (1 - rate), 0)

        return jax.vmap(row)(x_bLD, seed_b).astype(x_bLD.dtype)

    specs = (BATCH_LD, BATCH, REPLICATED)
    return over_shards(local, specs, BATCH_LD)(x_BLD, reshard(seed_B, BATCH), jnp.asarray(place, jnp.int32))
