"""Training weightings: what each is at known shares and counts; all have mean 1, and masks know nothing of them.

Their expectation is summed by brute force in test_objectives.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from tiny_runs import tokens

from mdm_jax.files.results import Status, result_of
from mdm_jax.objectives import loss as objectives
from mdm_jax.objectives.weighting import count_weights, level_weight
from mdm_jax.spec import Family, LevelSampler, ObjectiveSpec, RunSpec, Variant, Weighting, pair

pytestmark = pytest.mark.usefixtures("one_device")
V, L, B = 5, 12, 8
OTHERS = [w for w in Weighting if w is not Weighting.ELBO]
EXACT = {
    Weighting.ELBO: lambda m: 1.0,
    Weighting.LOW_VARIANCE: lambda m: 2 * m,
    Weighting.CLIPPED: lambda m: 12 / 11 * min(1, 6 * m),
    Weighting.BELL: lambda m: 6 * m * (1 - m),
}


def draw(weighting: Weighting, variant: Variant = Variant.COUNT) -> objectives.Draw:
    levels = LevelSampler.ANTITHETIC if variant is Variant.COUNT else LevelSampler.STRATIFIED
    objective = ObjectiveSpec(variant, levels, weighting=weighting)
    tokens_BL = jnp.asarray(tokens((B, L), V))
    return jax.jit(lambda: objectives.draw(jax.random.key(3), tokens_BL, objective, V))()


@pytest.mark.parametrize("weighting", list(Weighting))
def test_weight_of_a_level(weighting):
    m_T = np.linspace(2**-20, 1, 500, dtype=np.float32)
    np.testing.assert_allclose(level_weight(weighting, jnp.asarray(m_T)), [EXACT[weighting](m) for m in m_T], rtol=1e-5)
    mean, _ = integrate.quad(EXACT[weighting], 0, 1, points=[1 / 6])
    assert mean == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("length", [2, 64, 2048])
@pytest.mark.parametrize("weighting", list(Weighting))
def test_weight_of_a_count_is_the_mean_over_the_shares_behind_it(weighting, length):
    weight_L = count_weights(weighting, length)
    assert weight_L.mean() == pytest.approx(1, rel=1e-12)
    assert (weight_L > 0).all()
    for count in {1, 2, length // 6 + 1, length // 2, length}:
        expected = integral(weighting, count, length + 1 - count)
        assert weight_L[count - 1] == pytest.approx(expected, rel=1e-7)


def integral(weighting: Weighting, a: int, b: int) -> float:
    """The mean of v(m) over m ~ Beta(a, b), by quadrature around where the mass and the kink lie."""
    low, high = stats.beta.ppf(1e-15, a, b), stats.beta.ppf(1 - 1e-15, a, b)
    inside = [x for x in (1 / 6, a / (a + b)) if low < x < high]
    value, _ = integrate.quad(
        lambda m: EXACT[weighting](m) * stats.beta.pdf(m, a, b), low, high, points=inside, limit=500
    )
    return value


def test_the_nelbo_is_as_it_was():
    """Weight 1 / (K B) to the last bit: a weighting of ones is not even multiplied."""
    drawn = draw(Weighting.ELBO)
    mask_BL = np.asarray(drawn.inputs_BL) == V
    share_B = np.float32(1) / mask_BL.sum(1).astype(np.float32) / np.float32(B)
    assert (np.asarray(drawn.weight_BL) == mask_BL * share_B[:, None]).all()


def test_low_variance_is_the_mean_over_the_batchs_masked_tokens():
    """Every masked token of the batch alike, whatever its row; their number B (L + 1) / 2 is constant."""
    drawn = draw(Weighting.LOW_VARIANCE)
    mask_BL = np.asarray(drawn.inputs_BL) == V
    assert mask_BL.sum() == B * (L + 1) // 2
    np.testing.assert_allclose(drawn.weight_BL, mask_BL / mask_BL.sum(), rtol=1e-6)


def test_low_variance_has_weight_one_in_time():
    """The continuous form's 1/t becomes 1 up to the factor that gives mean 1 (arXiv 2602.15014)."""
    drawn = draw(Weighting.LOW_VARIANCE, Variant.CONTINUOUS)
    mask_BL = np.asarray(drawn.inputs_BL) == V
    np.testing.assert_allclose(drawn.weight_BL, 2 * mask_BL / (B * L), rtol=1e-6)


def test_clipped_bounds_the_weight_of_a_token():
    """v_K L / K stays below 12/11 of 6 where the NELBO's reaches L, and is 12/11 of the NELBO's far above a sixth."""
    count_L = np.arange(1, 2049)
    token_L = count_weights(Weighting.CLIPPED, 2048) * 2048 / count_L
    assert token_L.max() < 12 / 11 * 6
    assert token_L[:200].min() > 0.99 * 12 / 11 * 6
    np.testing.assert_allclose(token_L[500:] * count_L[500:] / 2048, 12 / 11, rtol=1e-9)


def test_bell_weighs_both_rows_of_a_pair_alike():
    weight_L = count_weights(Weighting.BELL, 64)
    np.testing.assert_allclose(weight_L, weight_L[::-1], rtol=1e-12)
    assert weight_L.argmax() in (31, 32)


@pytest.mark.parametrize("variant", [Variant.COUNT, Variant.CONTINUOUS])
@pytest.mark.parametrize("weighting", OTHERS)
def test_the_masks_are_those_of_the_nelbo(weighting, variant):
    """Weightings change weights alone, so runs that differ in it see the same batches, bit for bit."""
    plain, drawn = draw(Weighting.ELBO, variant), draw(weighting, variant)
    assert (np.asarray(plain.inputs_BL) == np.asarray(drawn.inputs_BL)).all()
    assert not np.allclose(plain.weight_BL, drawn.weight_BL, rtol=0.01, atol=0)


def test_the_run_table_names_the_weighting():
    def named(objective: ObjectiveSpec) -> str:
        return result_of(RunSpec(objective=objective), Status.OK).objective_variant

    assert named(ObjectiveSpec()) == "count"
    assert named(ObjectiveSpec(weighting=Weighting.BELL)) == "count:bell"
    continuous = ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.IID, weighting=Weighting.LOW_VARIANCE)
    assert named(continuous) == "continuous/iid:low_variance"
    assert result_of(pair(RunSpec(), Family.ARM), Status.OK).objective_variant == "nll"
