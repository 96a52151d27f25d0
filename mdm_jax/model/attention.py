"""Attention: the only file that picks a kernel. Everything else calls `attend`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdm_jax.spec import Attention


def attend(
    q_BLHK: Float[Array, "B L H K"], k_BLHK: Float[Array, "B L H K"], v_BLHK: Float[Array, "B L H K"], kind: Attention
) -> Float[Array, "B L H K"]:
    """`softmax(q k^T / sqrt(K)) v` over all positions, or over those up to the query's own (causal)."""
    return jax.nn.dot_product_attention(q_BLHK, k_BLHK, v_BLHK, is_causal=kind is Attention.CAUSAL)


def attend_reference(
    q_BLHK: Float[Array, "B L H K"], k_BLHK: Float[Array, "B L H K"], v_BLHK: Float[Array, "B L H K"], kind: Attention
) -> Float[Array, "B L H K"]:
    """The same, written out in float32: what every kernel is tested against."""
    q, k, v = (x.astype(jnp.float32) for x in (q_BLHK, k_BLHK, v_BLHK))
    score_BHLM = jnp.einsum("blhk,bmhk->bhlm", q, k) * q.shape[-1] ** -0.5
    if kind is Attention.CAUSAL:
        length = q.shape[1]
        score_BHLM = jnp.where(jnp.tri(length, dtype=bool), score_BHLM, -jnp.inf)
    return jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(score_BHLM, -1), v).astype(q_BLHK.dtype)
