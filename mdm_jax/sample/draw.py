"""Predictions at every position: a drawn token, its probability, and how sure the model is.

A token is drawn by inverting the cumulative distribution with one uniform number. The usual way, the greatest sum of a
logit and Gumbel noise, loses the tail in float32: `-log(-log(u))` of a float32 `u` is never above 16, so that rare
tokens come out too rarely, as at a lower temperature (Zheng et al. 2024, arXiv 2409.02908). Here the probability of a
token is right within 2^-23. It also takes one random number where Gumbel noise takes V.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdm_jax.devices.precision import sum_in_float32
from mdm_jax.devices.sharding import BATCH, REPLICATED, over_shards, replicate
from mdm_jax.sample.canvas import Filters

CHUNK_POSITIONS = 1024
"""Positions whose logits are in memory at a time."""


class Predicted(NamedTuple):
    """What the model predicts at each position, `[..., L]`. All but the token ignore temperature, top-k and top-p.

    Attributes:
        token: the drawn token.
        nats: minus the log-probability of the drawn token.
        margin: probability of the likeliest token minus that of the next one.
        entropy: nats.
    """

    token: Array
    nats: Array
    margin: Array
    entropy: Array


def predict(
    h_BLD: Float[Array, "B L D"],
    head_DV: Float[Array, "D W"],
    uniform_BL: Float[Array, "B L"],
    vocab_size: int,
    filters: Filters,
) -> Predicted:
    """A drawn token and its statistics at every position; the logits of CHUNK_POSITIONS positions exist at a time.

    Args:
        h_BLD: hidden states.
        head_DV: the head; its columns from `vocab_size` on are padding.
        uniform_BL: numbers from 0 up to 1, one for each token.
        vocab_size: V.
        filters: temperature, top-k and top-p of each row.
    """
    whole_DV = replicate(head_DV.astype(h_BLD.dtype))[:, :vocab_size]

    def local(whole_DV: Array, h_bLD: Array, uniform_bL: Array, filters: Filters) -> Predicted:
        rows, length, width = h_bLD.shape
        each_N = jax.tree.map(lambda x_b: jnp.repeat(x_b, length), filters)
        inputs = (h_bLD.reshape(-1, width), uniform_bL.reshape(-1), each_N)
        size = min(CHUNK_POSITIONS, rows * length)

        def one(chunk: tuple[Array, Array, Filters]) -> Predicted:
            logits_NV = sum_in_float32("nd,dv->nv", chunk[0], whole_DV)
            return _statistics(logits_NV, draw(logits_NV, chunk[1], chunk[2]))

        chunks = jax.tree.map(lambda x_Nx: _in_chunks(x_Nx, size), inputs)
        found = jax.lax.map(one, chunks)
        return Predicted(*(x.reshape(-1)[: rows * length].reshape(rows, length) for x in found))

    return over_shards(local, (REPLICATED, BATCH, BATCH, BATCH), BATCH)(whole_DV, h_BLD, uniform_BL, filters)


def _in_chunks(x_Nx: Array, size: int) -> Array:
    padding = [(0, -x_Nx.shape[0] % size)] + [(0, 0)] * (x_Nx.ndim - 1)
    return jnp.pad(x_Nx, padding).reshape(-1, size, *x_Nx.shape[1:])


def _statistics(logits_NV: Array, token_N: Array) -> Predicted:
    log_p_NV = jax.nn.log_softmax(logits_NV)
    p_NV = jnp.exp(log_p_NV)
    first_N = jnp.argmax(logits_NV, -1)
    others_NV = jnp.where(jnp.arange(logits_NV.shape[1]) == first_N[:, None], 0.0, p_NV)
    nats_N = -jnp.take_along_axis(log_p_NV, token_N[:, None], 1)[:, 0]
    return Predicted(token_N, nats_N, p_NV.max(-1) - others_NV.max(-1), -(p_NV * log_p_NV).sum(-1))


def draw(logits_NV: Float[Array, "N V"], uniform_N: Float[Array, "N"], filters: Filters) -> Int[Array, "N"]:
    """A token of each row of logits, drawn after temperature, then top-k, then top-p.

    Args:
        logits_NV: logits, float32.
        uniform_N: numbers from 0 up to 1. At the temperature 0 they do not matter: the likeliest token of the lowest id
            is taken.
        filters: temperature, top-k and top-p of each row.
    """
    temperature_N1 = jnp.asarray(filters.temperature_B)[:, None]
    scaled_NV = logits_NV / jnp.where(temperature_N1 > 0, temperature_N1, 1.0)
    p_NV = jax.nn.softmax(_filtered(scaled_NV, filters))
    sum_NV = jnp.cumsum(p_NV, -1)
    total_N1 = sum_NV[:, -1:]
    # The product may round up to the total, which no token's sum exceeds.
    aim_N1 = jnp.minimum(uniform_N[:, None] * total_N1, jnp.nextafter(total_N1, 0.0))
    drawn_N = (sum_NV <= aim_N1).sum(-1).clip(max=logits_NV.shape[1] - 1)
    return jnp.where(temperature_N1[:, 0] > 0, drawn_N, jnp.argmax(logits_NV, -1)).astype(jnp.int32)


def _filtered(logits_NV: Array, filters: Filters) -> Array:
    """The logits with -inf in place of those that top-k and top-p exclude. Tokens equal to the last one are kept."""
    if filters.top_k_B is None and filters.top_p_B is None:
        return logits_NV
    sorted_NV = jnp.sort(logits_NV, -1, descending=True)
    kept_NV = jnp.ones_like(sorted_NV, bool)
    if filters.top_k_B is not None:
        last_N1 = jnp.asarray(filters.top_k_B)[:, None].clip(1, logits_NV.shape[1]) - 1
        kept_NV = sorted_NV >= jnp.take_along_axis(sorted_NV, last_N1, 1)
    if filters.top_p_B is not None:
        p_NV = jax.nn.softmax(jnp.where(kept_NV, sorted_NV, -jnp.inf))
        kept_NV &= jnp.cumsum(p_NV, -1) - p_NV < jnp.asarray(filters.top_p_B)[:, None]
    least_N1 = jnp.where(kept_NV, sorted_NV, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits_NV >= least_N1, logits_NV, -jnp.inf)
