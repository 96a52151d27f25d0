"""Masks of a batch: noise levels of the rows, masks within a row, and the masked positions.

Antithetic stratified counts mask K tokens of row 2i and L+1-K tokens of row 2i+1, so every pair of rows has exactly L+1
masked tokens. Shards and microbatches hold whole pairs, so the shapes of their masked positions are static.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, BATCH_L, over_shards, reshard, rows_spec
from mdm_jax.spec import LevelSampler


def antithetic_counts(key: Key[Array, ""], batch: int, seq_len: int) -> Int[Array, "B"]:
    """Masked tokens of each row, in 1..L, stratified over the pairs of rows. Rows 2i and 2i+1 sum to L+1.

    The count of a randomly chosen row is uniform on 1..L.
    """
    pairs = batch // 2
    u_P = (jnp.arange(pairs) + jax.random.uniform(key, (pairs,))) / pairs
    count_P = jnp.minimum((u_P * seq_len).astype(jnp.int32), seq_len - 1) + 1
    return jnp.stack([count_P, seq_len + 1 - count_P], 1).reshape(batch)


def noise_times(key: Key[Array, ""], batch: int, sampler: LevelSampler) -> Float[Array, "B"]:
    """Times in (0, 1]: independent (SMDM training), a shifted grid (SMDM evaluation, MD4), or stratified (MDLM)."""
    if sampler is LevelSampler.IID:
        u_B = jax.random.uniform(key, (batch,))
    elif sampler is LevelSampler.SHIFTED:
        u_B = (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1
    else:
        u_B = (jnp.arange(batch) + jax.random.uniform(key, (batch,))) / batch
    return 1 - u_B.clip(0, 1 - 2**-24)  # the float sum may round up to 1, and t = 0 has no weight


def count_masks(key: Key[Array, ""], count_B: Int[Array, "B"], seq_len: int) -> Bool[Array, "B L"]:
    """Masks with exactly `count_B` tokens in each row, uniform over all such sets.

    Tokens are chosen by rank and not by a threshold, because at L = 2048 a quarter of the rows have ties among their
    float32 uniforms.
    """
    u_BL = jax.random.uniform(key, (count_B.shape[0], seq_len), out_sharding=BATCH_L)
    rank_BL = jnp.argsort(jnp.argsort(u_BL, axis=-1), axis=-1)
    return rank_BL < reshard(count_B, BATCH)[:, None]


def independent_masks(key: Key[Array, ""], probability_B: Float[Array, "B"], seq_len: int) -> Bool[Array, "B L"]:
    """Masks in which each token is masked independently, with its row's probability."""
    u_BL = jax.random.uniform(key, (probability_B.shape[0], seq_len), out_sharding=BATCH_L)
    return u_BL < reshard(probability_B, BATCH)[:, None]


def paired_positions(mask_BL: Bool[Array, "B L"]) -> Int[Array, "P M"]:
    """The L+1 masked positions of each pair of rows, `[B/2, L+1]`, ascending in 0..2L-1."""
    length = mask_BL.shape[1]

    def local(mask_bL: Array) -> Array:
        return jax.vmap(lambda pair: jnp.nonzero(pair, size=length + 1)[0])(mask_bL.reshape(-1, 2 * length))

    return over_shards(local, BATCH_L, BATCH_L)(mask_BL)


def gather_paired(x_BLx: Array, position_PM: Int[Array, "P M"]) -> Array:
    """`x` at the positions of the pairs, flattened to `[B/2 * (L+1), ...]`, without communication between devices."""

    def local(x_bLx: Array, position_pM: Array) -> Array:
        pairs = x_bLx.reshape(position_pM.shape[0], -1, *x_bLx.shape[2:])
        take = jax.vmap(lambda x, i: x.at[i].get(mode="promise_in_bounds", unique_indices=True))
        return take(pairs, position_pM).reshape(-1, *x_bLx.shape[2:])

    specs = (rows_spec(x_BLx.ndim), BATCH_L)
    return over_shards(local, specs, rows_spec(x_BLx.ndim - 1))(x_BLx, position_PM)
