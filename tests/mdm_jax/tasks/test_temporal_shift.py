"""Slopes of losses over time: planted slopes come back, and intervals include them as often as they say."""

import math

import numpy as np
import pytest

from mdm_jax.tasks.temporal.shift import Cells, Resampling, Sampled, Statistic, slope, slope_within

YEARS = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
LATER = YEARS > 0


def cells(clusters: int = 40, seed: int = 0) -> Cells:
    """Clusters that have texts in about half of the slices."""
    draw = np.random.default_rng(seed)
    held = draw.integers(500, 5000, (clusters, len(YEARS))) * draw.integers(0, 2, (clusters, len(YEARS)))
    held[0] = 1000  # no slice is empty
    return Cells(held, YEARS, LATER, base_years=2.0)


def planted(own: Cells, level_G: np.ndarray, growth: float) -> np.ndarray:
    """Nats of losses that have a level for each cluster and grow by `growth` a year after the end."""
    return (level_G[:, None] + growth * np.maximum(own.years_S, 0)) * own.bytes_GS


def test_planted_slopes_come_back_exactly():
    own = cells()
    nats_GS = planted(own, np.full(40, 2.0), 0.03)
    found = Resampling(own, 50).statistics(nats_GS[None], 0)
    later = own.bytes_GS.sum(0)[LATER]
    later_loss = 2 + 0.03 * float(later @ YEARS[LATER] / later.sum())
    expected = {
        Statistic.BASE: 2.0,
        Statistic.LATER: later_loss,
        Statistic.RISE: later_loss - 2,
        Statistic.RISE_RELATIVE: 100 * (later_loss / 2 - 1),
        Statistic.SLOPE: 0.03,
        Statistic.SLOPE_RELATIVE: 1.5,
        Statistic.WITHIN_RELATIVE: 1.5,
        Statistic.BEFORE_RELATIVE: 0.0,
    }
    assert {name: sampled.value for name, sampled in found.items()} == pytest.approx(expected, abs=1e-9)
    assert found[Statistic.SLOPE].estimate.low == pytest.approx(0.03)


def test_the_slope_is_that_of_weighted_least_squares():
    draw = np.random.default_rng(1)
    sizes, nats = draw.integers(1, 9, (3, 5)).astype(float), draw.normal(size=(3, 5))
    years = np.array([0.1, 1.0, 2.5, 3.0, 7.0])
    by_polyfit = [np.polyfit(years, n / b, 1, w=np.sqrt(b))[0] for n, b in zip(nats, sizes, strict=True)]
    np.testing.assert_allclose(slope(nats, sizes, years), by_polyfit)


def test_the_slope_within_clusters_is_that_of_fixed_effects():
    """Least squares with one level for each cluster, solved as a whole, also for clusters that are drawn twice."""
    own, draw = cells(6), np.random.default_rng(2)
    nats_GS, counts = draw.normal(size=own.bytes_GS.shape) * own.bytes_GS, np.array([1.0, 2, 0, 1, 3, 1])
    here = [(g, s) for g in range(6) for s in range(len(YEARS)) if own.bytes_GS[g, s]]
    design = np.array([[*(float(g == k) for k in range(6)), YEARS[s]] for g, s in here])
    weights = np.array([math.sqrt(counts[g] * own.bytes_GS[g, s]) for g, s in here])
    losses = np.array([nats_GS[g, s] / own.bytes_GS[g, s] for g, s in here])
    solved = np.linalg.lstsq(design * weights[:, None], losses * weights, rcond=None)[0][-1]
    found = slope_within(nats_GS, own.bytes_GS.astype(float), YEARS, counts[None])
    np.testing.assert_allclose(found, [solved])


def test_a_changing_mix_of_clusters_has_no_slope_within_them():
    """Difficult clusters come later: the pooled slope is large, and the slope within clusters is 0."""
    own = cells()
    level_G = np.where(np.arange(40) < 20, 1.0, 3.0)
    own.bytes_GS[:20, -2:] //= 8
    found = Resampling(own, 50).statistics(planted(own, level_G, 0.0)[None], 0)
    assert found[Statistic.SLOPE].value > 0.1
    assert found[Statistic.WITHIN_RELATIVE].value == pytest.approx(0, abs=1e-9)


def test_intervals_include_the_truth_as_often_as_they_say():
    """Clusters with slopes of their own, and four seeds with slopes of their own, 100 times."""
    draw, held, held_difference = np.random.default_rng(3), 0, 0
    for number in range(100):
        own = cells(60, seed=number)
        slope_G = draw.normal(0.03, 0.03, 60)
        found = []
        for setting, growth in enumerate((0.0, 0.01)):
            seed_slopes = draw.normal(growth, 0.004, 4)
            grown = np.maximum(YEARS, 0)
            nats_NGS = np.stack([(2 + (slope_G[:, None] + extra) * grown) * own.bytes_GS for extra in seed_slopes])
            found.append(Resampling(own, 200, seed=number).statistics(nats_NGS, setting)[Statistic.SLOPE])
        first, difference = found[0].estimate, found[1].minus(found[0]).estimate
        held += first.low <= 0.03 <= first.high
        held_difference += difference.low <= 0.01 <= difference.high
    assert 0.88 <= held / 100 <= 0.99
    assert 0.80 <= held_difference / 100 <= 0.99  # four seeds, whose percentiles are short (about 88%)


def test_differences_are_paired_over_clusters():
    """Two models that differ by the same factor everywhere: their relative slopes have no difference at all."""
    own, draw = cells(), np.random.default_rng(4)
    nats_GS = planted(own, draw.normal(2, 0.5, 40), 0.05)
    resampling = Resampling(own, 100)
    one, other = (resampling.statistics(scale * nats_GS[None], i) for i, scale in enumerate((1.0, 1.3)))
    for name in (Statistic.RISE_RELATIVE, Statistic.SLOPE_RELATIVE, Statistic.WITHIN_RELATIVE):
        np.testing.assert_allclose(other[name].minus(one[name]).values_B, 0, atol=1e-9)
    assert one[Statistic.RISE].estimate.low < one[Statistic.RISE].value < one[Statistic.RISE].estimate.high


def test_seeds_widen_the_interval_as_their_variance_says():
    """The variance from the draws of 3 seeds is the unbiased variance of their mean."""
    own = cells()
    nats_NGS = np.stack([planted(own, np.full(40, level), 0.0) for level in (1.9, 2.0, 2.3)])
    found = Resampling(own, 20000).statistics(nats_NGS, 0)[Statistic.BASE]
    assert found.values_B.var() == pytest.approx(np.var([1.9, 2.0, 2.3], ddof=1) / 3, rel=0.03)


def test_one_later_slice_has_a_rise_but_no_slope():
    own = Cells(np.full((5, 2), 100), np.array([-0.5, 0.5]), np.array([False, True]), 1.0)
    found = Resampling(own, 20).statistics(planted(own, np.full(5, 2.0), 0.1)[None], 0)
    assert found[Statistic.RISE_RELATIVE].value == pytest.approx(2.5)
    assert math.isnan(found[Statistic.SLOPE].value)
    assert math.isnan(found[Statistic.SLOPE].estimate.low)


def test_a_slice_that_most_draws_lack_has_no_interval():
    estimate = Sampled(1.0, np.array([1.0, math.nan, math.nan])).estimate
    assert (estimate.value, math.isnan(estimate.low)) == (1.0, True)


def test_bad_draws_are_refused():
    with pytest.raises(ValueError, match="n = 0"):
        Resampling(cells(), 0)
