"""Noise schedules: m(t), its weight and its T steps against the textbook forms in float64, and the spans they imply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from mdm_jax.objectives.noise import level, mask_probability, nelbo_weight, step_level
from mdm_jax.spec import Cutoff, LevelSampler, NoiseSchedule, ObjectiveSpec, Variant

TEXTBOOK = {
    NoiseSchedule.LOG_LINEAR: lambda t: t,
    NoiseSchedule.COSINE: lambda t: 1 - np.cos(np.pi / 2 * t),
    NoiseSchedule.COSINE_SQUARED: lambda t: 1 - np.cos(np.pi / 2 * t) ** 2,
    NoiseSchedule.POLYNOMIAL: lambda t: t**2,
    NoiseSchedule.LINEAR: lambda t: 1 - np.exp(-(1e-3 + (7 - 1e-3) * t)),
    NoiseSchedule.GEOMETRIC: lambda t: 1 - np.exp(-(1e-3 ** (1 - t))),
}
SPAN = {NoiseSchedule.LINEAR: 0.99809, NoiseSchedule.GEOMETRIC: 0.63112}
ALL = list(NoiseSchedule)


def continuous(noise: NoiseSchedule, cutoff: Cutoff = Cutoff.NONE, eps: float = 1e-3) -> ObjectiveSpec:
    return ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.IID, noise, cutoff=cutoff, cutoff_eps=eps)


@pytest.mark.parametrize("noise", ALL)
def test_mask_probability_and_weight(noise):
    """m(t) of the textbook, and w(t) = m'(t) / m(t), also where t is as small as times get."""
    t_T = jnp.concatenate([jnp.array([2.0**-24, 1e-4]), jnp.linspace(0.01, 1, 100)])
    m_T, slope_T = jax.vmap(jax.value_and_grad(lambda t: mask_probability(noise, t)))(t_T)
    np.testing.assert_allclose(nelbo_weight(noise, t_T), slope_T / m_T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m_T, TEXTBOOK[noise](np.float64(t_T)), rtol=1e-5, atol=1e-14)
    assert m_T[0] > 0
    assert (nelbo_weight(noise, t_T) >= 0).all()


@pytest.mark.parametrize("power", [0.25, 1.0, 3.5])
def test_polynomial_of_another_power(power):
    t_T = jnp.linspace(0.001, 1, 50)
    np.testing.assert_allclose(mask_probability(NoiseSchedule.POLYNOMIAL, t_T, power), t_T**power, rtol=1e-6)
    np.testing.assert_allclose(nelbo_weight(NoiseSchedule.POLYNOMIAL, t_T, power) * t_T, power, rtol=1e-6)


@pytest.mark.parametrize("noise", ALL)
def test_the_span_is_the_sum_of_a_tokens_weights(noise):
    """MDLM's linear and geometric schedules do not reach the shares 0 and 1: their losses are smaller by the span."""
    assert sum_of_weights(continuous(noise)) == pytest.approx(SPAN.get(noise, 1.0), abs=2e-5)


def sum_of_weights(objective: ObjectiveSpec) -> float:
    """The mean over times of P(MASK) times the weight, by quadrature."""

    def product(t):
        m, w = level(objective, jnp.float32(t))
        return float(m * w)

    return integrate.quad(product, 0, 1, epsabs=1e-6, epsrel=1e-6, limit=200)[0]


def test_spans_of_the_cutoffs():
    """SMDM's weights sum to 1. MDLM's sum to .999 for log-linear noise, and to m(1) - m(eps) in general."""
    assert sum_of_weights(continuous(NoiseSchedule.LOG_LINEAR, Cutoff.SMDM)) == pytest.approx(1, abs=1e-6)
    assert sum_of_weights(continuous(NoiseSchedule.LOG_LINEAR, Cutoff.MDLM)) == pytest.approx(0.999, abs=1e-6)
    cosine = sum_of_weights(continuous(NoiseSchedule.COSINE, Cutoff.MDLM, 0.2))
    assert cosine == pytest.approx(np.cos(np.pi / 10), abs=1e-5)


def test_cutoffs_as_published():
    """SMDM: p = (1 - eps) t + eps, weight 1 / p. MDLM: t in (eps, 1], masked with (1 - eps) t, weight 1 / t."""
    u_T, eps = jnp.linspace(0.001, 1, 50), 1e-3
    p_T, w_T = level(continuous(NoiseSchedule.LOG_LINEAR, Cutoff.SMDM), u_T)
    np.testing.assert_allclose(p_T, (1 - eps) * u_T + eps, rtol=1e-6)
    np.testing.assert_allclose(w_T, 1 / p_T, rtol=1e-5)
    m_T, w_T = level(continuous(NoiseSchedule.LOG_LINEAR, Cutoff.MDLM), u_T)
    t_T = (1 - eps) * u_T + eps
    np.testing.assert_allclose(m_T, (1 - eps) * t_T, rtol=1e-6)
    np.testing.assert_allclose(w_T, 1 / t_T, rtol=1e-6)
    linear = continuous(NoiseSchedule.LINEAR, Cutoff.MDLM)  # it has its own ends
    np.testing.assert_allclose(level(linear, u_T)[0], TEXTBOOK[NoiseSchedule.LINEAR](np.float64(t_T)), rtol=1e-5)


@pytest.mark.parametrize("steps", [2, 7, 1000, 100_000])
@pytest.mark.parametrize("noise", ALL)
def test_steps(noise, steps):
    """(m_t - m_s) / m_t of every step in float64: 1 at the first step of a schedule from 0, and w(t) / T late."""
    i_T = np.unique(np.linspace(1, steps, min(steps, 500)).astype(np.int32))
    objective = ObjectiveSpec(Variant.STEPS, LevelSampler.IID, noise, time_steps=steps)
    m_T, removed_T = step_level(objective, jnp.asarray(i_T))
    exact_T, before_T = (TEXTBOOK[noise](x / steps) for x in (i_T.astype(float), i_T - 1.0))
    np.testing.assert_allclose(m_T, exact_T, rtol=2e-6)
    np.testing.assert_allclose(removed_T, (exact_T - before_T) / exact_T, rtol=1e-5, atol=1e-9)
    if noise not in SPAN:
        assert removed_T[0] == pytest.approx(1, abs=2e-7)
