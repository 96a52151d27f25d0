"""The masked diffusion model's training loss, nats per token, in several forms; the NELBO in its count form by default.

- `count`: K ~ U{1..L} tokens are masked uniformly at random, and the loss is the mean of their nats. It is the
  any-order autoregressive likelihood, and needs no cut-off at small noise.
- `continuous` (MDLM, Sahoo et al. 2024, Eq. 10): t ~ U(0, 1], a token is masked with probability m(t), and its nats
  have the weight m'/m. It has the expectation of `count` for every schedule from m = 0 to m = 1.
- `steps` (MDLM, Eq. 8): t in {1/T, .., 1}, s = t - 1/T, and the weight is T (m_t - m_s) / m_t. It is a looser bound,
  which reaches `continuous` as T grows.
- `d3pm` (MDLM, Eq. 9): the same steps; see `d3pm.py`. With carry-over and zero masking it is `steps`, draw by draw.

All but `d3pm` use the SUBS parametrisation: MASK is never predicted (zero masking), and unmasked tokens have no loss
(carry-over). Other weightings multiply the NELBO's weights; see `weighting.py`.

With a stochastic length a batch keeps its shape, and only its first `kept` positions are read and scored.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, reshard
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.masking import count_masks, independent_masks, level_counts, noise_times, paired_positions
from mdm_jax.objectives.noise import level, step_level
from mdm_jax.objectives.weighting import count_weights, level_weight
from mdm_jax.spec import ObjectiveSpec, Variant, Weighting


def draw(
    key: Key[Array, ""],
    tokens_BL: Int[Array, "B L"],
    objective: ObjectiveSpec,
    mask_id: int,
    kept: Int[Array, ""] | None = None,
) -> Draw:
    """Corrupted tokens (V where masked), and the weight of each position: `sum(weight * nats)` estimates the mean loss.

    Args:
        tokens_BL: clean tokens in 0..V-1.
        mask_id: V.
        kept: the number of tokens of a row that are read and scored; all by default.
    """
    key_level, key_mask = jax.random.split(key)
    batch, length = tokens_BL.shape
    level_B = jump_B = None
    if objective.variant is Variant.COUNT:
        mask_BL, weight_B = _count_form(key_level, key_mask, tokens_BL, objective, kept)
    else:
        level_B, weight_B, jump_B = level_form(key_level, batch, objective)
        mask_BL = independent_masks(key_mask, level_B, length)
        weight_B = weight_B / (length if kept is None else kept)
        level_B = reshard(level_B, BATCH)
    inputs_BL = jnp.where(mask_BL, mask_id, tokens_BL)
    if kept is not None:
        inside_L = jnp.arange(length) < kept
        mask_BL &= inside_L
        if objective.pairs_counts:
            inputs_BL = _pad_pairs(inputs_BL, inside_L, mask_id)
    weight_BL = mask_BL * reshard(weight_B / batch, BATCH)[:, None]
    position_PM = paired_positions(inputs_BL == mask_id) if objective.pairs_counts else None
    return Draw(inputs_BL, tokens_BL, weight_BL, None, level_B, jump_B, position_PM=position_PM)


def _count_form(
    key_level: Array, key_mask: Array, tokens_BL: Array, objective: ObjectiveSpec, kept: Array | None
) -> tuple[Bool[Array, "B L"], Float[Array, "B"]]:
    """The masks, and the weight of a masked token in each row."""
    batch, length = tokens_BL.shape
    among = length if kept is None else kept
    count_B, relative_B = level_counts(key_level, batch, among, objective.levels)
    inside = None if kept is None else jnp.arange(length) < kept
    mask_BL, weight_B = count_masks(key_mask, count_B, length, inside), 1 / count_B
    if relative_B is not None:
        weight_B *= relative_B
    if objective.weighting is not Weighting.ELBO:
        weight_B *= jnp.asarray(count_weights(objective.weighting, length), jnp.float32)[count_B - 1]
    return mask_BL, weight_B


def level_form(
    key: Array, batch: int, objective: ObjectiveSpec
) -> tuple[Float[Array, "B"], Float[Array, "B"], Float[Array, "B"] | None]:
    """Probability of MASK, weight of a masked token, and D3PM's jump (see Draw), of each row."""
    t_B, jump_B = noise_times(key, batch, objective.levels), None
    if objective.variant is Variant.CONTINUOUS:
        m_B, weight_B = level(objective, t_B)
    else:
        steps = objective.time_steps
        m_B, removed_B = step_level(objective, jnp.ceil(t_B * steps).astype(jnp.int32).clip(1, steps))
        weight_B = steps * removed_B
        if objective.variant is Variant.D3PM:
            jump_B = reshard(removed_B, BATCH)
    if objective.weighting is not Weighting.ELBO:
        weight_B *= level_weight(objective.weighting, m_B)
    return m_B, weight_B, jump_B


def _pad_pairs(inputs_BL: Array, inside_L: Array, mask_id: int) -> Array:
    """Inputs with MASK on the padding of even rows alone.

    A pair of rows with `kept` tokens has kept + 1 masked ones. The even row's padding brings them to L + 1, the static
    number of positions that go through the head. No token sees the padding, and it has no weight.
    """
    padding_B = jnp.where(jnp.arange(inputs_BL.shape[0]) % 2 == 0, mask_id, 0)
    return jnp.where(inside_L, inputs_BL, reshard(padding_B, BATCH)[:, None])
