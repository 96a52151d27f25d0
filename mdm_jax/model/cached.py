"""The trunk of an ARM, one token at a time: keys and values of earlier positions are kept, not computed again.

The layers are unrolled, so that each layer's cache is an array of its own, which a step updates in place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import BATCH, BATCH_HLK, BATCH_LHK, over_shards
from mdm_jax.model.attention import attend, scaled
from mdm_jax.model.layers import look_up, rms_norm, rope, rope_at
from mdm_jax.model.transformer import Block, Transformer, after_attention, queries_keys_values
from mdm_jax.spec import Attention, ModelSpec


class LayerCache(NamedTuple):
    """Rotated keys, and values, of one layer, `[B, H, L, K]`."""

    k_BHLK: Array
    v_BHLK: Array


Cache = tuple[LayerCache, ...]


def split_layers(model: Transformer, spec: ModelSpec) -> tuple[Block, ...]:
    """The weights of each layer. Split them before a loop, which would copy them in each step otherwise."""
    return tuple(jax.tree.map(lambda w, i=i: w[i], model.blocks) for i in range(spec.n_layers))


def fill_cache(model: Transformer, layers: tuple[Block, ...], tokens_BL: Int[Array, "B L"], spec: ModelSpec) -> Cache:
    """The keys and values of whole rows, by one pass over all tokens.

    Args:
        model: the ARM's weights.
        layers: its layers, from `split_layers`.
        tokens_BL: the model's inputs; V is the start token. Later ones do not change what earlier ones give.
        spec: shape of the model.
    """
    x_BLD, caches = look_up(model.embed[...], tokens_BL, jnp.dtype(spec.compute_dtype.value)), []
    for block in layers:
        q_BLHK, k_BLHK, v_BLHK = queries_keys_values(block, x_BLD)
        k_BLHK = rope(k_BLHK)
        x_BLD = after_attention(block, x_BLD, attend(rope(q_BLHK), k_BLHK, v_BLHK, Attention.CAUSAL))
        caches.append(LayerCache(k_BLHK.swapaxes(1, 2), v_BLHK.swapaxes(1, 2)))
    return tuple(caches)


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
    x_B1D = look_up(model.embed[...], token_B[:, None], jnp.dtype(spec.compute_dtype.value))
    length, caches = cache[0].k_BHLK.shape[2], []
    for block, layer in zip(layers, cache, strict=True):
        q_B1HK, k_B1HK, v_B1HK = queries_keys_values(block, x_B1D)
        q_B1HK, k_B1HK = (rope_at(x_B1HK, position_B, length) for x_B1HK in (q_B1HK, k_B1HK))
        o_B1HK, layer = _attend_one(q_B1HK, k_B1HK, v_B1HK, layer, position_B)
        x_B1D = after_attention(block, x_B1D, o_B1HK)
        caches.append(layer)
    return rms_norm(x_B1D, model.norm_final[...]), tuple(caches)


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
