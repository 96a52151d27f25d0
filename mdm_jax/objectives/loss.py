"""One loss for both families. A draw has inputs, targets and weights; the loss is the weighted sum of the nats.

Drawing and scoring are two steps: the masks are drawn for a whole batch, because noise levels are stratified over the
batch, and the loss is computed for one microbatch at a time.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, BATCH_L, flat_rows, reshard
from mdm_jax.objectives import arm, mdm, pairs
from mdm_jax.objectives.d3pm import mask_loss, mask_nats
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.masking import gather_paired, kept_length, paired_positions
from mdm_jax.objectives.vocab_loss import token_nats, vocab_loss
from mdm_jax.spec import ObjectiveSpec, RowKind, Variant

Hidden = Callable[..., Array]
"""A model: hidden states `[B, L, D]` of tokens `[B, L]`. With positions `[P, M]` of each pair of rows as its second
argument, it gives the hidden states of these alone, `[P, M, D]`."""
LENGTH_STREAM = 2


def draw(
    key: Key[Array, ""],
    tokens_BL: Int[Array, "B L"],
    objective: ObjectiveSpec,
    vocab_size: int,
    kind: RowKind = RowKind.TEXT,
) -> Draw:
    """The training draw for a whole batch. The ARM uses `key` only for a stochastic length.

    Args:
        key: the key of the masks.
        tokens_BL: ids in 0..V-1; or pairs, as `pairs.py` says.
        objective: the loss.
        vocab_size: V.
        kind: what the rows are.
    """
    if kind is not RowKind.TEXT:
        return pairs.draw(key, tokens_BL, objective, vocab_size, kind)
    batch, length = tokens_BL.shape
    kept = length_B = None
    if objective.stochastic_length:
        kept = kept_length(jax.random.fold_in(key, LENGTH_STREAM), objective.stochastic_length, length)
        length_B = reshard(jnp.full(batch, kept, jnp.int32), BATCH)
    if objective.variant is Variant.NLL:
        return Draw(arm.shifted(tokens_BL, vocab_size), tokens_BL, arm.equal_weights(tokens_BL, kept), length_B)
    clean_BL = arm.equal_weights(tokens_BL, kept) if objective.reconstructs else None
    drawn = mdm.draw(key, tokens_BL, objective, vocab_size, kept)
    return dataclasses.replace(drawn, length_B=length_B, clean_BL=clean_BL)


def reconstruction(drawn: Draw) -> Draw:
    """The draw of the reconstruction term, for D3PM without carry-over: each clean token, read and predicted."""
    return Draw(drawn.targets_BL, drawn.targets_BL, drawn.clean_BL, drawn.length_B, seed_B=drawn.seed_B)


def _columns(objective: ObjectiveSpec, vocab_size: int) -> int:
    """Columns of the head that the softmax of the training loss goes over; without zero masking the last is MASK."""
    return vocab_size + (not objective.zero_masking)


def _scored_rows(drawn: Draw, hidden: Hidden, objective: ObjectiveSpec, vocab_size: int) -> tuple[Array, Array, Array]:
    """Hidden states, targets and weights, `[N, ...]`, of the scored positions: only masked ones for pairs of counts."""
    if objective.pairs_counts:
        position_PM = _positions(drawn, vocab_size)
        target_N, weight_N = (gather_paired(x, position_PM) for x in (drawn.targets_BL, drawn.weight_BL))
        return flat_rows(hidden(drawn.inputs_BL, position_PM)), target_N, weight_N
    h_BLD = hidden(drawn.inputs_BL)
    batch, length, d = h_BLD.shape
    return h_BLD.reshape(batch * length, d), drawn.targets_BL.reshape(-1), drawn.weight_BL.reshape(-1)


def _positions(drawn: Draw, vocab_size: int) -> Int[Array, "P M"]:
    """The positions of each pair of rows that go through the head, for pairs of counts."""
    return paired_positions(drawn.inputs_BL == vocab_size) if drawn.position_PM is None else drawn.position_PM


def _free_mask(drawn: Draw, objective: ObjectiveSpec) -> tuple[Array, Array] | None:
    """The m and the jump of each position `[N]` if Eq. 9's terms for probability on MASK apply; else None."""
    if objective.zero_masking or drawn.jump_B is None:
        return None
    shape = drawn.inputs_BL.shape
    m_N, jump_N = (jnp.broadcast_to(x[:, None], shape).reshape(-1) for x in (drawn.level_B, drawn.jump_B))
    return m_N, jump_N


def loss(drawn: Draw, hidden: Hidden, head_DV: Array, objective: ObjectiveSpec, vocab_size: int) -> Float[Array, ""]:
    """`sum weight * nats`, in nats per token: over a whole batch, the ARM's mean NLL or an estimate of the MDM's loss.

    D3PM without carry-over has a second summand, the loss of `reconstruction(drawn)`.
    """
    h_ND, target_N, weight_N = _scored_rows(drawn, hidden, objective, vocab_size)
    columns = _columns(objective, vocab_size)
    value: Array = vocab_loss(h_ND, target_N, weight_N, head_DV, columns)
    free = _free_mask(drawn, objective)
    return value if free is None else value + mask_loss(h_ND, weight_N, *free, head_DV, columns)


def row_losses(
    drawn: Draw, hidden: Hidden, head_DV: Array, objective: ObjectiveSpec, vocab_size: int
) -> Float[Array, "B"]:
    """The loss of each row in nats per token, for evaluation; their mean is `loss`. It has no fused gradient."""
    batch, length = drawn.targets_BL.shape
    h_ND, target_N, weight_N = _scored_rows(drawn, hidden, objective, vocab_size)
    columns, free = _columns(objective, vocab_size), _free_mask(drawn, objective)
    nats_N = token_nats(h_ND, target_N, head_DV, columns)
    if free is not None:
        nats_N += mask_nats(h_ND, *free, head_DV, columns)
    nats_N = weight_N * nats_N * batch
    if not objective.pairs_counts:
        return nats_N.reshape(batch, length).sum(-1)
    first_PM = _positions(drawn, vocab_size) < length
    nats_PM = jax.lax.reshape(nats_N, (batch // 2, length + 1), out_sharding=BATCH_L)
    of_first_P = jnp.where(first_PM, nats_PM, 0.0).sum(-1)
    losses_P2 = jnp.stack([of_first_P, nats_PM.sum(-1) - of_first_P], 1)
    return jax.lax.reshape(losses_P2, (batch,), out_sharding=BATCH)
