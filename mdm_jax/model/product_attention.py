"""Attention by plain products, with a backward pass of its own.

The forward pass keeps the result, and for short rows the exponentials of the scores. For long rows it keeps no `[L, L]`
array: the backward pass computes the exponentials again from the logarithm of each query's sum (Dao et al. 2022,
FlashAttention, Algorithm 4). The gradients of keys and values come from transposed copies of the smaller operand,
because XLA:CPU is slow at products over the first axis. A causal model's queries go in blocks, and a block computes no
product with keys that all its queries may not see.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import BATCH, reshard
from mdm_jax.model.layers import Heads, scaled
from mdm_jax.spec import Attention

Lengths = Int[Array, "B"]
"""Tokens of each row, from 1 to L."""
OUTPUT = "attention"
"""The name under which a policy of rematerialisation finds what attention keeps for its backward pass."""
LONG = 256
"""The fewest tokens of a row for which the exponentials are computed again. So many of them do not fit into a cache."""
QUERIES = 128
"""Queries of a block, for a causal model."""


def attend_by_products(
    q_BLHK: Heads, k_BLHK: Heads, v_BLHK: Heads, kind: Attention, length_B: Lengths | None = None
) -> Heads:
    """`attention.attend` with these arguments, for rows of any length."""
    q_BHLK, k_BHLK, v_BHLK = (x_BLHK.swapaxes(1, 2) for x_BLHK in (scaled(q_BLHK), k_BLHK, v_BLHK))
    length_B = None if length_B is None else reshard(length_B, BATCH)
    length = q_BHLK.shape[2]
    keeps_exponentials = length < LONG
    if kind is not Attention.CAUSAL:
        return _attend(q_BHLK, k_BHLK, v_BHLK, length_B, None, keeps_exponentials).swapaxes(1, 2)
    sizes = [min(QUERIES, length - first) for first in range(0, length, QUERIES)]
    # A gradient of joined blocks is a sum of blocks. That of slices would be a sum of whole arrays, padded with zeros.
    q_blocks, k_blocks, v_blocks = (jax.lax.split(x_BHLK, sizes, axis=2) for x_BHLK in (q_BHLK, k_BHLK, v_BHLK))
    blocks = []
    for i, q_BHQK in enumerate(q_blocks):
        k_BHMK, v_BHMK = (jnp.concatenate(x[: i + 1], 2) for x in (k_blocks, v_blocks))
        blocks.append(_attend(q_BHQK, k_BHMK, v_BHMK, length_B, i * QUERIES, keeps_exponentials))
    return jnp.concatenate(blocks, 2).swapaxes(1, 2)


def _scores(q_BHQK: Array, k_BHMK: Array, length_B: Array | None, first: int | None) -> Float[Array, "B H Q M"]:
    """Scores in float32, `-inf` where a query does not see a key.

    Args:
        q_BHQK: scaled queries.
        k_BHMK: keys, from the row's first.
        length_B: tokens of each row; no query sees a key after them. All rows are whole by default.
        first: position of the first query of a causal model; None if queries see the keys after them.
    """
    score_BHQM = sum_in_float32("bhqk,bhmk->bhqm", q_BHQK, k_BHMK)
    queries, keys = score_BHQM.shape[2:]
    if first is not None:
        seen_QM = first + jnp.arange(queries)[:, None] >= jnp.arange(keys)
        score_BHQM = jnp.where(seen_QM, score_BHQM, -jnp.inf)
    if length_B is not None:
        score_BHQM = jnp.where((jnp.arange(keys) < length_B[:, None])[:, None, None], score_BHQM, -jnp.inf)
    return score_BHQM


def _attend_primal(
    q_BHQK: Array, k_BHMK: Array, v_BHMK: Array, length_B: Array | None, first: int | None, keeps_exponentials: bool
) -> Array:
    """The result for a block of queries; see `_scores` for the arguments."""
    return _forward(q_BHQK, k_BHMK, v_BHMK, length_B, first, keeps_exponentials)[0]


def _forward(
    q_BHQK: Array, k_BHMK: Array, v_BHMK: Array, length_B: Array | None, first: int | None, keeps_exponentials: bool
):
    score_BHQM = _scores(q_BHQK, k_BHMK, length_B, first)
    top_BHQ1 = score_BHQM.max(-1, keepdims=True)
    e_BHQM = jnp.exp(score_BHQM - top_BHQ1)
    z_BHQ1 = e_BHQM.sum(-1, keepdims=True)
    o_BHQK = jnp.einsum("bhqm,bhmk->bhqk", e_BHQM.astype(v_BHMK.dtype), v_BHMK)
    o_BHQK = checkpoint_name((o_BHQK / z_BHQ1).astype(v_BHMK.dtype), OUTPUT)
    kept = (e_BHQM, z_BHQ1) if keeps_exponentials else (checkpoint_name(top_BHQ1 + jnp.log(z_BHQ1), OUTPUT),)
    return o_BHQK, (q_BHQK, k_BHMK, v_BHMK, length_B, o_BHQK, kept)


def _backward(first: int | None, keeps_exponentials: bool, saved: tuple[Any, ...], do_BHQK: Array):
    """The gradients of queries, keys and values.

    The exponentials that were kept are not divided by their sum. Instead the result's gradient is, which is smaller.
    """
    q_BHQK, k_BHMK, v_BHMK, length_B, o_BHQK, kept = saved
    dtype = q_BHQK.dtype
    if keeps_exponentials:
        e_BHQM, z_BHQ1 = kept
        do_BHQK = (do_BHQK / z_BHQ1).astype(dtype)
    else:
        (log_z_BHQ1,) = kept
        e_BHQM = jnp.exp(_scores(q_BHQK, k_BHMK, length_B, first) - log_z_BHQ1)
    dshare_BHQM = sum_in_float32("bhqk,bhmk->bhqm", do_BHQK, v_BHMK)
    mean_BHQ1 = (do_BHQK.astype(jnp.float32) * o_BHQK).sum(-1, keepdims=True)
    dscore_BHQM = (e_BHQM * (dshare_BHQM - mean_BHQ1)).astype(dtype)
    dq_BHQK = jnp.einsum("bhqm,bhmk->bhqk", dscore_BHQM, k_BHMK)
    return dq_BHQK, _over_queries(q_BHQK, dscore_BHQM), _over_queries(do_BHQK, e_BHQM.astype(dtype)), None


def _over_queries(x_BHQK: Array, y_BHQM: Array) -> Float[Array, "B H M K"]:
    """`sum_q y[q, m] x[q, k]`."""
    barrier = jax.lax.optimization_barrier  # XLA would fold the transpositions into the product again
    x_BHKQ = barrier(x_BHQK.swapaxes(2, 3))
    return barrier(jnp.einsum("bhkq,bhqm->bhkm", x_BHKQ, y_BHQM)).swapaxes(2, 3)


_attend = jax.custom_vjp(_attend_primal, nondiff_argnums=(4, 5))
_attend.defvjp(_forward, _backward)
