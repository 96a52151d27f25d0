"""The dates in words: every day is named, and training and test share none."""

import datetime
import json
import random
import re
from pathlib import Path

import pytest
from command_line import one_line

from mdm_jax.tasks.guidance.dates import (
    FIRST_YEAR,
    LAST_YEAR,
    date_pairs,
    drawn_dates,
    forms,
    main,
    ordinal_figure,
    ordinal_word,
)


def test_days_have_names():
    words = [ordinal_word(day) for day in range(1, 32)]
    assert words[:3] + words[8:13] == [
        "first",
        "second",
        "third",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
        "thirteenth",
    ]
    assert words[18:23] == ["nineteenth", "twentieth", "twenty-first", "twenty-second", "twenty-third"]
    assert words[28:] == ["twenty-ninth", "thirtieth", "thirty-first"]
    assert [ordinal_figure(day) for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)] == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 31st".split()  # noqa: SIM905
    )


def test_a_form_says_which_date_it_is():
    assert forms(datetime.date(1987, 3, 3)) == (
        "3 March 1987",
        "March 3rd, 1987",
        "3 Mar '87",
        "the third of March 1987",
        "Tue, 03 Mar 1987",
        "the 3rd day of March in '87",
    )
    drawn = drawn_dates(random.Random(1))
    written = [forms(next(drawn)) for _ in range(3000)]
    different = {every[0] for every in written}
    assert all(len({every[form] for every in written}) == len(different) for form in range(6))


def test_training_and_test_share_no_date_and_follow_from_the_seed():
    train, test = date_pairs(4000, 100, seed=3)
    assert (len(train), len(test)) == (4000, 100)
    assert len({pair.response for pair in test}) == 100
    assert not {pair.response for pair in train} & {pair.response for pair in test}
    assert date_pairs(4000, 100, seed=3) == (train, test) != date_pairs(4000, 100, seed=4)
    for pair in train[:200] + test:
        date = datetime.date.fromisoformat(pair.response)
        assert FIRST_YEAR <= date.year <= LAST_YEAR
        assert pair.prompt in [form + " = " for form in forms(date)]
    recent = sum(pair.response >= "2010" for pair in train) / len(train)
    assert 0.55 < recent < 0.75  # 1 - exp(-1), over the share of years from 1950 on


def test_the_command_writes_both_files(tmp_path, capsys):
    paths = [str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")]
    assert main(["--train", paths[0], "--test", paths[1], "--pairs", "5", "--test-pairs", "2"]) == 0
    assert re.fullmatch(r"\S+: 5 pairs, such as .* = \S{10}\n\S+: 2 pairs, .*\n", capsys.readouterr().out)
    for path, pairs in zip(paths, date_pairs(5, 2, 0), strict=True):
        held = [json.loads(line) for line in Path(path).read_text().splitlines()]
        assert held == [{"prompt": pair.prompt, "response": pair.response} for pair in pairs]


@pytest.mark.parametrize("words", [["--pairs", "0"], ["--test-pairs", "2001"]])
def test_a_wrong_number_is_one_line(words, tmp_path, capsys):
    paths = ["--train", str(tmp_path / "a"), "--test", str(tmp_path / "b")]
    assert "pairs = " in one_line(main, [*paths, *words], capsys)
