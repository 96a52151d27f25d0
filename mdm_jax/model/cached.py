"""The keys and values of whole rows, kept; and the trunk of an ARM, one token at a time, which reads them.

The layers are unrolled, so that each layer's cache is an array of its own, which a step updates in place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import BATCH, BATCH_HLK, BATCH_LHK, over_shards, reshard
from mdm_jax.model.attention import attend
from mdm_jax.model.conditioning import condition, masked_share, modulations
from mdm_jax.model.layers import rope, rope_at, scaled
from mdm_jax.model.transformer import (
    Block,
    Transformer,
    after_attention,
    compute_dtype,
    embedded,
    normalised,
    queries_keys_values,
)
from mdm_jax.spec import ModelSpec


class LayerCache(NamedTuple):
    """Rotated keys, and values, of one layer, `[B, H, L, K]`."""

    k_BHLK: Array
    v_BHLK: Array


Cache = tuple[LayerCache, ...]


def split_layers(model: Transformer, spec: ModelSpec) -> tuple[Block, ...]:
    """The weights of each layer. Split them before a loop, which would copy them in each step otherwise."""
    return tuple(jax.tree.map(lambda w, i=i: w[i], model.blocks) for i in range(spec.n_layers))


def empty_cache(spec: ModelSpec, rows: int, length: int) -> Cache:
    """A cache of zeros, to be filled. Call it under `jit`, with an ambient mesh."""
    zero_BHLK = jnp.zeros((rows, spec.n_heads, length, spec.d_head), compute_dtype(spec))
    return tuple(LayerCache(*[reshard(zero_BHLK, BATCH_HLK)] * 2) for _ in range(spec.n_layers))


def fill_cache(
    model: Transformer,
    layers: tuple[Block, ...],
    tokens_BL: Int[Array, "B L"],
    spec: ModelSpec,
    length_B: Int[Array, "B"] | None = None,
) -> Cache:
    """The keys and values of whole rows, by one pass over all tokens.

    Args:
        model: the weights.
        layers: its layers, from `split_layers`.
        tokens_BL: the model's inputs; V is MASK (MDM) or the start token (ARM). In an ARM, later ones do not change
            what earlier ones give.
        spec: shape of the model.
        length_B: tokens of each row; no token sees the padding after them. All rows are whole by default.
    """
    x_BLD, dtype, caches = embedded(model, tokens_BL, spec), compute_dtype(spec), []
    conditions = layer_modulations(model, layers, tokens_BL, spec, length_B)
    for block, modulated_B14D in zip(layers, conditions, strict=True):
        q_BLHK, k_BLHK, v_BLHK = queries_keys_values(block, x_BLD, dtype, modulated_B14D)
        k_BLHK = rope(k_BLHK)
        o_BLHK = attend(rope(q_BLHK), k_BLHK, v_BLHK, spec.attention, length_B)
        x_BLD = after_attention(block, x_BLD, o_BLHK, modulated_B14D)
        caches.append(LayerCache(k_BLHK.swapaxes(1, 2), v_BLHK.swapaxes(1, 2)))
    return tuple(caches)


def layer_modulations(
    model: Transformer,
    layers: tuple[Block, ...],
    tokens_BL: Int[Array, "B L"],
    spec: ModelSpec,
    length_B: Int[Array, "B"] | None,
) -> tuple[Float[Array, "B 1 4 D"] | None, ...]:
    """Each layer's scales and shifts from the share of MASK in whole rows; None without time conditioning."""
    if not spec.time_conditioning:
        return (None,) * len(layers)
    level_B = masked_share(tokens_BL, spec.vocab_size, length_B)
    condition_B1C = condition(level_B, model.time_in[...], model.time_out[...])
    return tuple(modulations(condition_B1C, block.modulation[...]) for block in layers)


def read_next(
    model: Transformer,
    layers: tuple[Block, ...],
    token_B: Int[Array, "B"],
    position_B: Int[Array, "B"],
    cache: Cache,
    spec: ModelSpec,
) -> tuple[Float[Array, "B 1 D"], Cache]:
    """The normalised output at one position of each row, and the cache with that position.

    Args:
        model: the ARM's weights.
        layers: its layers, from `split_layers`.
        token_B: the model's input at that position.
        position_B: the position, below L. All earlier ones are in the cache; later ones are not seen.
        cache: keys and values.
        spec: shape of the model.
    """
    x_B1D, dtype = embedded(model, token_B[:, None], spec), compute_dtype(spec)
    length, caches = cache[0].k_BHLK.shape[2], []
    for block, layer in zip(layers, cache, strict=True):
        q_B1HK, k_B1HK, v_B1HK = queries_keys_values(block, x_B1D, dtype)
        q_B1HK, k_B1HK = (rope_at(x_B1HK, position_B[:, None], length) for x_B1HK in (q_B1HK, k_B1HK))
        o_B1HK, layer = _attend_one(q_B1HK, k_B1HK, v_B1HK, layer, position_B)
        x_B1D = after_attention(block, x_B1D, o_B1HK)
        caches.append(layer)
    return normalised(model, x_B1D, spec), tuple(caches)


def _attend_one(
    q_B1HK: Array, k_B1HK: Array, v_B1HK: Array, cache: LayerCache, position_B: Array
) -> tuple[Array, LayerCache]:
    """Attention of one position of each row to those up to it, and the cache with its key and value."""

    def row(q_1HK: Array, k_1HK: Array, v_1HK: Array, cache: LayerCache, position: Array) -> tuple[Array, LayerCache]:
        k_HLK, v_HLK = (
            jax.lax.dynamic_update_slice(kept_HLK, new_1HK.swapaxes(0, 1), (0, position, 0))
            for kept_HLK, new_1HK in ((cache.k_BHLK, k_1HK), (cache.v_BHLK, v_1HK))
        )
        score_HL = sum_in_float32("hk,hlk->hl", scaled(q_1HK[0]), k_HLK)
        score_HL = jnp.where(jnp.arange(k_HLK.shape[1]) <= position, score_HL, -jnp.inf)
        share_HL = jax.nn.softmax(score_HL, -1).astype(v_HLK.dtype)
        return jnp.einsum("hl,hlk->hk", share_HL, v_HLK)[None], LayerCache(k_HLK, v_HLK)

    specs = (BATCH_LHK, BATCH_LHK, BATCH_LHK, BATCH_HLK, BATCH)
    return over_shards(jax.vmap(row), specs, (BATCH_LHK, BATCH_HLK))(q_B1HK, k_B1HK, v_B1HK, cache, position_B)
