"""One loss for both families. A draw has inputs, targets and weights; the loss is the weighted sum of the nats.

Drawing and scoring are two steps: the masks are drawn for a whole batch, because noise levels are stratified over the
batch, and the loss is computed for one microbatch at a time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, BATCH_L
from mdm_jax.objectives import arm, mdm
from mdm_jax.objectives.masking import gather_paired, paired_positions
from mdm_jax.objectives.vocab_loss import token_nats, vocab_loss
from mdm_jax.spec import ObjectiveSpec, Variant

Hidden = Callable[[Array], Array]


@struct.dataclass
class Draw:
    """`inputs` in 0..V (V is MASK or start), `targets` in 0..V-1, `weight` float32, 0 where nothing is predicted.

    The fields are arrays `[B, L]` or `[M, B, L]` (microbatches), or jax's abstract values in their place. Hence `Any`.
    """

    inputs_BL: Any
    targets_BL: Any
    weight_BL: Any


def draw(key: Key[Array, ""], tokens_BL: Int[Array, "B L"], objective: ObjectiveSpec, vocab_size: int) -> Draw:
    """The training draw for a whole batch. The ARM ignores `key`."""
    if objective.variant is Variant.NLL:
        inputs_BL, weight_BL = arm.draw(tokens_BL, vocab_size)
    else:
        inputs_BL, weight_BL = mdm.draw(key, tokens_BL, objective, vocab_size)
    return Draw(inputs_BL, tokens_BL, weight_BL)


def _scored_rows(drawn: Draw, h_BLD: Array, objective: ObjectiveSpec, vocab_size: int) -> tuple[Array, Array, Array]:
    """Hidden states, targets and weights, `[N, ...]`, of the scored positions: in the count form the masked ones."""
    if objective.variant is Variant.COUNT:
        position_PM = paired_positions(drawn.inputs_BL == vocab_size)
        h_ND, target_N, weight_N = (gather_paired(x, position_PM) for x in (h_BLD, drawn.targets_BL, drawn.weight_BL))
        return h_ND, target_N, weight_N
    batch, length, d = h_BLD.shape
    return h_BLD.reshape(batch * length, d), drawn.targets_BL.reshape(-1), drawn.weight_BL.reshape(-1)


def loss(drawn: Draw, hidden: Hidden, head_DV: Array, objective: ObjectiveSpec, vocab_size: int) -> Float[Array, ""]:
    """`sum weight * nats`, in nats per token: over a whole batch, the ARM's mean NLL or an estimate of the NELBO."""
    h_ND, target_N, weight_N = _scored_rows(drawn, hidden(drawn.inputs_BL), objective, vocab_size)
    return vocab_loss(h_ND, target_N, weight_N, head_DV, vocab_size)


def row_losses(
    drawn: Draw, hidden: Hidden, head_DV: Array, objective: ObjectiveSpec, vocab_size: int
) -> Float[Array, "B"]:
    """The loss of each row in nats per token, for evaluation; their mean is `loss`. It has no fused gradient."""
    batch, length = drawn.targets_BL.shape
    h_ND, target_N, weight_N = _scored_rows(drawn, hidden(drawn.inputs_BL), objective, vocab_size)
    nats_N = weight_N * token_nats(h_ND, target_N, head_DV, vocab_size) * batch
    if objective.variant is not Variant.COUNT:
        return nats_N.reshape(batch, length).sum(-1)
    first_PM = paired_positions(drawn.inputs_BL == vocab_size) < length
    nats_PM = jax.lax.reshape(nats_N, (batch // 2, length + 1), out_sharding=BATCH_L)
    of_first_P = jnp.where(first_PM, nats_PM, 0.0).sum(-1)
    losses_P2 = jnp.stack([of_first_P, nats_PM.sum(-1) - of_first_P], 1)
    return jax.lax.reshape(losses_P2, (batch,), out_sharding=BATCH)
