"""Noise schedules of the forward process: a token is MASK at time t with probability `m(t)`, m(0) = 0 and m(1) = 1.

The continuous-time NELBO weights a masked token's nats by `w(t) = m'(t) / m(t)` (MDLM, Sahoo et al. 2024, Eq. 10, where
alpha = 1 - m). Every schedule from m = 0 to m = 1 gives the same expectation, but not the same variance.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mdm_jax.spec import NoiseSchedule


def mask_probability(noise: NoiseSchedule, t_B: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """m(t) in (0, 1] for t in (0, 1]: `t` (log-linear), or `1 - cos(pi t / 2)` (cosine)."""
    if noise is NoiseSchedule.LOG_LINEAR:
        return t_B
    return 2 * jnp.sin(jnp.pi / 4 * t_B) ** 2  # equals 1 - cos(pi t / 2), without cancellation at small t


def nelbo_weight(noise: NoiseSchedule, t_B: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """w(t) = m'(t) / m(t) > 0 for t in (0, 1]: `1 / t` (log-linear), or `pi / 2 cot(pi t / 4)` (cosine)."""
    if noise is NoiseSchedule.LOG_LINEAR:
        return 1 / t_B
    return jnp.pi / 2 / jnp.tan(jnp.pi / 4 * t_B)
