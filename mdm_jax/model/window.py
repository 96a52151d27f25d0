"""The trunk of an MDM at some positions of each row, with kept keys and values at all others.

A token of an MDM sees the whole row, so its keys and values change with every token of the row, from the second layer
on. Kept ones are therefore an approximation (Fast-dLLM, Wu et al. 2025, arXiv 2505.22618). The result is exact, up to
rounding, if the row is the one that filled the cache, and for a model of one layer without time conditioning: its keys
and values depend on nothing but their own token.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import BATCH, BATCH_HLK, by_row, over_shards
from mdm_jax.model.cached import Cache, LayerCache, layer_modulations
from mdm_jax.model.layers import rope_at, scaled
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


def read_window(
    model: Transformer,
    layers: tuple[Block, ...],
    tokens_BL: Int[Array, "B L"],
    position_BW: Int[Array, "B W"],
    cache: Cache,
    spec: ModelSpec,
    length_B: Int[Array, "B"],
    suffix: bool = False,
) -> Float[Array, "B W D"]:
    """The normalised output at the positions of a window; it means nothing at the window's padding.

    The window's own keys and values are computed from the present tokens. All others come from the cache, which is only
    read.

    Args:
        model: the MDM's weights.
        layers: its layers, from `split_layers`.
        tokens_BL: the rows as they are now; V stands for MASK.
        position_BW: different positions below the row's length; L is padding.
        cache: keys and values of whole rows, from `fill_cache`.
        spec: shape of the model.
        length_B: tokens of each row; no token sees the padding after them.
        suffix: whether each window is the end of its row, in order. Attention is then cheaper: the fresh keys and
            values take the place of the kept ones, and need no room beside them.
    """
    length = tokens_BL.shape[1]
    fresh_BW, place_BW = position_BW < length, jnp.minimum(position_BW, length - 1)
    seen_BL = by_row(lambda tokens: jnp.arange(length) < tokens, length_B)
    kept_BL = by_row(lambda seen_L, at_W: seen_L.at[at_W].set(False, mode="drop"), seen_BL, position_BW)
    token_BW = by_row(lambda tokens_L, at_W: tokens_L[at_W], tokens_BL, place_BW)
    x_BWD, dtype = embedded(model, token_BW, spec), compute_dtype(spec)
    conditions = layer_modulations(model, layers, tokens_BL, spec, length_B)
    for block, layer, modulated_B14D in zip(layers, cache, conditions, strict=True):
        q_BWHK, k_BWHK, v_BWHK = queries_keys_values(block, x_BWD, dtype, modulated_B14D)
        q_BWHK, k_BWHK = (rope_at(x_BWHK, place_BW, length) for x_BWHK in (q_BWHK, k_BWHK))
        fresh = LayerCache(k_BWHK.swapaxes(1, 2), v_BWHK.swapaxes(1, 2))
        if suffix:
            o_BWHK = _attend(q_BWHK, (_with_suffix(layer, fresh, position_BW[:, 0]), seen_BL))
        else:
            o_BWHK = _attend(q_BWHK, (layer, kept_BL), (fresh, fresh_BW))
        x_BWD = after_attention(block, x_BWD, o_BWHK, modulated_B14D)
    return normalised(model, x_BWD, spec)


def _with_suffix(kept: LayerCache, fresh: LayerCache, first_B: Int[Array, "B"]) -> LayerCache:
    """The kept keys and values of each row, with the fresh ones from a position on."""

    def row(kept_HLK: Array, fresh_HWK: Array, first: Array) -> Array:
        room = jnp.pad(kept_HLK, ((0, 0), (0, fresh_HWK.shape[1]), (0, 0)))
        return jax.lax.dynamic_update_slice(room, fresh_HWK, (0, first, 0))[:, : kept_HLK.shape[1]]

    merge = over_shards(jax.vmap(row), (BATCH_HLK, BATCH_HLK, BATCH), BATCH_HLK)
    return LayerCache(*(merge(old, new, first_B) for old, new in zip(kept, fresh, strict=True)))


def _attend(q_BWHK: Float[Array, "B W H K"], *parts: tuple[LayerCache, Array]) -> Array:
    """Attention to the keys of all parts, where the mask of each part says so. Nothing is written into a part."""
    q_BHWK, scores = scaled(q_BWHK).swapaxes(1, 2), []
    for part, seen_BM in parts:
        score_BHWM = sum_in_float32("bhwk,bhmk->bhwm", q_BHWK, part.k_BHLK)
        scores.append(jnp.where(seen_BM[:, None, None], score_BHWM, -jnp.inf))
    share_BHWM = jax.nn.softmax(jnp.concatenate(scores, -1)).astype(q_BWHK.dtype)
    shares = jnp.split(share_BHWM, np.cumsum([score.shape[-1] for score in scores])[:-1], -1)
    mixed = [
        jnp.einsum("bhwm,bhmk->bhwk", share_BHWM, part.v_BHLK)
        for share_BHWM, (part, _) in zip(shares, parts, strict=True)
    ]
    return sum(mixed[1:], mixed[0]).swapaxes(1, 2)
