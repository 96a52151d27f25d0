"""Attention, and the choice of its kernel. Other code calls `attend`.

The devices of the ambient mesh decide the kernel, because the program is compiled for them. So a machine without a TPU
can compile the TPU's kernel ahead of time.

| kernel | devices | accepts |
|---|---|---|
| splash (Pallas) | TPU | rows of a multiple of 128 tokens, heads of any width |
| cuDNN | NVIDIA GPU since Ampere | bfloat16 or float16, up to 128 head channels in multiples of 8 |
| products | all | everything; keeps `[L, L]` arrays of short rows alone (`product_attention.py`) |
"""

import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.typing import DTypeLike
from jaxtyping import Array

from mdm_jax.devices.accelerators import LANES
from mdm_jax.devices.sharding import BATCH, BATCH_LHK, over_shards, reshard
from mdm_jax.model.layers import Heads, scaled
from mdm_jax.model.product_attention import OUTPUT, Lengths, attend_by_products
from mdm_jax.spec import Attention

BLOCKS = (512, 256, LANES)
"""Possible tile lengths of splash in tokens; the largest that divides the row is used."""
CUDNN_MOST_WIDTH = 128
"""The most channels of a head that cuDNN's kernel accepts."""


class Kernel(enum.Enum):
    """An implementation of attention."""

    SPLASH = enum.auto()
    CUDNN = enum.auto()
    PRODUCTS = enum.auto()


def pick_kernel(platform: str, device_kind: str, length: int, width: int, dtype: DTypeLike) -> Kernel:
    """The fastest kernel that accepts rows of `length` tokens and heads of `width` channels.

    Args:
        platform: `cpu`, `gpu` or `tpu`.
        device_kind: jax's name of the device. It begins with "NVIDIA" for GPUs since Ampere, which cuDNN's fused
            attention needs.
    """
    if platform == "tpu" and length % LANES == 0:
        return Kernel.SPLASH
    half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    if platform == "gpu" and device_kind.startswith("NVIDIA") and half and width <= CUDNN_MOST_WIDTH and width % 8 == 0:
        return Kernel.CUDNN
    return Kernel.PRODUCTS


def attend(q_BLHK: Heads, k_BLHK: Heads, v_BLHK: Heads, kind: Attention, length_B: Lengths | None = None) -> Heads:
    """`softmax(q k^T / sqrt(K)) v` over all positions, or over the positions up to the query (causal).

    Args:
        q_BLHK: queries.
        k_BLHK: keys.
        v_BLHK: values.
        kind: the positions that a query sees.
        length_B: tokens of each row, from 1 to L; the positions after them are padding, which no token sees, and whose
            results mean nothing. All rows are whole by default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return attend_by_products(q_BLHK, k_BLHK, v_BLHK, kind, length_B)
    length, width = q_BLHK.shape[1], q_BLHK.shape[3]
    kernel = pick_kernel(device.platform, device.device_kind, length, width, q_BLHK.dtype)
    return ATTEND[kernel](q_BLHK, k_BLHK, v_BLHK, kind, length_B)


def attend_splash(
    q_BLHK: Heads,
    k_BLHK: Heads,
    v_BLHK: Heads,
    kind: Attention,
    length_B: Lengths | None = None,
    interpret: bool = False,
) -> Heads:
    """`attend` by the TPU's splash kernel; each device computes its own rows and heads.

    Args:
        q_BLHK: queries.
        k_BLHK: keys.
        v_BLHK: values.
        kind: the positions that a query sees.
        length_B: see `attend`. Tokens and padding are two segments, which do not see each other.
        interpret: interpret the kernel, on any backend, for tests.
    """

    def local(q_blhk: Array, k_blhk: Array, v_blhk: Array, *length: Array) -> Array:
        positions = q_blhk.shape[1]
        kernel = splash_kernel(positions, q_blhk.shape[2], kind, interpret)
        q_bhlk, k_bhlk, v_bhlk = (x_blhk.swapaxes(1, 2) for x_blhk in (scaled(q_blhk), k_blhk, v_blhk))
        if not length:
            return jax.vmap(kernel)(q_bhlk, k_bhlk, v_bhlk).swapaxes(1, 2)
        segment_bl = (jnp.arange(positions) >= length[0][:, None]).astype(jnp.int32)
        segments = splash.SegmentIds(q=segment_bl, kv=segment_bl)
        return jax.vmap(kernel)(q_bhlk, k_bhlk, v_bhlk, segments).swapaxes(1, 2)

    return _over_rows(local, q_BLHK, k_BLHK, v_BLHK, length_B)


def splash_kernel(length: int, heads: int, kind: Attention, interpret: bool) -> Callable[..., Any]:
    """The kernel `(q_HLK, k_HLK, v_HLK) -> o_HLK` for one row of tokens; it has its own backward pass."""
    block = next(size for size in BLOCKS if length % size == 0)
    masks = {Attention.CAUSAL: splash_mask.CausalMask, Attention.BIDIRECTIONAL: splash_mask.FullMask}
    mask = splash_mask.MultiHeadMask([masks[kind]((length, length))] * heads)
    names = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
    sizes = splash.BlockSizes(**dict.fromkeys((*names, "block_q_dq", "block_kv_dq"), block))
    return splash.make_splash_mha_single_device(
        mask, block_sizes=sizes, interpret=interpret, residual_checkpoint_name=OUTPUT
    )


def attend_cudnn(
    q_BLHK: Heads, k_BLHK: Heads, v_BLHK: Heads, kind: Attention, length_B: Lengths | None = None
) -> Heads:
    """`attend` by cuDNN's fused kernel; each device computes its own rows and heads."""

    def local(q_blhk: Array, k_blhk: Array, v_blhk: Array, *length: Array) -> Array:
        names = ("query_seq_lengths", "key_value_seq_lengths") if length else ()
        lengths = dict.fromkeys(names, *length)
        causal = kind is Attention.CAUSAL
        return jax.nn.dot_product_attention(q_blhk, k_blhk, v_blhk, is_causal=causal, implementation="cudnn", **lengths)

    return _over_rows(local, q_BLHK, k_BLHK, v_BLHK, length_B)


ATTEND = {
    Kernel.SPLASH: attend_splash,
    Kernel.CUDNN: attend_cudnn,
    Kernel.PRODUCTS: attend_by_products,
}


def _over_rows(local: Callable[..., Array], q: Array, k: Array, v: Array, length_B: Array | None) -> Array:
    """`local` on each device's rows and heads, with the rows' lengths if they are given."""
    given = () if length_B is None else (reshard(length_B, BATCH),)
    return over_shards(local, (BATCH_LHK,) * 3 + (BATCH,) * len(given), BATCH_LHK)(q, k, v, *given)


def attend_reference(
    q_BLHK: Heads, k_BLHK: Heads, v_BLHK: Heads, kind: Attention, length_B: Lengths | None = None
) -> Heads:
    """`attend` written out in float32. The tests compare every kernel with it."""
    q, k, v = (x.astype(jnp.float32) for x in (q_BLHK, k_BLHK, v_BLHK))
    score_BHLM = jnp.einsum("blhk,bmhk->bhlm", q, k) * q.shape[-1] ** -0.5
    length = q.shape[1]
    if kind is Attention.CAUSAL:
        score_BHLM = jnp.where(jnp.tri(length, dtype=bool), score_BHLM, -jnp.inf)
    if length_B is not None:
        score_BHLM = jnp.where((jnp.arange(length) < length_B[:, None])[:, None, None], score_BHLM, -jnp.inf)
    return jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(score_BHLM, -1), v).astype(q_BLHK.dtype)
