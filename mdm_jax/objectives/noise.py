"""Noise schedules of the forward process: a token is MASK at time t with probability `m(t)`.

The continuous-time NELBO weights a masked token's nats by `w(t) = m'(t) / m(t)` (MDLM, Sahoo et al. 2024, Eq. 10, where
alpha = 1 - m). Its expectation depends on m(0) and m(1) alone: every schedule from 0 to 1 gives the NELBO, with its own
variance. The expected sum of a token's weights is the span m(1) - m(0).

| name           | m(t)                | span                                                           |
|----------------|---------------------|----------------------------------------------------------------|
| log_linear     | t                   | 1 (sigma = -log(1 - t))                                        |
| cosine         | 1 - cos(pi t / 2)   | 1                                                              |
| cosine_squared | sin(pi t / 2)^2     | 1                                                              |
| polynomial     | t^k                 | 1 (MD4, Shi et al. 2024, arXiv 2406.04329)                     |
| linear         | 1 - exp(-sigma)     | .99809: sigma is linear in t, from 1e-3 to 7 (MDLM's settings) |
| geometric      | 1 - exp(-sigma)     | .63112: log sigma is linear in t, from 1e-3 to 1 (MDLM's code) |

Two published codes change the loss where the noise is small (eps is 1e-3 in both):

- SMDM (Nie et al. 2024) masks with probability `p = (1 - eps) m + eps` and has the weight `m' / p`. Weights sum to the
  span, but levels below eps are missing and the others are too frequent: the expectation is not the NELBO.
- MDLM draws t from (eps, 1], and its schedules end at 1 - eps: `(1 - eps) m`, with the weight m'/m. (Its linear and
  geometric schedules have their own ends.) The span of `log_linear` is then .999.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdm_jax.spec import Cutoff, NoiseSchedule, ObjectiveSpec

LINEAR_SIGMA = (1e-3, 7.0)
LINEAR_RATE = LINEAR_SIGMA[1] - LINEAR_SIGMA[0]
GEOMETRIC_SIGMA = (1e-3, 1.0)
GEOMETRIC_RATE = math.log(GEOMETRIC_SIGMA[1] / GEOMETRIC_SIGMA[0])
POWER = 2.0
EXPONENTIAL = (NoiseSchedule.LINEAR, NoiseSchedule.GEOMETRIC)


def _sigma(noise: NoiseSchedule, t_B: Float[Array, "*B"]) -> Float[Array, "*B"]:
    if noise is NoiseSchedule.LINEAR:
        return LINEAR_SIGMA[0] + LINEAR_RATE * t_B
    return GEOMETRIC_SIGMA[0] * jnp.exp(GEOMETRIC_RATE * t_B)


def mask_probability(noise: NoiseSchedule, t_B: Float[Array, "*B"], power: float = POWER) -> Float[Array, "*B"]:
    """m(t) in (0, 1] for t in (0, 1]. No form cancels at small t.

    Args:
        power: k of the polynomial schedule.
    """
    if noise is NoiseSchedule.LOG_LINEAR:
        return t_B
    if noise is NoiseSchedule.POLYNOMIAL:
        return t_B**power
    if noise in EXPONENTIAL:
        return -jnp.expm1(-_sigma(noise, t_B))
    if noise is NoiseSchedule.COSINE_SQUARED:
        return jnp.sin(jnp.pi / 2 * t_B) ** 2
    return 2 * jnp.sin(jnp.pi / 4 * t_B) ** 2  # equals 1 - cos(pi t / 2)


def nelbo_weight(noise: NoiseSchedule, t_B: Float[Array, "*B"], power: float = POWER) -> Float[Array, "*B"]:
    """w(t) = m'(t) / m(t) for t in (0, 1]. It is positive, and 0 only for `cosine_squared` at t = 1."""
    if noise is NoiseSchedule.LOG_LINEAR:
        return 1 / t_B
    if noise is NoiseSchedule.POLYNOMIAL:
        return power / t_B
    if noise in EXPONENTIAL:
        sigma_B = _sigma(noise, t_B)
        rate = LINEAR_RATE if noise is NoiseSchedule.LINEAR else GEOMETRIC_RATE * sigma_B
        return rate / jnp.expm1(sigma_B)
    if noise is NoiseSchedule.COSINE_SQUARED:  # pi cot(pi t / 2), without the sign error of a rounded pi / 2
        return jnp.pi * jnp.sin(jnp.pi / 2 * (1 - t_B)) / jnp.sin(jnp.pi / 2 * t_B)
    return jnp.pi / 2 / jnp.tan(jnp.pi / 4 * t_B)


def level(objective: ObjectiveSpec, t_B: Float[Array, "*B"]) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Mask probability and weight of a masked token's nats at times in (0, 1], with the objective's cutoff."""
    noise, power, eps = objective.noise, objective.noise_power, objective.cutoff_eps
    if objective.cutoff is Cutoff.MDLM:
        t_B = (1 - eps) * t_B + eps
        m_B = mask_probability(noise, t_B, power)
        return m_B if noise in EXPONENTIAL else (1 - eps) * m_B, nelbo_weight(noise, t_B, power)
    m_B, w_B = mask_probability(noise, t_B, power), nelbo_weight(noise, t_B, power)
    if objective.cutoff is Cutoff.SMDM:
        p_B = (1 - eps) * m_B + eps
        return p_B, w_B * (m_B / p_B)
    return m_B, w_B


def step_level(objective: ObjectiveSpec, i_B: Int[Array, "*B"]) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Mask probability m_t and `(m_t - m_s) / m_t` of step i in 1..T: t = i / T, s = (i - 1) / T.

    The second is the probability that a token which is masked at t is not masked at s. No form cancels for large T.
    """
    dt = 1 / objective.time_steps
    t_B, noise, power = i_B * dt, objective.noise, objective.noise_power
    m_B = mask_probability(noise, t_B, power)
    if noise is NoiseSchedule.LOG_LINEAR:
        return m_B, 1 / i_B.astype(jnp.float32)
    if noise is NoiseSchedule.POLYNOMIAL:
        return m_B, -jnp.expm1(power * jnp.log1p(-1 / i_B.astype(jnp.float32)))
    if noise in EXPONENTIAL:
        sigma_B = _sigma(noise, (i_B - 1) * dt)
        linear = noise is NoiseSchedule.LINEAR
        rise = LINEAR_RATE * dt if linear else sigma_B * math.expm1(GEOMETRIC_RATE * dt)
        return m_B, -jnp.exp(-sigma_B) * jnp.expm1(-rise) / m_B
    quarter = jnp.pi / (4 if noise is NoiseSchedule.COSINE else 2)  # sin(a)^2 - sin(b)^2 = sin(a + b) sin(a - b)
    gain_B = jnp.sin(quarter * ((2 * i_B - 1) * dt)) * jnp.sin(quarter * dt)
    return m_B, gain_B / jnp.sin(quarter * t_B) ** 2
