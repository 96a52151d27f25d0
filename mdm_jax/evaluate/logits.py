"""The logits of a few rows. Rows and their number are padded, so that many shapes share a few compiled trunks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.devices.precision import product_precision, sum_in_float32
from mdm_jax.devices.sharding import BATCH_LD, replicate
from mdm_jax.evaluate.likelihood.buckets import padded_length, power_of_two
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import HardwareSpec, ModelSpec
from mdm_jax.spec.validation import require


def checked_tokens(tokens_BL: ArrayLike, most: int) -> Int[np.ndarray, "B L"]:
    """The tokens as int32.

    Args:
        tokens_BL: ids.
        most: the largest id that the model reads.

    Raises:
        ValueError: the tokens are not a matrix of integers, or an id is out of range.
    """
    given = np.asarray(tokens_BL)
    ids = np.issubdtype(given.dtype, np.integer) and given.ndim == 2 and given.size > 0
    held = f"{given.dtype} {list(given.shape)}"
    require(ids, "tokens_BL", held, "integers of shape [B, L], at least one row and one token")
    low, high = int(given.min()), int(given.max())
    require(low >= 0 and high <= most, "tokens_BL", f"{low} to {high}", f"ids from 0 to {most}")
    return given.astype(np.int32)


def checked_prompt_mask(prompt_mask_BL: ArrayLike | None, shape: tuple[int, ...]) -> Bool[np.ndarray, "B L"]:
    """The mask of the prompts' tokens.

    Raises:
        ValueError: there is none, or it has not the tokens' shape.
    """
    prompt_BL, needed = np.asarray(prompt_mask_BL), f"bool {list(shape)}"
    held = None if prompt_mask_BL is None else f"{prompt_BL.dtype} {list(prompt_BL.shape)}"
    require(held == needed, "prompt_mask_BL", held, f"{needed}, as many as tokens")
    return prompt_BL


def padded_logits(
    params: Transformer, model: ModelSpec, tokens_BL: Int[np.ndarray, "B L"], seq_len: int
) -> Float[Array, "B L V"]:
    """Logits, float32, on one device.

    Args:
        params: the weights, on one device.
        model: shape of the model.
        tokens_BL: ids in 0..V. Rows longer than `seq_len` are read as they are.
        seq_len: tokens of a row that the model was trained on.
    """
    batch, length = tokens_BL.shape
    padded = padded_length(length, seq_len) if length <= seq_len else length
    rows_BL = np.zeros((power_of_two(batch), padded), np.int32)
    rows_BL[:batch, :length] = tokens_BL
    h_BLD = _read(params, rows_BL, np.full(len(rows_BL), length, np.int32), model)
    return _project(params.head[...], h_BLD, batch, length, model)


@functools.partial(jax.jit, static_argnames="model")
def _read(params: Transformer, tokens_BL: Array, length_B: Array, model: ModelSpec) -> Array:
    with product_precision(model):
        return replicate(hidden(params, tokens_BL, model, HardwareSpec(), length_B))


@functools.partial(jax.jit, static_argnames=("batch", "length", "model"))
def _project(head_DV: Array, h_BLD: Array, batch: int, length: int, model: ModelSpec) -> Array:
    """The product with the head of the rows that were asked for. It is compiled for each shape, in a moment."""
    with product_precision(model):
        whole_DV = replicate(head_DV.astype(h_BLD.dtype))
        return sum_in_float32("bld,dv->blv", jnp.asarray(h_BLD[:batch, :length]), whole_DV, BATCH_LD)
