"""The logits of a few rows. Rows and their number are padded, so that many shapes share a few compiled trunks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import product_precision, sum_in_float32
from mdm_jax.devices.sharding import BATCH_LD, replicate
from mdm_jax.evaluate.likelihood.buckets import padded_length, power_of_two
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import HardwareSpec, ModelSpec


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
