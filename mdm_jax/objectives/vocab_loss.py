"""The vocabulary projection fused with its cross-entropy: no `[B, L, V]` array exists, forward or backward.

Rows go through the head in chunks. Under differentiation, the forward pass also computes the gradients of the hidden
rows and of the head, so the logits are computed once. This takes three products with the head; autodiff with
recomputation takes four. Rows are split over `replica` and `data`, the vocabulary over `model`; the head is gathered
over `data`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import platform, sum_in_float32
from mdm_jax.devices.sharding import (
    BATCH,
    BATCH_L,
    HEAD_DV,
    MODEL,
    REPLICATED,
    ROWS,
    gather_shards,
    over_shards,
    sum_and_scatter,
)

CHUNK_ROWS = 1024
"""Rows of a chunk on CPUs."""
ACCELERATOR_CHUNK_ROWS = 4096
"""Rows of a chunk elsewhere. Each chunk reads and writes the float32 gradient of the head.

That takes an accelerator as much time as the products of a few hundred rows.
"""


def _chunk_sizes(rows: int) -> tuple[int, int]:
    """The number of equal chunks of about CHUNK_ROWS or ACCELERATOR_CHUNK_ROWS rows, and the rows of one chunk."""
    chunks = max(1, round(rows / (CHUNK_ROWS if platform() == "cpu" else ACCELERATOR_CHUNK_ROWS)))
    return chunks, -(-rows // chunks)


def _in_chunks(x_Nx: Array) -> Array:
    chunks, size = _chunk_sizes(x_Nx.shape[0])
    padding = [(0, chunks * size - x_Nx.shape[0])] + [(0, 0)] * (x_Nx.ndim - 1)
    return jnp.pad(x_Nx, padding).reshape(chunks, size, *x_Nx.shape[1:])


def _softmax_parts(h_nD: Array, head_Dv: Array, target_n: Array, vocab_size: int) -> tuple[Array, Array, Array, Array]:
    """The softmax of one chunk of rows, with this device's columns of the head.

    Returns:
        Nats of the targets, `e = exp(logits - max)` in this device's columns, the sum of `e` over the vocabulary, and
        the targets' columns on this device, out of range if another device has them.
    """
    columns = head_Dv.shape[1]
    first = jax.lax.axis_index(MODEL) * columns
    logits_nv = sum_in_float32("nd,dv->nv", h_nD, head_Dv)
    if columns * jax.lax.axis_size(MODEL) != vocab_size:
        logits_nv = jnp.where(first + jnp.arange(columns) < vocab_size, logits_nv, -jnp.inf)
    top_n = jax.lax.pmax(logits_nv.max(-1), MODEL)
    e_nv = jnp.exp(logits_nv - top_n[:, None])
    z_n = jax.lax.psum(e_nv.sum(-1), MODEL)
    column_n = target_n - first
    mine_n = (column_n >= 0) & (column_n < columns)
    at_n = jnp.take_along_axis(logits_nv, column_n.clip(0, columns - 1)[:, None], 1)[:, 0]
    at_n = jax.lax.psum(jnp.where(mine_n, at_n, 0.0), MODEL)
    return jnp.log(z_n) + top_n - at_n, e_nv, z_n, column_n


def _whole_head(head_dv: Array, dtype: jnp.dtype) -> Array:
    return gather_shards(head_dv.astype(dtype))


def token_nats(
    h_ND: Float[Array, "N D"], target_N: Int[Array, "N"], head_DV: Float[Array, "D V"], vocab_size: int
) -> Float[Array, "N"]:
    """`-log softmax(h head)[target]` in nats, float32. Columns from `vocab_size` on are padding."""

    def local(h_nD: Array, target_n: Array, head_dv: Array) -> Array:
        head_Dv = _whole_head(head_dv, h_nD.dtype)

        def one(chunk: tuple[Array, Array]) -> Array:
            return _softmax_parts(chunk[0], head_Dv, chunk[1], vocab_size)[0]

        return jax.lax.map(one, (_in_chunks(h_nD), _in_chunks(target_n))).reshape(-1)[: h_nD.shape[0]]

    return over_shards(local, (BATCH_L, BATCH, HEAD_DV), BATCH)(h_ND, target_N, head_DV)


def token_and_likeliest_nats(
    h_ND: Float[Array, "N D"], target_N: Int[Array, "N"], head_DV: Float[Array, "D V"], vocab_size: int
) -> tuple[Float[Array, "N"], Float[Array, "N"], Int[Array, "N"]]:
    """`token_nats` of the targets, nats of each row's likeliest token, and that token (the lowest id among equals)."""

    def local(h_nD: Array, target_n: Array, head_dv: Array) -> tuple[Array, ...]:
        head_Dv = _whole_head(head_dv, h_nD.dtype)
        first = jax.lax.axis_index(MODEL) * head_Dv.shape[1]

        def one(chunk: tuple[Array, Array]) -> tuple[Array, Array, Array]:
            nats_n, e_nv, z_n, _ = _softmax_parts(chunk[0], head_Dv, chunk[1], vocab_size)
            here_n = e_nv.max(-1)
            best_n = jax.lax.pmax(here_n, MODEL)
            token_n = jnp.where(here_n == best_n, first + jnp.argmax(e_nv, -1), vocab_size)
            return nats_n, jnp.log(z_n / best_n), jax.lax.pmin(token_n, MODEL)

        found = jax.lax.map(one, (_in_chunks(h_nD), _in_chunks(target_n)))
        return tuple(x.reshape(-1)[: h_nD.shape[0]] for x in found)

    return over_shards(local, (BATCH_L, BATCH, HEAD_DV), (BATCH, BATCH, BATCH))(h_ND, target_N, head_DV)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def vocab_loss(
    h_ND: Float[Array, "N D"],
    target_N: Int[Array, "N"],
    weight_N: Float[Array, "N"],
    head_DV: Float[Array, "D V"],
    vocab_size: int,
) -> Float[Array, ""]:
    """`sum_n weight_n * nats_n`, float32. `h` (in its dtype) and `head` have gradients, the weights have none."""
    return (weight_N * token_nats(h_ND, target_N, head_DV, vocab_size)).sum()


def _loss_and_grads(h_nD: Array, target_n: Array, weight_n: Array, head_dv: Array, vocab_size: int):
    """Each device gets the loss over all rows, the gradient of its rows, and the gradient of its shard of the head."""
    head_Dv = _whole_head(head_dv, h_nD.dtype)

    def one(chunk: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Loss, gradient of the rows, and gradient of the head, of one chunk."""
        h_cD, target_c, weight_c = chunk
        nats_c, e_cv, z_c, column_c = _softmax_parts(h_cD, head_Dv, target_c, vocab_size)
        hit_cv = jnp.arange(head_Dv.shape[1]) == column_c[:, None]
        d_cv = (e_cv * (weight_c / z_c)[:, None] - jnp.where(hit_cv, weight_c[:, None], 0.0)).astype(h_cD.dtype)
        dh_cD = jax.lax.psum(sum_in_float32("cv,dv->cd", d_cv, head_Dv), MODEL)
        more_Dv = sum_in_float32("cd,cv->dv", h_cD, d_cv)
        return (weight_c * nats_c).sum(), dh_cD.astype(h_cD.dtype), more_Dv

    def add(carry: tuple[Array, Array], chunk: tuple[Array, Array, Array]):
        nats, dh_cD, more_Dv = one(chunk)
        return (carry[0] + nats, carry[1] + more_Dv), dh_cD

    if _chunk_sizes(h_nD.shape[0])[0] == 1:  # without an array of zeros to add to
        total, dh_nD, dhead_Dv = one((h_nD, target_n, weight_n))
    else:
        start = (jnp.zeros(()), jnp.zeros(head_Dv.shape, jnp.float32))
        (total, dhead_Dv), dh = jax.lax.scan(add, start, (_in_chunks(h_nD), _in_chunks(target_n), _in_chunks(weight_n)))
        dh_nD = dh.reshape(-1, h_nD.shape[1])[: h_nD.shape[0]]
    return jax.lax.psum(total, ROWS), dh_nD, sum_and_scatter(dhead_Dv)


def _forward(h_ND: Array, target_N: Array, weight_N: Array, head_DV: Array, vocab_size: int):
    local = functools.partial(_loss_and_grads, vocab_size=vocab_size)
    specs = (BATCH_L, BATCH, BATCH, HEAD_DV)
    total, dh_ND, dhead_DV = over_shards(local, specs, (REPLICATED, BATCH_L, HEAD_DV))(
        h_ND, target_N, weight_N, head_DV
    )
    return total, (dh_ND, dhead_DV.astype(head_DV.dtype))


def _backward(vocab_size: int, saved: tuple[Array, Array], g: Array):
    dh_ND, dhead_DV = saved
    return (dh_ND * g).astype(dh_ND.dtype), None, None, dhead_DV * g


vocab_loss.defvjp(_forward, _backward)


def token_nats_reference(
    h_ND: Float[Array, "N D"], target_N: Int[Array, "N"], head_DV: Float[Array, "D V"]
) -> Float[Array, "N"]:
    """`token_nats` from whole logits on one device. The tests compare the fused form with it."""
    logits_NV = (h_ND @ head_DV.astype(h_ND.dtype)).astype(jnp.float32)
    return jax.nn.logsumexp(logits_NV, -1) - jnp.take_along_axis(logits_NV, target_N[:, None], 1)[:, 0]
