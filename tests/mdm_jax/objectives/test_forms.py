"""The forms of the MDM's loss by enumeration: all masks, levels and steps of a row of 4 tokens can be summed."""

import functools
import math

import enumerated
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import reshard
from scipy import special
from tiny_runs import sharp_model

from mdm_jax.devices.sharding import BATCH_L, HEAD_DV
from mdm_jax.model.transformer import hidden
from mdm_jax.objectives import loss as objectives
from mdm_jax.objectives.masking import level_counts, optimal_edges
from mdm_jax.objectives.noise import level, step_level
from mdm_jax.spec import Cutoff, HardwareSpec, LevelSampler, ModelSpec, NoiseSchedule, ObjectiveSpec, Variant

pytestmark = pytest.mark.usefixtures("one_device")
V, L, B = 3, 4, 16
ROW_L = np.array([2, 0, 1, 1], np.int32)
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)
WHOLE = [NoiseSchedule.LOG_LINEAR, NoiseSchedule.COSINE, NoiseSchedule.COSINE_SQUARED, NoiseSchedule.POLYNOMIAL]
ENDS = dict.fromkeys(WHOLE, (0.0, 1.0)) | {
    NoiseSchedule.LINEAR: (-math.expm1(-1e-3), -math.expm1(-7)),
    NoiseSchedule.GEOMETRIC: (-math.expm1(-1e-3), -math.expm1(-1)),
}


def form(variant: Variant, noise: NoiseSchedule = NoiseSchedule.LOG_LINEAR, **changes) -> ObjectiveSpec:
    return ObjectiveSpec(variant, changes.pop("levels", LevelSampler.STRATIFIED), noise, **changes)


@functools.cache
def nats_by_count() -> np.ndarray:
    """`[L]`: the mean nats of masked tokens over all sets of 1 .. L of them, float64. Their mean is the NELBO."""
    return enumerated.nats_by_count(enumerated.predictions_of(sharp_model(TRUNK), TRUNK), ROW_L[None], V)[0]


def expected_at(m_T: np.ndarray, nats_K: np.ndarray | None = None) -> np.ndarray:
    """`[T]`: the expected nats of masked tokens in a row, over L, where each is masked with probability m."""
    k = np.arange(1, L + 1)
    chance_TK = special.binom(L, k) * m_T[:, None] ** k * (1 - m_T[:, None]) ** (L - k)
    return chance_TK @ (k * (nats_by_count() if nats_K is None else nats_K)) / L


def span_loss(low: float, high: float, nats_K: np.ndarray | None = None) -> float:
    """The continuous loss over masked shares from `low` to `high`, in closed form (the Beta function's integral)."""
    k = np.arange(1, L + 1)
    share_K = special.betainc(k, L + 1 - k, high) - special.betainc(k, L + 1 - k, low)
    return float(share_K @ (nats_by_count() if nats_K is None else nats_K) / L)


def continuous_loss(objective: ObjectiveSpec) -> float:
    """The mean over times of the weight times the expectation over all masks, by Gauss-Legendre in float64."""
    x, weight_T = np.polynomial.legendre.leggauss(60)
    with jax.enable_x64(True):
        m_T, w_T = (np.asarray(y) for y in jax.jit(lambda t_T: level(objective, t_T))(jnp.asarray((x + 1) / 2)))
    return float((weight_T / 2 * w_T) @ expected_at(m_T))


@pytest.mark.parametrize("noise", list(NoiseSchedule))
def test_the_continuous_form_depends_on_the_ends_of_its_schedule_alone(noise):
    assert continuous_loss(form(Variant.CONTINUOUS, noise)) == pytest.approx(span_loss(*ENDS[noise]), rel=1e-9)
    if noise in WHOLE:
        assert span_loss(*ENDS[noise]) == pytest.approx(nats_by_count().mean(), rel=1e-12)  # the count form


@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_the_cutoffs_differ_from_the_nelbo_by_what_they_leave_out(eps):
    nelbo = nats_by_count().mean()
    smdm = continuous_loss(form(Variant.CONTINUOUS, cutoff=Cutoff.SMDM, cutoff_eps=eps))
    assert smdm == pytest.approx(span_loss(eps, 1) / (1 - eps), rel=1e-9)
    mdlm = continuous_loss(form(Variant.CONTINUOUS, cutoff=Cutoff.MDLM, cutoff_eps=eps))
    assert mdlm == pytest.approx(span_loss((1 - eps) * eps, 1 - eps) / (1 - eps), rel=1e-9)
    assert mdlm / nelbo == pytest.approx(1 - eps, abs=eps / 4)  # its total weight, .999 in the published code
    assert smdm / nelbo == pytest.approx(1, abs=eps / 4)
    assert smdm != pytest.approx(nelbo, rel=1e-6)


def steps_loss(noise: NoiseSchedule, steps: int, nats_K: np.ndarray | None = None) -> float:
    """MDLM's Eq. 8: the sum over all steps of (m_t - m_s) / m_t times the expectation over all masks."""
    with jax.enable_x64(True):
        objective = form(Variant.STEPS, noise, time_steps=steps)
        levels = jax.jit(lambda i_T: step_level(objective, i_T))(jnp.arange(1, steps + 1))
        m_T, removed_T = (np.asarray(y, np.float64) for y in levels)
    return float(removed_T @ expected_at(m_T, nats_K))


@pytest.mark.parametrize("noise", list(NoiseSchedule))
def test_the_steps_form_reaches_the_continuous_one(noise):
    """The error is ~ 1 / T. It is positive, that of a looser bound, if tokens are harder where more are masked."""
    rising_K = np.sort(nats_by_count())
    limit = span_loss(*ENDS[noise], rising_K)
    over = [steps_loss(noise, steps, rising_K) - limit for steps in (2, 10, 100, 1000, 10_000)]
    assert over == sorted(over, reverse=True)
    assert over[3] / over[4] == pytest.approx(10, rel=0.05)
    assert over[0] > 0.005 * limit
    assert over[4] > 0


def test_the_steps_form_differs_by_the_predicted_amount():
    """Log-linear, to first order in 1 / T: half of the difference of the nats at shares 1 and 0, over T."""
    nats_K = nats_by_count()
    over = steps_loss(NoiseSchedule.LOG_LINEAR, 1000) - nats_K.mean()
    assert over == pytest.approx((nats_K[-1] - nats_K[0]) / 2000, rel=0.02)


def test_the_steps_bound_by_hand():
    """T = 2, log-linear: half of all tokens masked at t = 1/2, weight 1; all of them at t = 1, weight 1/2."""
    expected = float(expected_at(np.array([0.5]))[0] + expected_at(np.array([1.0]))[0] / 2)
    assert steps_loss(NoiseSchedule.LOG_LINEAR, 2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pairs", [1, 3, 8, 64])
@pytest.mark.parametrize("length", [2, L, 5, 64])
def test_optimal_allocation_is_unbiased(length, pairs):
    """Summed over all strata and counts: the chance of a count in its stratum, times the stratum's width, is 1 / L."""
    edges, ends_K = optimal_edges(pairs), np.arange(length + 1) / length
    overlap_PK = np.minimum(edges[1:, None], ends_K[1:]) - np.maximum(edges[:-1, None], ends_K[:-1])
    chance_PK = overlap_PK.clip(0) / np.diff(edges)[:, None]
    np.testing.assert_allclose(chance_PK.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.diff(edges) @ chance_PK, 1 / length, rtol=1e-12)
    np.testing.assert_allclose(np.diff(edges), np.diff(edges)[::-1], rtol=1e-9)  # the pair's other row is as likely


def test_optimal_allocation_draws_from_its_strata():
    """Pair h draws its count from the h-th stratum, and its rows have the stratum's width as weight."""
    pairs, length = 8, 1000
    keys = jax.random.split(jax.random.key(0), 500)
    count_XB, relative_XB = jax.jit(
        lambda: jax.lax.map(lambda key: level_counts(key, 2 * pairs, length, LevelSampler.OPTIMAL), keys)
    )()
    edges = optimal_edges(pairs)
    first_XP = np.asarray(count_XB)[:, ::2] - 1
    assert ((first_XP >= np.floor(edges[:-1] * length)) & (first_XP <= edges[1:] * length)).all()
    np.testing.assert_allclose(np.asarray(relative_XB)[0], np.repeat(np.diff(edges) * pairs, 2), rtol=1e-6)
    middle_P = (edges[:-1] + edges[1:]) / 2 * length - 0.5
    se_P = np.diff(edges) * length / (12 * len(keys)) ** 0.5 + 0.1
    assert (np.abs(first_XP.mean(0) - middle_P) < 4 * se_P).all()


DRAWN = [
    form(Variant.COUNT, levels=LevelSampler.OPTIMAL),
    form(Variant.COUNT, levels=LevelSampler.SHIFTED),
    form(Variant.CONTINUOUS, NoiseSchedule.LINEAR, levels=LevelSampler.ANTITHETIC),
    form(Variant.CONTINUOUS, cutoff=Cutoff.MDLM, cutoff_eps=0.1),
    form(Variant.STEPS, NoiseSchedule.COSINE, time_steps=3),
    form(Variant.D3PM, time_steps=5),
]


def expectation(objective: ObjectiveSpec) -> float:
    if objective.variant is Variant.COUNT:
        return float(nats_by_count().mean())
    if objective.variant is Variant.CONTINUOUS:
        return continuous_loss(objective)
    return steps_loss(objective.noise, objective.time_steps)


@pytest.mark.parametrize("objective", DRAWN, ids=lambda objective: objective.label)
def test_the_mean_of_draws_is_the_expectation(objective):
    tokens_BL, model = reshard(jnp.tile(jnp.asarray(ROW_L), (B, 1)), BATCH_L), sharp_model(TRUNK)

    def run(tokens_BL, position_PM=None):
        return hidden(model, tokens_BL, TRUNK, HardwareSpec(), position_PM=position_PM)

    def one(key):
        drawn, head_DV = objectives.draw(key, tokens_BL, objective, V), reshard(model.head[...], HEAD_DV)
        arguments = (drawn, run, head_DV, objective, V)
        return objectives.loss(*arguments), objectives.row_losses(*arguments).mean()

    keys = jax.random.split(jax.random.key(0), 1024)
    loss_K, mean_K = (np.asarray(x, np.float64) for x in jax.jit(lambda: jax.lax.map(one, keys))())
    se = loss_K.std(ddof=1) / len(loss_K) ** 0.5
    assert se < 0.02 * expectation(objective)
    assert abs(loss_K.mean() - expectation(objective)) < 4 * se
    np.testing.assert_allclose(mean_K, loss_K, rtol=1e-4)
