"""Masks have exact counts and uniform sets; times stay in (0, 1]; the positions of the masked half are right."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import reshard
from scipy import stats

from mdm_jax.devices.sharding import BATCH_L, rows_spec
from mdm_jax.objectives.masking import (
    antithetic_counts,
    count_masks,
    gather_paired,
    independent_masks,
    noise_times,
    paired_positions,
    smallest,
)
from mdm_jax.objectives.noise import mask_probability, nelbo_weight
from mdm_jax.spec import LevelSampler, NoiseSchedule

pytestmark = pytest.mark.usefixtures("one_device")
TIMES = [LevelSampler.IID, LevelSampler.SHIFTED, LevelSampler.STRATIFIED, LevelSampler.ANTITHETIC]
LEAST_P = 1e-3  # of every test of a distribution here: keys are fixed, so that what passes once passes always


def for_keys(function, count: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(lambda: jax.lax.map(function, keys))())


@pytest.mark.parametrize(("batch", "length"), [(8, 7), (2, 2), (6, 1024)])
def test_a_pair_of_rows_masks_exactly_one_row_and_one_token(batch, length):
    def masks(key):
        of_count, of_mask = jax.random.split(key)
        return count_masks(of_mask, antithetic_counts(of_count, batch, length), length)

    size_XB = for_keys(masks, 4_000 // length + 20).sum(-1)
    assert (size_XB.reshape(-1, batch // 2, 2).sum(-1) == length + 1).all()


def test_counts_are_uniform_over_a_random_row():
    length, batch, draws = 7, 8, 7_000
    count_XB = for_keys(lambda key: antithetic_counts(key, batch, length), draws)
    assert (count_XB.min(), count_XB.max()) == (1, length)
    row_X = np.random.default_rng(0).integers(0, batch, draws)
    of_random_row = np.bincount(count_XB[np.arange(draws), row_X], minlength=length + 1)[1:]
    assert stats.chisquare(of_random_row).pvalue > LEAST_P
    of_first_row = np.bincount(count_XB[:, 0], minlength=length + 1)[1:]
    assert stats.chisquare(of_first_row).pvalue < 1e-9  # one row alone stays in its stratum: the test can tell


def test_counts_are_stratified():
    """Pair i of P draws its first count from the i-th of P equal parts of 1..L."""
    count_XB = for_keys(lambda key: antithetic_counts(key, 8, 40), 500)
    first_XP = count_XB[:, ::2]
    low_P = np.arange(4) * 10 + 1
    assert ((first_XP >= low_P) & (first_XP < low_P + 10)).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sets_of_masked_positions_are_uniform(size):
    length, rows = 5, 6_000
    mask_BL = np.asarray(count_masks(jax.random.key(size), jnp.full(rows, size), length))
    code_B = mask_BL @ (1 << np.arange(length))
    sets = [sum(1 << i for i in positions) for positions in itertools.combinations(range(length), size)]
    assert set(code_B) == set(sets)
    assert stats.chisquare(np.bincount(code_B)[sets]).pvalue > LEAST_P


def test_counts_are_exact_where_uniforms_are_tied():
    """Counts whose last masked token ties with the first unmasked one, where a threshold would mask both or neither."""
    rows, length, key = 8, 8192, jax.random.key(0)
    sorted_BL = np.sort(np.asarray(jax.random.uniform(key, (rows, length))))
    tied_BL = np.diff(sorted_BL) == 0
    assert tied_BL.any(1).all()
    count_B = tied_BL.argmax(1) + 1
    mask_BL = np.asarray(count_masks(key, jnp.asarray(count_B), length))
    assert (mask_BL.sum(1) == count_B).all()


@pytest.mark.parametrize("length", [1, 2, 64, 301])
def test_the_smallest_are_those_of_a_stable_sort(length):
    """Among random numbers, ties, equal numbers, zeros and denormal numbers; of none, some or all positions."""
    rng = np.random.default_rng(length)
    random_BL = rng.random((40, length))
    denormal_BL = random_BL * np.finfo(np.float32).tiny
    kinds = random_BL, np.round(random_BL * 8) / 8, np.round(random_BL) * 2, np.zeros((40, length)), denormal_BL
    u_BL = np.concatenate(kinds).astype(np.float32)
    count_B = rng.integers(0, length + 1, len(u_BL)).astype(np.int32)
    count_B[::7], count_B[3::7] = 0, length
    rank_BL = np.argsort(np.argsort(u_BL, 1, kind="stable"), 1)
    np.testing.assert_array_equal(smallest(jnp.asarray(u_BL), jnp.asarray(count_B)), rank_BL < count_B[:, None])


def test_independent_masks_have_their_rows_probability():
    probability_B = jnp.asarray([0.05, 0.5, 0.9, 1.0])
    mask_BL = np.asarray(independent_masks(jax.random.key(0), probability_B, 20_000))
    se_B = np.sqrt(np.asarray(probability_B * (1 - probability_B)) / 20_000)
    assert (np.abs(mask_BL.mean(1) - probability_B) <= 4 * se_B).all()
    halves = mask_BL[1].reshape(-1, 2)
    assert abs(np.corrcoef(halves.T)[0, 1]) < 4 / np.sqrt(len(halves))


@pytest.mark.parametrize("sampler", TIMES)
def test_times_are_uniform(sampler):
    t_XB = for_keys(lambda key: noise_times(key, 8, sampler), 2_000)
    row_X = np.random.default_rng(0).integers(0, 8, len(t_XB))
    assert stats.kstest(t_XB[np.arange(len(t_XB)), row_X], "uniform").pvalue > LEAST_P
    if sampler is LevelSampler.STRATIFIED:
        assert (np.sort(np.floor((1 - t_XB) * 8)) == np.arange(8)).all()
    if sampler is LevelSampler.SHIFTED:
        gap_XB = np.diff(np.sort(t_XB))
        np.testing.assert_allclose(gap_XB, 1 / 8, atol=1e-6)


@pytest.mark.parametrize("sampler", TIMES)
@pytest.mark.parametrize("u", [0.0, 2.0**-23, 0.5, 1 - 2.0**-23, 1 - 2.0**-24])
@pytest.mark.parametrize("batch", [2, 48, 100_000])
def test_times_stay_in_range_at_the_generators_extremes(monkeypatch, sampler, u, batch):
    """Whatever the generator gives, 0 and the largest float below 1 included: where t is 0, the weight is infinite."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape=(): jnp.full(shape, u, jnp.float32))
    t_B = noise_times(jax.random.key(0), batch, sampler)
    assert ((t_B > 0) & (t_B <= 1)).all()
    for noise in NoiseSchedule:
        probability_B, weight_B = mask_probability(noise, t_B), nelbo_weight(noise, t_B)
        assert ((probability_B > 0) & (probability_B <= 1)).all()
        last_B = (t_B == 1) & (noise is NoiseSchedule.COSINE_SQUARED)  # its slope ends at 0
        assert (jnp.isfinite(weight_B) & ((weight_B > 0) | last_B)).all()


def test_positions_and_gathering_of_the_masked_half():
    batch, length = 6, 5
    count_B = jnp.asarray([1, 5, 3, 3, 4, 2])
    mask_BL = count_masks(jax.random.key(0), count_B, length)
    position_PM = np.asarray(paired_positions(mask_BL))
    expected_PM = [np.flatnonzero(pair) for pair in np.asarray(mask_BL).reshape(3, 2 * length)]
    assert (position_PM == expected_PM).all()
    for x_BLx in (jnp.arange(batch * length).reshape(batch, length), jnp.ones((batch, length, 3)).cumsum(0)):
        gathered = gather_paired(reshard(x_BLx, rows_spec(x_BLx.ndim)), reshard(position_PM, BATCH_L))
        assert (np.asarray(gathered) == np.asarray(x_BLx)[np.asarray(mask_BL)]).all()
