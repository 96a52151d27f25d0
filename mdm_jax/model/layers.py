"""Parts of the trunk: RMSNorm, rotary positions, scaled queries, products with a sharded weight, look-up in a table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import (
    BATCH_L,
    BATCH_LD,
    DATA,
    MODEL,
    gather,
    layout,
    over_shards,
    reshard,
    sum_and_scatter,
)
from mdm_jax.spec import NORM_EPS, ROPE_BASE

Heads = Float[Array, "B L H K"]
"""Queries, keys or values of each token and head, or the result of their attention."""


def rms_norm(
    x_BLD: Float[Array, "B L D"], gain_D: Float[Array, "D"], dtype: DTypeLike | None = None
) -> Float[Array, "B L D"]:
    """`x / rms(x) * gain` over the last axis, computed in float32 and returned in `dtype`, by default that of `x`."""
    x32_BLD = x_BLD.astype(jnp.float32)
    scale_BL1 = jax.lax.rsqrt(jnp.mean(x32_BLD * x32_BLD, -1, keepdims=True) + NORM_EPS)
    return (x32_BLD * scale_BL1 * gain_D).astype(x_BLD.dtype if dtype is None else dtype)


def rope(x_BLHK: Heads) -> Heads:
    """Queries or keys, rotated by their position. Channel i of a head is paired with channel i + K/2 (NeoX order)."""
    cos_Lk, sin_Lk = _rotations(x_BLHK.shape[1], x_BLHK.shape[3])
    return _rotated(x_BLHK, cos_Lk[None, :, None], sin_Lk[None, :, None])


def rope_at(x_BWHK: Float[Array, "B W H K"], position_BW: Int[Array, "B W"], length: int) -> Float[Array, "B W H K"]:
    """`rope` of some tokens of each row, at positions below `length`."""
    cos_BWk, sin_BWk = (
        jnp.asarray(table_Lk).at[position_BW].get(out_sharding=BATCH_LD)
        for table_Lk in _rotations(length, x_BWHK.shape[3])
    )
    return _rotated(x_BWHK, cos_BWk[:, :, None], sin_BWk[:, :, None])


def _rotations(length: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of each position's angle at each frequency, float32."""
    frequency_k = ROPE_BASE ** -(np.arange(0, width, 2) / width)
    angle_Lk = np.outer(np.arange(length), frequency_k).astype(np.float32)
    return np.cos(angle_Lk), np.sin(angle_Lk)


def _rotated(x_BLHK: Array, cos: Array | np.ndarray, sin: Array | np.ndarray) -> Array:
    a, b = jnp.split(x_BLHK.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x_BLHK.dtype)


def scaled(q: Array) -> Array:
    """Queries divided by the square root of a head's width, in their dtype."""
    return q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)


def project(x_BLx: Array, weight: Array, equation: str, out: PartitionSpec) -> Array:
    """`einsum(equation, x, weight)` in the dtype of x. The equation's axis `t` is B and L, flattened into one.

    B and L are flattened because XLA:CPU computes a weight gradient three times as slowly with two contracted axes.

    Args:
        weight: the weight in its stored layout, sharded over `data`.
        out: layout of the result, with B and L as two axes.
    """
    batch, length = x_BLx.shape[:2]
    x_tx = x_BLx.reshape(batch * length, *x_BLx.shape[2:])
    y_ty = _product(x_tx, weight, equation, PartitionSpec(out[0], *out[2:]))
    return jax.lax.reshape(y_ty, (batch, length, *y_ty.shape[1:]), out_sharding=out)


def _product_primal(x_tx: Array, weight: Array, equation: str, out: PartitionSpec) -> Array:
    """The product with the gathered weight; `_product` gives it a backward pass of its own.

    That pass saves the weight's shard in place of the gathered weight. It sums the weight's gradient over the devices
    in float32, directly into the shard's layout. On a TPU this is a ring that overlaps with the product. Autodiff would
    make an all-reduce of the whole gradient, in the compute dtype.
    """
    return jnp.einsum(equation, x_tx, gather(weight.astype(x_tx.dtype)), out_sharding=out)


def _product_forward(x_tx: Array, weight: Array, equation: str, out: PartitionSpec):
    return _product_primal(x_tx, weight, equation, out), (x_tx, weight)


def _product_backward(equation: str, out: PartitionSpec, saved: tuple[Array, Array], g_ty: Array):
    x_tx, weight = saved
    x, w, y = re.split(",|->", equation)
    dx_tx = jnp.einsum(f"{y},{w}->{x}", g_ty, gather(weight.astype(x_tx.dtype)), out_sharding=layout(x_tx))
    dweight = sum_in_float32(f"{x},{y}->{w}", x_tx, g_ty, layout(weight))
    return dx_tx, dweight.astype(weight.dtype)


_product = jax.custom_vjp(_product_primal, nondiff_argnums=(2, 3))
_product.defvjp(_product_forward, _product_backward)


def look_up(table_VD: Float[Array, "V D"], tokens_BL: Int[Array, "B L"], dtype: DTypeLike) -> Float[Array, "B L D"]:
    """The table's rows of the tokens, in `dtype`."""
    return _rows(table_VD, reshard(tokens_BL, BATCH_L), jnp.dtype(dtype))


def _rows_primal(table_VD: Array, tokens_BL: Array, dtype: jnp.dtype) -> Array:
    """The rows of the gathered table; `_rows` gives it a backward pass of its own.

    That pass adds the gradients of a row in float32. Half of an MDM's tokens are MASK, and bfloat16 is too coarse for
    the sum of so many gradients.
    """
    whole_VD = reshard(table_VD.astype(dtype), PartitionSpec(None, None))
    return whole_VD.at[tokens_BL].get(out_sharding=BATCH_LD)


def _rows_forward(table_VD: Array, tokens_BL: Array, dtype: jnp.dtype):
    return _rows_primal(table_VD, tokens_BL, dtype), (table_VD, tokens_BL)


def _rows_backward(dtype: jnp.dtype, saved: tuple[Array, Array], g_BLD: Array):
    table_VD, tokens_BL = saved

    def local(tokens_bL: Array, g_bLD: Array) -> Array:
        """This device's columns of the gradient, summed over all rows of the batch: `[V, D / devices]`."""
        data, model = jax.lax.axis_size(DATA), jax.lax.axis_size(MODEL)
        g_tSMd = g_bLD.reshape(tokens_bL.size, data, model, -1).astype(table_VD.dtype)
        mine_tSd = jax.lax.dynamic_index_in_dim(g_tSMd, jax.lax.axis_index(MODEL), 2, keepdims=False)
        # This zero depends on the gradient. So no program fills the array early, and holds it until the gradient comes.
        zero = jnp.minimum(jnp.abs(mine_tSd[0, 0, 0]), 0)
        zero_VSd = jnp.broadcast_to(zero, (table_VD.shape[0], *mine_tSd.shape[1:]))
        sum_VSd = zero_VSd.at[tokens_bL.reshape(-1)].add(mine_tSd)
        return sum_and_scatter(sum_VSd, 1)[:, 0]

    return over_shards(local, (BATCH_L, BATCH_LD), layout(table_VD))(tokens_BL, g_BLD), None


_rows = jax.custom_vjp(_rows_primal, nondiff_argnums=(2,))
_rows.defvjp(_rows_forward, _rows_backward)
