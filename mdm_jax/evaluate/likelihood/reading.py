"""Rows of a prompt and a target, and what a model that reads them predicts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from mdm_jax.devices.sharding import BATCH, BATCH_L
from mdm_jax.model.guidance import guided_hidden
from mdm_jax.model.transformer import Transformer
from mdm_jax.objectives.vocab_loss import token_and_likeliest_nats
from mdm_jax.spec import ModelSpec


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


def read(
    params: Transformer, inputs_BL: Int[Array, "B L"], rows: Rows, model: ModelSpec, guidance: Array | None
) -> Float[Array, "B L D"]:
    """The hidden states of an MDM that reads `inputs_BL` (V is MASK) in place of the rows' tokens.

    Args:
        params: the MDM's weights.
        inputs_BL: the rows' tokens, some of them masked.
        rows: the rows, split over the devices.
        model: shape of the model.
        guidance: w of unsupervised classifier-free guidance, which hides the prompts; None reads each row once.
    """
    prompt_BL = jnp.arange(inputs_BL.shape[1]) < jnp.asarray(rows.prompt_B)[:, None]
    return guided_hidden(params, inputs_BL, prompt_BL, jnp.asarray(rows.length_B), model, guidance)


def predictions(
    h_BLD: Float[Array, "B L D"], ids_BL: Int[Array, "B L"], head_DV: Float[Array, "D V"], model: ModelSpec
) -> tuple[Float[Array, "B L"], Float[Array, "B L"], Int[Array, "B L"]]:
    """Nats of each token of the rows, and, at each position, nats of the likeliest token and the token itself."""
    batch, length = ids_BL.shape
    # A batch of one row would lose its layout in `reshape` without `out_sharding`.
    h_ND = jax.lax.reshape(h_BLD, (batch * length, h_BLD.shape[2]), out_sharding=BATCH_L)
    target_N = jax.lax.reshape(ids_BL, (batch * length,), out_sharding=BATCH)
    nats_N, doubt_N, token_N = token_and_likeliest_nats(h_ND, target_N, head_DV, model.vocab_size)
    as_rows = functools.partial(jax.lax.reshape, new_sizes=(batch, length), out_sharding=BATCH_L)
    return as_rows(nats_N), as_rows(doubt_N), as_rows(token_N)
