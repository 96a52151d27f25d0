"""The trunk of an MDM at some positions of each row, with kept keys and values at all others.

A token of an MDM sees the whole row, so its keys and values change with every token of the row, from the second layer
on. Kept ones are therefore an approximation (Fast-dLLM, Wu et al. 2025, arXiv 2505.22618). The result is exact, up to
rounding, if the row is the one that filled the cache, and for a model of one layer without time conditioning: its keys
and values depend on nothing but their own token.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import by_row
from mdm_jax.model.attention import scaled
from mdm_jax.model.cached import Cache, LayerCache, layer_modulations
from mdm_jax.model.layers import look_up, rms_norm, rope_at
from mdm_jax.model.transformer import Block, Transformer, after_attention, queries_keys_values
from mdm_jax.spec import ModelSpec


def read_window(
    model: Transformer,
    layers: tuple[Block, ...],
    tokens_BL: Int[Array, "B L"],
    position_BW: Int[Array, "B W"],
    cache: Cache,
    spec: ModelSpec,
    length_B: Int[Array, "B"],
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
    """
    length = tokens_BL.shape[1]
    fresh_BW, place_BW = position_BW < length, jnp.minimum(position_BW, length - 1)
    kept_BL = by_row(
        lambda at_W, tokens: (jnp.arange(length) < tokens).at[at_W].set(False, mode="drop"), position_BW, length_B
    )
    token_BW = by_row(lambda tokens_L, at_W: tokens_L[at_W], tokens_BL, place_BW)
    x_BWD = look_up(model.embed[...], token_BW, jnp.dtype(spec.compute_dtype.value))
    conditions = layer_modulations(model, layers, tokens_BL, spec, length_B)
    for block, layer, modulated_B14D in zip(layers, cache, conditions, strict=True):
        q_BWHK, k_BWHK, v_BWHK = queries_keys_values(block, x_BWD, modulated_B14D)
        q_BWHK, k_BWHK = (rope_at(x_BWHK, place_BW, length) for x_BWHK in (q_BWHK, k_BWHK))
        fresh = LayerCache(k_BWHK.swapaxes(1, 2), v_BWHK.swapaxes(1, 2))
        o_BWHK = _attend_both(q_BWHK, layer, kept_BL, fresh, fresh_BW)
        x_BWD = after_attention(block, x_BWD, o_BWHK, modulated_B14D)
    return rms_norm(x_BWD, model.norm_final[...])


def _outside(none_L: Array, position_W: Array, tokens: Array) -> Array:
    """The positions of a row that are outside of its window; `none_L` is False everywhere."""
    return (none_L | (jnp.arange(len(none_L)) < tokens)).at[position_W].set(False, mode="drop")


def _attend_both(
    q_BWHK: Float[Array, "B W H K"],
    kept: LayerCache,
    kept_BL: Bool[Array, "B L"],
    fresh: LayerCache,
    fresh_BW: Bool[Array, "B W"],
) -> Float[Array, "B W H K"]:
    """Attention to kept and to fresh keys, each where its mask says so. Nothing is written into the kept ones."""
    q_BHWK = scaled(q_BWHK).swapaxes(1, 2)
    scores = [
        jnp.where(seen_BM[:, None, None], sum_in_float32("bhwk,bhmk->bhwm", q_BHWK, some.k_BHLK), -jnp.inf)
        for some, seen_BM in ((kept, kept_BL), (fresh, fresh_BW))
    ]
    share_BHWM = jax.nn.softmax(jnp.concatenate(scores, -1)).astype(kept.v_BHLK.dtype)
    length = kept_BL.shape[1]
    o_BHWK = jnp.einsum("bhwm,bhmk->bhwk", share_BHWM[..., :length], kept.v_BHLK)
    return (o_BHWK + jnp.einsum("bhwm,bhmk->bhwk", share_BHWM[..., length:], fresh.v_BHLK)).swapaxes(1, 2)
