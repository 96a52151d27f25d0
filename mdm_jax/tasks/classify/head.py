"""A linear head on the pooled output of the trunk.

An MDM reads the row as it is, without MASK. An ARM reads a start token before it, as in training. `mean` is the mean of
the trunk's normalised output over the row's own tokens, without start token and padding. `last` is the output at the
last token, which is the only position where an ARM has read the whole row.
"""

import enum
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import BATCH_L, at_position, reshard, split_over_data
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import Attention, HardwareSpec, LayerLoop, ModelSpec

UNROLLED_LAYERS = 8
"""Trunks of up to so many layers are unrolled, which is faster; deeper ones would take long to compile."""


class Pool(enum.StrEnum):
    """How the outputs of a row become one vector."""

    MEAN = "mean"
    LAST = "last"


@struct.dataclass
class Head:
    """Weights of the head, float32: arrays, or jax's shapes in their place. Hence `Any`."""

    weight_DC: Any
    bias_C: Any


def zero_head(width: int, classes: int) -> Head:
    """A head that gives every class the same probability."""
    return Head(jnp.zeros((width, classes)), jnp.zeros(classes))


def pooled(
    params: Transformer,
    spec: ModelSpec,
    tokens_BL: Int[Array, "B L"],
    length_B: Int[Array, "B"],
    pool: Pool,
) -> Float[Array, "B D"]:
    """One vector for each row, float32, split over the rows. Padding changes nothing.

    Args:
        params: weights of the trunk.
        spec: shape of the model.
        tokens_BL: ids in 0..V-1, and any ids as padding.
        length_B: tokens of each row, from 1.
        pool: how outputs become one vector.
    """
    tokens_BL, length_B = split_over_data((tokens_BL, length_B))
    starts = spec.attention is Attention.CAUSAL
    if starts:
        start_B1 = jnp.full_like(tokens_BL[:, :1], spec.vocab_size)
        tokens_BL, length_B = jnp.concatenate([start_B1, tokens_BL], 1), length_B + 1
    hardware = HardwareSpec(layers=LayerLoop.UNROLL if spec.n_layers <= UNROLLED_LAYERS else LayerLoop.SCAN)
    with product_precision(spec):
        h_BLD = hidden(params, tokens_BL, spec, hardware, length_B).astype(jnp.float32)
    if pool is Pool.LAST:
        return at_position(h_BLD, length_B - 1)
    place_L = jnp.arange(h_BLD.shape[1])
    own_BL = (place_L >= starts) & (place_L < length_B[:, None])
    total_BD = jnp.sum(jnp.where(own_BL[:, :, None], h_BLD, 0.0), 1)
    return total_BD / (length_B - starts)[:, None]


def class_logits(head: Head, pooled_BD: Float[Array, "B D"]) -> Float[Array, "B C"]:
    """The logit of each class, float32."""
    product_BC = jnp.einsum("bd,dc->bc", pooled_BD, head.weight_DC, precision="highest", out_sharding=BATCH_L)
    return product_BC + head.bias_C


def class_nats(logits_BC: Float[Array, "B C"], label_B: Int[Array, "B"]) -> Float[Array, ""]:
    """The mean of minus the log-probability of the labels, in nats."""
    label_B = split_over_data(label_B)
    one_hot_BC = reshard(jax.nn.one_hot(label_B, logits_BC.shape[1]), BATCH_L)
    return -jnp.mean(jnp.sum(one_hot_BC * jax.nn.log_softmax(logits_BC), 1))
