"""The dates in words: every day is named, and training and test share none."""

import datetime
import json
import re
from pathlib import Path

import pytest
from command_line import one_line

from mdm_jax.tasks.guidance.dates import (
    FIRST_YEAR,
    LAST_YEAR,
    date_pairs,
    forms,
    main,
    nearness,
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


def test_the_forms_of_a_date():
    assert forms(datetime.date(1987, 7, 3)) == (
        "3 July 1987",
        "3 Jul '87",
        "the third of July 1987",
        "a day of July 1987",
        "a day of July in the 1980s",
        "the 3rd of a month of 1987",
        "a summer day of 1987",
        "a day of 1987",
    )
    assert [forms(datetime.date(2000, month, 1))[6].split()[1] for month in (12, 1, 2, 3, 6, 9, 11)] == (
        ["winter"] * 3 + ["spring", "summer", "autumn", "autumn"]
    )


def test_three_forms_name_one_date_and_the_others_leave_a_choice():
    every = [datetime.date(FIRST_YEAR, 1, 1) + datetime.timedelta(n) for n in range(29_220)]
    assert every[-1] == datetime.date(LAST_YEAR, 12, 31)
    requests = [forms(date) for date in every]
    counts = [len({each[form] for each in requests}) for form in range(8)]
    assert counts == [29_220] * 3 + [80 * 12, 8 * 12, 80 * 31, 80 * 4, 80]


RIGHT = [
    ("the third of March 1987", "1987-03-03", 1.0),
    ("the third of March 1987", "1987-03-13", 0.9),
    ("a day of February 1987", "1987-02-28", 1.0),
    ("a day of February 1987", "1987-02-29", 0.9),
    ("the 31st of a month of 1999", "1999-12-31", 1.0),
    ("the 31st of a month of 1999", "1999-11-31", 0.9),
    ("a day of 1987", "1987", 0.4),
    ("a day of 1987", "", 0.0),
    ("a day of 1987", "größe", 0.0),
    ("a day of 1987", "1987-01-01" + "0" * 10, 0.5),
    ("a day of 2087", "2087-01-01", 0.0),
]


@pytest.mark.parametrize(("request_", "answer", "near"), RIGHT)
def test_nearness_to_a_right_date(request_, answer, near):
    assert nearness(request_ + " = ", answer) == pytest.approx(near)


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
