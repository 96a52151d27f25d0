"""The benchmark of fine-tuning: numbers in words, and a table whose gains and errors are over the seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from smdm_files import write_random

from benchmarks.fine_tuning import CUT, SEQ_LEN, Measured, in_words, rows_of, write_pairs
from mdm_jax import load
from mdm_jax.spec import Attention

WORDS = {
    0: "zero",
    13: "thirteen",
    40: "forty",
    99: "ninety-nine",
    100: "one hundred",
    615: "six hundred and fifteen",
    999: "nine hundred and ninety-nine",
}


@pytest.mark.parametrize("number", WORDS)
def test_numbers_in_words(number):
    assert in_words(number) == WORDS[number]


def test_the_pairs_are_different_and_fit_into_a_row(tmp_path):
    records = [json.loads(line) for line in Path(write_pairs(tmp_path / "pairs.jsonl")).read_text().splitlines()]
    assert len(records) == 1000
    assert len({record["prompt"] for record in records}) == 1000
    for record in records:
        assert record["prompt"] == in_words(int(record["response"])) + CUT
        assert len(record["prompt"]) + len(record["response"]) < SEQ_LEN


def test_the_errors_are_over_the_seeds_and_those_of_the_gain_over_their_differences(tmp_path):
    model = load(write_random(tmp_path / "model", Attention.CAUSAL))

    def measured(*exact: int) -> Measured:
        return Measured(np.array(exact, bool), np.array(exact, float) + 1)

    seeds = {"random": [measured(0, 0), measured(1, 0)], "trained": [measured(1, 0), measured(1, 1)]}
    before, random, trained, gain = rows_of(model, {"before": [measured(0, 1, 1, 0)], **seeds})
    assert (before["exact"], before["exact_se"]) == (0.5, pytest.approx((1 / 3 / 4) ** 0.5))
    assert (random["exact"], random["exact_se"], random["seeds"]) == (0.25, 0.25, 2)
    assert (trained["exact"], trained["nats"]) == (0.75, 1.75)
    assert (gain["exact"], gain["exact_se"], gain["weights"]) == (0.5, 0.0, "gain")
