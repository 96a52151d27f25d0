"""The training draw of pairs: only the response is masked and scored, and padding is neither read nor scored.

A batch of pairs is one array of int32, `[B, L]`: an id of the response stands as it is, an id i of the prompt stands as
-1 - i, and V is padding after the pair. A pair of n scored tokens has the loss of a row of n tokens: K ~ U{1..n} of
them are masked in the count form, and each of them in the other forms with the row's probability. The loss of a batch
is the nats of all its scored tokens by their number, so a long response weighs more than a short one:

    sum_i (n_i / K_i) (nats of the K_i masked tokens of pair i)  /  sum_i n_i.

The counts of neighbouring pairs are antithetic in spirit. Both come from one u: K = 1 + floor(u n) in the first, and
K = n' - floor(u n') in the second. Together they are at most max(n, n') + 1, hence at most L + 1, and the head reads
L + 1 positions of the two rows as it does for text.

A dropped prompt is read as MASK, and is not scored (classifier-free guidance, Ho and Salimans 2022, arXiv 2207.12598).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, reshard
from mdm_jax.objectives.arm import shifted
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.masking import (
    count_masks,
    fill_pairs,
    independent_masks,
    noise_times,
    pair_levels,
    paired_positions,
)
from mdm_jax.objectives.mdm import level_form
from mdm_jax.spec import LevelSampler, ObjectiveSpec, RowKind, Variant

DROP_STREAM = 3


def scored_positions(rows_BL: np.ndarray | Array, vocab_size: int, kind: RowKind) -> np.ndarray | Array:
    """The scored tokens of rows of pairs, bool `[B, L]`, on the host or on a device."""
    inside_BL = rows_BL != vocab_size
    return inside_BL if kind is RowKind.WHOLE_PAIRS else inside_BL & (rows_BL >= 0)


def plain_tokens(rows_BL: Int[Array, "B L"], vocab_size: int) -> Int[Array, "B L"]:
    """The ids of the pairs in 0..V-1, with 0 at the padding."""
    return jnp.where(rows_BL < 0, -1 - rows_BL, jnp.where(rows_BL == vocab_size, 0, rows_BL))


def draw(
    key: Key[Array, ""], rows_BL: Int[Array, "B L"], objective: ObjectiveSpec, vocab_size: int, kind: RowKind
) -> Draw:
    """The training draw for a batch of pairs; the ARM has no use for the key.

    Args:
        key: the key of the masks.
        rows_BL: see the module's docstring.
        objective: the loss.
        vocab_size: V.
        kind: whether the prompts are masked and scored too.
    """
    tokens_BL, scored_BL = plain_tokens(rows_BL, vocab_size), jnp.asarray(scored_positions(rows_BL, vocab_size, kind))
    total = scored_BL.sum().astype(jnp.float32)
    if objective.variant is Variant.NLL:  # a causal model does not see the padding, which comes last
        return Draw(shifted(tokens_BL, vocab_size), tokens_BL, scored_BL / total)
    mask_BL, weight_B, level_B, jump_B = _masks(key, scored_BL, objective)
    hidden_BL = mask_BL
    if objective.drop_prompt:
        dropped_B = jax.random.uniform(jax.random.fold_in(key, DROP_STREAM), rows_BL.shape[:1]) < objective.drop_prompt
        hidden_BL |= (rows_BL < 0) & reshard(dropped_B, BATCH)[:, None]
    return Draw(
        inputs_BL=jnp.where(hidden_BL, vocab_size, tokens_BL),
        targets_BL=tokens_BL,
        weight_BL=mask_BL * (weight_B / total)[:, None],
        length_B=(rows_BL != vocab_size).sum(-1).astype(jnp.int32),
        level_B=level_B,
        jump_B=jump_B,
        clean_BL=scored_BL / total if objective.reconstructs else None,
        position_PM=paired_positions(fill_pairs(mask_BL)) if objective.pairs_counts else None,
    )


def _masks(
    key: Key[Array, ""], scored_BL: Bool[Array, "B L"], objective: ObjectiveSpec
) -> tuple[Bool[Array, "B L"], Float[Array, "B"], Array | None, Array | None]:
    """Masked tokens, the weight of a masked token's nats in the nats of its row, and Draw's level and jump."""
    key_level, key_mask = jax.random.split(key)
    batch, length = scored_BL.shape
    if objective.variant is Variant.COUNT:
        tokens_B = scored_BL.sum(-1).astype(jnp.int32)
        count_B, relative_B = pair_counts(key_level, tokens_B, objective.levels)
        weight_B = tokens_B / count_B
        if relative_B is not None:
            weight_B *= reshard(jnp.asarray(relative_B), BATCH)
        return count_masks(key_mask, count_B, length, scored_BL), weight_B, None, None
    level_B, weight_B, jump_B = level_form(key_level, batch, objective)
    mask_BL = independent_masks(key_mask, level_B, length) & scored_BL
    return mask_BL, reshard(weight_B, BATCH), reshard(level_B, BATCH), jump_B


def pair_counts(
    key: Key[Array, ""], tokens_B: Int[Array, "B"], sampler: LevelSampler
) -> tuple[Int[Array, "B"], Float[np.ndarray, "B"] | None]:
    """Masked tokens of each row, in 1 .. tokens_B, and the weight of each row relative to the others, or None.

    See `masking.level_counts`, which has rows of one length.
    """
    batch = tokens_B.shape[0]
    if not sampler.pairs_counts:
        t_B = reshard(noise_times(key, batch, sampler), BATCH)
        return jnp.ceil(t_B * tokens_B).astype(jnp.int32).clip(1, tokens_B), None
    u_P, relative_B = pair_levels(key, batch // 2, sampler)
    u_B, first_B = (reshard(x, BATCH) for x in (jnp.repeat(u_P, 2), jnp.arange(batch) % 2 == 0))
    count_B = jnp.minimum((u_B * tokens_B).astype(jnp.int32), tokens_B - 1) + 1
    return jnp.where(first_B, count_B, tokens_B + 1 - count_B), relative_B
