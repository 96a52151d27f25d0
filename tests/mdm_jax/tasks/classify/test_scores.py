"""Scores of predictions: closed forms, and errors that repeat the experiment."""

import numpy as np
import pytest
import scipy.stats

from mdm_jax.tasks.classify.scores import Counts, accuracy, matthews, score


def counts(label, said, classes):
    indicator = np.eye(classes)
    return Counts((label == said).sum(keepdims=True) * 1.0, indicator[label].sum(0)[None], indicator[said].sum(0)[None])


def test_matthews_correlation_of_two_classes_is_the_correlation_of_the_labels():
    draw = np.random.default_rng(0)
    label, said = draw.integers(0, 2, (2, 500))
    said = np.where(draw.random(500) < 0.5, label, said)
    table = counts(label, said, 2)
    assert matthews(table)[0] == pytest.approx(np.corrcoef(label, said)[0, 1])
    assert accuracy(table)[0] == pytest.approx((label == said).mean())


def test_matthews_correlation_of_many_classes():
    """R_K is the sum of the covariances of the indicators of the classes over their root mean product."""
    draw = np.random.default_rng(1)
    label = draw.integers(0, 4, 400)
    said = np.where(draw.random(400) < 0.6, label, draw.integers(0, 4, 400))
    x, y = np.eye(4)[label], np.eye(4)[said]
    x, y = x - x.mean(0), y - y.mean(0)
    assert matthews(counts(label, said, 4))[0] == pytest.approx((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))
    assert matthews(counts(label, label, 4))[0] == pytest.approx(1)
    assert matthews(counts(label, np.zeros_like(label), 4))[0] == 0


def test_one_seed_has_the_binomial_error():
    draw = np.random.default_rng(2)
    label = draw.integers(0, 2, 1500)
    said = np.where(draw.random(1500) < 0.8, label, 1 - label)[None]
    found = score(label, said, accuracy)
    right = (said[0] == label).mean()
    assert found.value == pytest.approx(right)
    assert found.se_examples == pytest.approx((right * (1 - right) / 1500) ** 0.5, rel=0.1)
    assert found.se_seeds is None
    assert found.upper - found.value == pytest.approx(1.96 * found.se_examples, rel=1e-3)


def test_seeds_that_differ_widen_the_interval_by_student_s_t():
    label = np.zeros(100, int)
    said = np.array([[1] * n + [0] * (100 - n) for n in (10, 20, 30)])
    found = score(label, said, accuracy)
    assert (found.value, found.se_seeds) == pytest.approx((0.8, 0.1 / 3**0.5))
    assert found.se_seeds is not None
    half = np.hypot(1.959964 * found.se_examples, scipy.stats.t.ppf(0.975, 2) * found.se_seeds)
    assert found.upper - found.value == pytest.approx(half)


def test_a_difference_is_taken_text_by_text():
    """Models that mostly err on the same texts have a difference with a smaller error than either score."""
    draw = np.random.default_rng(3)
    label = draw.integers(0, 3, 1200)
    one = np.where(draw.random((2, 1200)) < 0.7, label, (label + 1) % 3)
    other = one.copy()
    other[:, ::40] = (other[:, ::40] + 1) % 3
    for measure in (accuracy, matthews):
        found, alone = score(label, one, measure, other), score(label, one, measure)
        assert found.value == pytest.approx(alone.value - score(label, other, measure).value)
        assert found.se_examples < 0.5 * alone.se_examples
        same = score(label, one, measure, one)
        assert (same.value, same.se_examples, same.se_seeds) == (0, 0, 0)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draw, held = np.random.default_rng(4), 0
    for i in range(60):
        label = draw.integers(0, 2, 150)
        said = np.where(draw.random((1, 150)) < 0.8, label, 1 - label)
        found = score(label, said, accuracy, seed=i)
        held += found.lower <= 0.8 <= found.upper
    assert held >= 51  # 57 expected; fewer than 51 has a probability of .002
