"""Readers of pairs: each format, arrays and lines, and files that are not what they should be."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from mdm_jax.tasks.pairs.formats import PairFormat, Reading, Skipped, read_pairs
from mdm_jax.tasks.pairs.gsm8k import answered_number, number_in, plain
from mdm_jax.tasks.pairs.pair import TextPair
from mdm_jax.tasks.pairs.records import BadRecord, read_records

TALK = {
    "id": "a_0",
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Name a colour."},
        {"from": "gpt", "value": "Blue."},
        {"from": "human", "value": "Another?"},
        {"from": "gpt", "value": "Red."},
    ],
}
SUM = {
    "question": "A box holds 6 pens. How many pens do 4 boxes hold?",
    "answer": "Each box holds 6 pens.\nSo 4 boxes hold 4*6=<<4*6=24>>24 pens.\n#### 24",
}


def write(path: Path, records: list, as_array: bool) -> str:
    lines = [json.dumps(record, ensure_ascii=False).replace("\ud800", "\\ud800") for record in records]
    path.write_text("[\n" + " ,\n".join(lines) + "]\n" if as_array else "\n\n".join(lines) + "\n")
    return str(path)


def pairs(path: str, form: PairFormat, **choices) -> list[tuple[str, str]]:
    return [(pair.prompt, pair.response) for pair in read_pairs(path, Reading(form, **choices))]


@pytest.mark.parametrize("as_array", [True, False])
def test_a_conversation_gives_its_first_human_turn_and_the_answer(tmp_path, as_array):
    told = {"conversations": [{"from": "gpt", "value": "…"}, *TALK["conversations"][3:]]}
    path = write(tmp_path / "talks", [TALK, told], as_array)
    expected = [("USER: Name a colour. ASSISTANT: ", "Blue."), ("USER: Another? ASSISTANT: ", "Red.")]
    assert pairs(path, PairFormat.SHAREGPT) == expected
    assert pairs(path, PairFormat.SHAREGPT, template="> {prompt}\n")[0] == ("> Name a colour.\n", "Blue.")


@pytest.mark.parametrize("as_array", [True, False])
def test_a_word_problem_is_one_pair_or_two(tmp_path, as_array):
    path = write(tmp_path / "sums", [SUM], as_array)
    rationale = "Each box holds 6 pens.\nSo 4 boxes hold 4*6=24 pens."
    question = f"Question: {SUM['question']}\n"
    assert pairs(path, PairFormat.GSM8K) == [(question + "Answer: ", rationale + "\n#### 24")]
    assert pairs(path, PairFormat.GSM8K, keep_marks=True)[0][1] == SUM["answer"]
    two = [(question + "Rationale: ", rationale), (f"{question}Rationale: {rationale}\nNumber: ", "24")]
    assert pairs(path, PairFormat.GSM8K_TWO_STAGE) == two


def test_plain_records_have_any_two_fields_and_odd_text_survives(tmp_path):
    records = [{"in": "", "out": "größe\r\n\u2028λ"}, {"in": "half \ud800 pair", "out": "\x00"}]
    path = write(tmp_path / "plain", records, False)
    found = list(read_pairs(path, Reading(prompt_field="in", response_field="out")))
    assert found == [TextPair("", "größe\r\n\u2028λ"), TextPair("half ? pair", "\x00")]
    (tmp_path / "again").write_text("".join(pair.line for pair in found))
    assert list(read_pairs(str(tmp_path / "again"))) == found


NUMBERS = [
    ("#### 1,234", "1234"),
    ("so 3 #### $ 1.50 #### 9", "1.5"),
    ("####-7%", "-7"),
    ("####\n.5", "0.5"),
    ("#### 12000000", "12000000"),
    ("24", None),
    ("#### many", None),
    ("#### " + "9" * 41, None),
    ("", None),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_the_number_after_the_mark(text, number):
    found = answered_number(text)
    assert (None if found is None else plain(found)) == number
    assert found is None or found == Decimal(number)


def test_numbers_are_equal_however_they_are_written():
    assert number_in("18.00") == number_in(" $18") == Decimal(18)


BAD = [
    (PairFormat.SHAREGPT, {"conversations": []}, "a conversation without a human turn"),
    (PairFormat.SHAREGPT, {"conversations": TALK["conversations"][:2]}, "a pair without a response"),
    (PairFormat.SHAREGPT, {"conversations": [*TALK["conversations"][1:2] * 2]}, "a pair without a response"),
    (PairFormat.SHAREGPT, {"conversations": "none"}, "no list in field 'conversations'"),
    (PairFormat.SHAREGPT, {"items": 1}, "no list in field 'conversations'; its fields: items"),
    (PairFormat.SHAREGPT, {"conversations": [7]}, "a turn without the text field 'from'"),
    (PairFormat.SHAREGPT, {"conversations": [{"from": None}]}, "a turn without the text field 'from'"),
    (
        PairFormat.SHAREGPT,
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ["b"]}]},
        "field 'value' of a turn is no text (but list)",
    ),
    (PairFormat.PLAIN, {"prompt": "a", "response": " \n"}, "a pair without a response"),
    (PairFormat.PLAIN, {"prompt": "a"}, "no field 'response'; its fields: prompt"),
    (PairFormat.PLAIN, {"prompt": 3, "response": "b"}, "field 'prompt' is no text (but int)"),
    (PairFormat.PLAIN, {}, "no field 'prompt'; its fields: none"),
    (PairFormat.PLAIN, ["a", "b"], "no JSON object (but list)"),
    (PairFormat.GSM8K, {"question": "", "answer": "#### 1"}, "an empty question"),
    (PairFormat.GSM8K, {"question": "a", "answer": "7"}, "the answer does not end in '#### ' and a number"),
    (PairFormat.GSM8K, {"question": "a", "answer": "#### 7 or 8"}, "the answer does not end in '#### ' and a number"),
    (PairFormat.GSM8K_TWO_STAGE, {"question": "a", "answer": "#### 7"}, "a pair without a response: no rationale"),
]
GOOD = {PairFormat.SHAREGPT: TALK, PairFormat.PLAIN: {"prompt": "a", "response": "b"}}


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize(("form", "record", "said"), BAD)
def test_a_bad_record_is_named_and_may_be_left_out(tmp_path, form, record, said, as_array):
    good = GOOD.get(form, SUM)
    path = write(tmp_path / "file", [good, record, good], as_array)
    place = f"{path}: {'record 2' if as_array else 'line 3'}: "
    with pytest.raises(BadRecord) as found:
        list(read_pairs(path, Reading(form)))
    assert str(found.value).startswith(place + said)
    skipped = Skipped()
    kept = list(read_pairs(path, Reading(form), skipped))
    assert len(kept) == 2 * len(pairs(write(tmp_path / "one", [good], as_array), form))
    assert (skipped.count, str(skipped.first[0])) == (1, str(found.value))


def test_equal_faults_are_counted_together_and_few_are_kept(tmp_path):
    path = write(tmp_path / "file", [{"prompt": i, "response": "b"} for i in range(50)] + [{"prompt": ""}], False)
    skipped = Skipped()
    assert list(read_pairs(path, skip=skipped)) == []
    assert (skipped.faults["field 'prompt' is no text"], skipped.count, len(skipped.first)) == (50, 51, 20)


BROKEN_LINES = [
    (b'{"prompt": "a"', "line 1: not JSON (Expecting"),
    (b'{"prompt": "\xff", "response": "b"}', "line 1: not UTF-8: convert the file"),
    (b'{"a": ' + b"9" * 5000 + b"}", "line 1: not JSON (Exceeds the limit"),
    (b'{"a": ' + b"[" * 200_000, "line 1: not JSON ("),
    (b"null", "line 1: no JSON object (but NoneType)"),
]


@pytest.mark.parametrize(("raw", "said"), BROKEN_LINES, ids=range(len(BROKEN_LINES)))
def test_a_broken_line_is_left_out(tmp_path, raw, said):
    path = tmp_path / "file"
    path.write_bytes(raw + b'\n{"prompt": "a", "response": "b"}\n')
    with pytest.raises(BadRecord) as found:
        list(read_pairs(str(path)))
    assert f"{path}: {said}" in str(found.value)
    skipped = Skipped()
    assert list(read_pairs(str(path), skip=skipped)) == [TextPair("a", "b")]
    assert skipped.count == 1


BROKEN_ARRAYS = [
    (b"[", "record 1: not JSON (Expecting value"),
    (b'[{"prompt": "a", "response": "b"}', "record 1: the file ends before the array does"),
    (b'[{"prompt": "a", "response": "b"} {}]', "record 1: followed by '{' before the array does"),
    (b'[{"prompt": "a", "response": "b"},]', "record 1: a comma follows, but no record"),
    (b'[{"prompt": "a", "response": "b"}, {"prompt": "b]', "record 2: not JSON (Unterminated string"),
    (b"[]\n{}", "'{' follows the array"),
    (b'[{"a": ' + b"[" * 200_000, "record 1: not JSON ("),
    (b'["\xff"]', "byte 2: not UTF-8"),
]


@pytest.mark.parametrize(("raw", "said"), BROKEN_ARRAYS, ids=range(len(BROKEN_ARRAYS)))
def test_a_broken_array_is_an_error_even_if_bad_records_are_left_out(tmp_path, raw, said):
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="file: ") as found:
        list(read_pairs(str(path), skip=Skipped()))
    assert f"{path}: {said}" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("part", [1, 7, 64])
def test_an_array_does_not_depend_on_the_parts_in_which_it_is_read(tmp_path, part, monkeypatch):
    monkeypatch.setattr("mdm_jax.data.sources.plain_text.READ_BYTES", part)
    values = [{"a": "größe λ, ]}", "b": [1, {"c": -1.5e3}]}, {}, {"d": '\\" [ ' * 9}]
    path = write(tmp_path / "file", values, True)
    assert [record.fields for record in read_records(path)] == values


@pytest.mark.parametrize("text", ["", "[]", " \n\ufeff[ ] \n"])
def test_a_file_may_hold_nothing(tmp_path, text):
    (tmp_path / "file").write_text(text.replace(" \n\ufeff", "\ufeff \n"))
    assert list(read_records(str(tmp_path / "file"))) == []


def test_compressed_files_and_absent_ones(tmp_path):
    raw = json.dumps([{"prompt": "a", "response": "b"}]).encode()
    (tmp_path / "file.json.gz").write_bytes(gzip.compress(raw))
    assert list(read_pairs(str(tmp_path / "file.json.gz"))) == [TextPair("a", "b")]
    (tmp_path / "file.json.gz").write_bytes(gzip.compress(raw)[:-9])
    with pytest.raises(ValueError, match="corrupt or cut short"):
        list(read_pairs(str(tmp_path / "file.json.gz")))
    with pytest.raises(ValueError, match="nothing: no such file"):
        list(read_pairs(str(tmp_path / "nothing")))


def test_a_record_may_not_be_longer_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_jax.tasks.pairs.records.MOST_LINE_BYTES", 100)
    monkeypatch.setattr("mdm_jax.data.sources.plain_text.READ_BYTES", 64)
    path = write(tmp_path / "file", [{"a": 1}, {"a": "x" * 1000}], True)
    with pytest.raises(ValueError, match="record 2: longer than 64 MiB"):
        list(read_records(path))


WRONG = [
    ({"format": PairFormat.GSM8K, "template": "{prompt}"}, "template"),
    ({"format": PairFormat.SHAREGPT, "prompt_field": "a"}, "fields"),
    ({"template": "prompt"}, "a text with {prompt}"),
    ({"keep_marks": True}, "keep_marks"),
]


@pytest.mark.parametrize(("choices", "said"), WRONG)
def test_choices_that_a_format_does_not_have(choices, said):
    with pytest.raises(ValueError, match=said):
        Reading(**choices)
