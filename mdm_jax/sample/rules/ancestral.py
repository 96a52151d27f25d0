"""Ancestral sampling (MDLM, Sahoo et al. 2024, arXiv 2406.07524): each MASK is revealed by itself with a probability.

The masked share falls linearly from 1 to 0 in `steps` steps. From t to s, a token that is still MASK is revealed with
the probability `1 - s / t`, so that the last step reveals all that are left. SMDM stops at t = 1e-5 in place of 0,
which changes a probability by less than 1e-5. The positions do not depend on the predictions. So a step that reveals
nothing needs no forward pass: MDLM's cache of predictions, without a cache.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdm_jax.sample.rules.rule import Change, Rule, View, only_reveal


def _choose(view: View, key: Key[Array, ""]) -> Change:
    left = jnp.maximum(view.steps - view.step, 1)  # 1 - s / t is 1 / left
    uniform_L = jax.random.uniform(key, view.masked_L.shape)
    return only_reveal(view.masked_L & (uniform_L * left < 1))


ANCESTRAL = Rule(_choose, sees=False)
