"""The masked diffusion model's training loss, nats per token, in two forms with one expectation: the NELBO by default.

- Count form: K ~ U{1..L} tokens are masked uniformly at random, and the loss is the mean of their nats. It is the
  any-order autoregressive likelihood, and needs no cut-off at small noise.
- Continuous form (MDLM, Sahoo et al. 2024, Eq. 10): t ~ U(0, 1], a token is masked with probability m(t), and its nats
  have the weight m'/m.

Both forms use the SUBS parametrisation: the head has no MASK column (zero masking), and unmasked tokens have no loss
(carry-over). Other weightings multiply the NELBO's weights; see `weighting.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, reshard
from mdm_jax.objectives.masking import antithetic_counts, count_masks, independent_masks, noise_times
from mdm_jax.objectives.noise import mask_probability, nelbo_weight
from mdm_jax.objectives.weighting import count_weights, level_weight
from mdm_jax.spec import ObjectiveSpec, Variant, Weighting


def draw(
    key: Key[Array, ""], tokens_BL: Int[Array, "B L"], objective: ObjectiveSpec, mask_id: int
) -> tuple[Int[Array, "B L"], Float[Array, "B L"]]:
    """Corrupted tokens (V where masked), and the weight of each position: `sum(weight * nats)` estimates the mean loss.

    Args:
        tokens_BL: clean tokens in 0..V-1.
        mask_id: V.
    """
    key_level, key_mask = jax.random.split(key)
    batch, length = tokens_BL.shape
    plain = objective.weighting is Weighting.ELBO
    if objective.variant is Variant.COUNT:
        count_B = antithetic_counts(key_level, batch, length)
        mask_BL, weight_B = count_masks(key_mask, count_B, length), 1 / count_B
        if not plain:
            weight_B *= jnp.asarray(count_weights(objective.weighting, length), jnp.float32)[count_B - 1]
    else:
        t_B = noise_times(key_level, batch, objective.levels)
        m_B = mask_probability(objective.noise, t_B)
        mask_BL = independent_masks(key_mask, m_B, length)
        weight_B = nelbo_weight(objective.noise, t_B) / length
        if not plain:
            weight_B *= level_weight(objective.weighting, m_B)
    weight_BL = mask_BL * reshard(weight_B / batch, BATCH)[:, None]
    return jnp.where(mask_BL, mask_id, tokens_BL), weight_BL
