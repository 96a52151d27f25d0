"""Metrics of texts: closed forms, sacrebleu, and errors that are right over repeated samples of texts."""

import math

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from mdm_jax.sample.report.metrics import distinct, ngrams, repetition, sequence_entropy, unigram_entropy, variety
from mdm_jax.sample.report.resampling import jackknife, ratio_draws
from mdm_jax.sample.report.self_bleu import self_bleu


def each(*texts):
    return [np.array(text, np.int32) for text in texts]


def units(texts):
    return np.arange(len(texts))


def test_entropies_are_those_of_the_counts():
    ids = each([1, 1, 2, 2], [3, 3, 3, 3])
    assert sequence_entropy(ids, units(ids)).value == pytest.approx(math.log(2) / 2)
    shares = np.array([2, 2, 4]) / 8
    assert unigram_entropy(ids, units(ids)).value == pytest.approx(-(shares * np.log(shares)).sum())
    assert sequence_entropy(each([], [1, 2]), np.arange(2)).value == pytest.approx(math.log(2) / 2)


def test_distinct_counts_over_all_texts_and_repetition_within_each():
    ids = each([1, 2, 1, 2, 1], [1, 2, 3])
    assert ngrams(ids[0].tolist(), 2) == [(1, 2), (2, 1), (1, 2), (2, 1)]
    assert distinct(ids, 1, units(ids)).value == 3 / 8
    assert distinct(ids, 2, units(ids)).value == 3 / 6
    assert distinct(ids, 4, units(ids)).value == 2 / 2
    assert repetition(ids, 2, units(ids)).value == 2 / 6
    short = each([1], [2, 2])
    assert (distinct(short, 4, units(short)).value, repetition(short, 4, units(short)).value) == (0.0, 0.0)


def test_a_single_text_has_numbers_and_no_errors():
    found = variety(each([1, 2, 2]), np.zeros(1, int))
    assert found.sequence_entropy.value == found.unigram_entropy.value > 0
    assert math.isnan(found.sequence_entropy.se)
    assert math.isnan(found.distinct[0].se)


WORDS = ["the", "cat", "sat", "on", "a", "mat", ".", "it's", "3.5", "dog"]


def sentences(count, seed):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("texts", [sentences(7, 0), ["a b c d e", "a b c d e", "x"], ["", "a b", "a a a a a"]])
def test_self_bleu_is_sacrebleus_mean(texts):
    bleu = BLEU(effective_order=True)
    others = [[text for j, text in enumerate(texts) if j != i] for i in range(len(texts))]
    expected = np.mean([bleu.sentence_score(text, rest).score for text, rest in zip(texts, others, strict=True)])
    assert self_bleu(texts, units(texts)).value == pytest.approx(expected)
    assert self_bleu(texts[:1], np.zeros(1, int)).value == 0.0


def deviation_and_error(statistic, sample, repeats=80):
    """The standard deviation over repeated samples, and the root of the mean of the squared errors."""
    found = [statistic(sample(seed)) for seed in range(repeats)]
    return np.std([one.value for one in found], ddof=1), math.sqrt(np.mean([one.se**2 for one in found]))


def random_texts(seed, texts=24, length=16):
    """Texts that differ in how many tokens they use, so that texts and not tokens are the units."""
    draw = np.random.default_rng(seed)
    return [draw.integers(0, draw.integers(2, 12), length).astype(np.int32) for _ in range(texts)]


def test_errors_are_the_deviations_of_repeated_samples():
    """The jackknife's error may read high (Efron & Stein), the others are right within the noise of 80 repeats."""
    for statistic, most in (
        (lambda ids: sequence_entropy(ids, units(ids)), 1.3),
        (lambda ids: unigram_entropy(ids, units(ids)), 1.3),
        (lambda ids: repetition(ids, 2, units(ids)), 1.3),
        (lambda ids: distinct(ids, 2, units(ids)), 1.7),
    ):
        deviation, error = deviation_and_error(statistic, random_texts)
        assert 0.75 < error / deviation < most


def test_the_error_of_self_bleu_reads_high_at_most():
    deviation, error = deviation_and_error(lambda texts: self_bleu(texts, units(texts)), lambda s: sentences(20, s), 50)
    assert 0.75 < error / deviation < 2.0


def test_texts_of_one_prompt_are_one_unit():
    """Each text twice: as units of two texts the error is that of the half, and as texts it would read low."""
    ids = random_texts(3)
    twice, prompt_S = [one for one in ids for _ in range(2)], np.repeat(np.arange(len(ids)), 2)
    once = sequence_entropy(ids, units(ids)).se
    assert sequence_entropy(twice, prompt_S).se == pytest.approx(once, rel=1e-9)
    assert sequence_entropy(twice, units(twice)).se == pytest.approx(once / math.sqrt(2), rel=0.1)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x_S = np.random.default_rng(0).normal(size=16)
    found = jackknife(lambda kept_S: float(x_S[kept_S].mean()), np.arange(16))
    assert found.se == pytest.approx(x_S.std(ddof=1) / 4)


def test_a_bootstrap_sample_without_tokens_takes_the_whole_ratio():
    draws_R = ratio_draws(np.array([0.0, 2.0]), np.array([0, 4]), np.arange(2))
    assert set(draws_R.tolist()) == {0.5}
