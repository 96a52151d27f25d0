"""`python -m mdm_jax.tasks.pairs`: what it writes and says."""

import json

import pytest
from command_line import one_line

from mdm_jax.tasks.pairs.__main__ import main


@pytest.fixture
def talks(tmp_path) -> str:
    said = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]
    path = tmp_path / "talks.json"
    path.write_text(json.dumps([{"conversations": said}, {"conversations": said[:1]}, {"conversations": said}]))
    return str(path)


def test_pairs_are_written_and_counted(talks, tmp_path, capsys):
    out = tmp_path / "made" / "pairs.jsonl"
    assert main([talks, "--format", "sharegpt", "--template", "{prompt}: ", "--skip-bad", "--out", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"prompt": "Hello: ", "response": "Good day"}
    ] * 2
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "          pairs  least bytes  median  most  in all",
        "prompt        2            7       7     7      14",
        "response      2            8       8     8      16",
    ]
    assert printed.err.splitlines()[0] == (
        f"skipped: {talks}: record 2: a pair without a response: no answer follows the first human turn"
    )
    assert printed.err.splitlines()[1:] == ["skipped 1: a pair without a response", "skipped 1 records in all"]


def test_a_limit_leaves_the_rest_unread(talks, capsys):
    assert main([talks, "--format", "sharegpt", "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["prompt", "1"]


WRONG = [
    (["--format", "sharegpt"], "talks.json: record 2: a pair without a response"),
    (["--skip-bad", "--format", "gsm8k_two_stage", "--fields", "a,b"], "fields = 'a,b': must be absent"),
    (["--fields", "a"], "--fields = 'a': must be two names"),
    (["--limit", "0"], "--limit = 0: must be 1 or more"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_one_line(talks, words, said, capsys):
    assert said in one_line(main, [talks, *words], capsys)


def test_a_file_without_pairs_writes_nothing(talks, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    assert main([talks, "--format", "gsm8k", "--skip-bad", "--out", str(out)]) == 1
    assert capsys.readouterr().err.endswith("talks.json: no pairs\n")
    assert not out.exists()
