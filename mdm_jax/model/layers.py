"""Pieces of the trunk: RMSNorm, rotary positions, and the projection of rows by a sharded weight."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

NORM_EPS = 1e-5
ROPE_BASE = 1e4


def rms_norm(x_BLD: Float[Array, "B L D"], gain_D: Float[Array, "D"]) -> Float[Array, "B L D"]:
    """`x / rms(x) * gain` over the last axis, computed in float32 and returned in the dtype of `x`."""
    x32_BLD = x_BLD.astype(jnp.float32)
    scale_BL1 = jax.lax.rsqrt(jnp.mean(x32_BLD * x32_BLD, -1, keepdims=True) + NORM_EPS)
    return (x32_BLD * scale_BL1 * gain_D).astype(x_BLD.dtype)


def rope(x_BLHK: Float[Array, "B L H K"]) -> Float[Array, "B L H K"]:
    """Queries or keys turned by their position: the whole head, first half against second half (NeoX order)."""
    length, width = x_BLHK.shape[1], x_BLHK.shape[3]
    frequency_k = ROPE_BASE ** -(np.arange(0, width, 2) / width)
    angle_1L1k = np.outer(np.arange(length), frequency_k)[None, :, None].astype(np.float32)
    cos, sin = np.cos(angle_1L1k), np.sin(angle_1L1k)
    a, b = jnp.split(x_BLHK.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x_BLHK.dtype)


def project(x_BLx: Array, weight: Array, equation: str, out: PartitionSpec) -> Array:
    """`einsum(equation, x, weight)` where the equation's `t` stands for the flattened B and L.

    XLA:CPU runs a weight gradient with two contracted axes at a third of the speed of one, so the rows are flattened.
    """
    batch, length = x_BLx.shape[:2]
    x_tx = x_BLx.reshape(batch * length, *x_BLx.shape[2:])
    flat = PartitionSpec(out[0], *out[2:])
    y_ty = jnp.einsum(equation, x_tx, weight, out_sharding=flat)
    return jax.lax.reshape(y_ty, (batch, length, *y_ty.shape[1:]), out_sharding=out)
