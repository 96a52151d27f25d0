"""Rows of a prompt and a target, and the hidden states of a model that reads them, with or without guidance.

Unsupervised classifier-free guidance (SMDM, Nie et al. 2024, arXiv 2410.18514) replaces the logits by
`u + (w + 1) (c - u)`, where u comes from the row with MASK in place of every prompt token. The head is linear, so the
guided logits are the head's product with `(w + 1) h_c - w h_u`, which is computed here in float32.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from mdm_jax.devices.sharding import BATCH, BATCH_L, over_shards, reshard, rows_spec
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives.vocab_loss import token_and_likeliest_nats
from mdm_jax.spec import HardwareSpec, ModelSpec


@struct.dataclass
class Rows:
    """Rows of `prompt_B` prompt tokens, then the target's tokens, then padding after `length_B` tokens.

    The fields are arrays of int32: `[B, L]`, `[B]` and `[B]`.
    """

    ids_BL: ArrayLike
    length_B: ArrayLike
    prompt_B: ArrayLike


def whole_rows(ids_BL: Int[np.ndarray, "B L"]) -> Rows:
    """Rows without a prompt and without padding."""
    batch, length = ids_BL.shape
    return Rows(ids_BL.astype(np.int32), np.full(batch, length, np.int32), np.zeros(batch, np.int32))


def on_devices(rows: Rows) -> Rows:
    """The rows split over the devices. Call it under `jit`."""
    ids_BL, length_B, prompt_B = (jnp.asarray(x) for x in (rows.ids_BL, rows.length_B, rows.prompt_B))
    return Rows(reshard(ids_BL, BATCH_L), reshard(length_B, BATCH), reshard(prompt_B, BATCH))


def reader(
    params: Transformer, model: ModelSpec, rows: Rows, guidance: Array | None
) -> Callable[[Int[Array, "B L"]], Float[Array, "B L D"]]:
    """A function from input tokens (V is MASK) to hidden states, for rows of these lengths and prompts.

    Args:
        params: the weights.
        model: shape of the model.
        rows: the rows, split over the devices.
        guidance: w; None reads each row once.
    """
    prompt_B = jnp.asarray(rows.prompt_B)

    def trunk(inputs_BL: Array) -> Array:
        return hidden(params, inputs_BL, model, HardwareSpec(), jnp.asarray(rows.length_B))

    def guided(inputs_BL: Array) -> Array:
        assert guidance is not None
        prompt_BL = jnp.arange(inputs_BL.shape[1]) < prompt_B[:, None]
        without_BLD = trunk(jnp.where(prompt_BL, model.vocab_size, inputs_BL)).astype(jnp.float32)
        return (guidance + 1) * trunk(inputs_BL).astype(jnp.float32) - guidance * without_BLD

    return trunk if guidance is None else guided


def predictions(
    h_BLD: Float[Array, "B L D"], ids_BL: Int[Array, "B L"], head_DV: Float[Array, "D V"], model: ModelSpec
) -> tuple[Float[Array, "B L"], Float[Array, "B L"], Int[Array, "B L"]]:
    """At every position: nats of the row's token, nats of the likeliest token, and the likeliest token."""
    batch, length = ids_BL.shape
    # A batch of one row would lose its layout in `reshape` without `out_sharding`.
    h_ND = jax.lax.reshape(h_BLD, (batch * length, h_BLD.shape[2]), out_sharding=BATCH_L)
    target_N = jax.lax.reshape(ids_BL, (batch * length,), out_sharding=BATCH)
    nats_N, doubt_N, token_N = token_and_likeliest_nats(h_ND, target_N, head_DV, model.vocab_size)
    as_rows = functools.partial(jax.lax.reshape, new_sizes=(batch, length), out_sharding=BATCH_L)
    return as_rows(nats_N), as_rows(doubt_N), as_rows(token_N)


def at_position(x_BLx: Array, position_B: Int[Array, "B"]) -> Array:
    """`x` at one position of each row, `[B, ...]`, without communication between devices."""
    specs = (rows_spec(x_BLx.ndim), BATCH)
    take = jax.vmap(lambda x_Lx, position: x_Lx[position])
    return over_shards(take, specs, rows_spec(x_BLx.ndim - 1))(x_BLx, position_B)
