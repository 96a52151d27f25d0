"""`python -m mdm_jax.sample`: its text, its JSONL and its errors."""

import json
import shutil

import pytest
from json_tokenizers import word_piece
from small_corpus import texts
from smdm_files import write_random

from mdm_jax import load
from mdm_jax.sample.__main__ import main
from mdm_jax.spec import Attention

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def mdm(tmp_path_factory) -> str:
    return str(write_random(tmp_path_factory.mktemp("mdm") / "model", Attention.BIDIRECTIONAL, seq_len=12))


def test_texts_go_to_standard_output_and_to_a_file(mdm, tmp_path, capsys):
    out = tmp_path / "texts.jsonl"
    words = ["--prompt", "ab", "c", "--tokens", "4", "--n", "2", "--seed", "7", "--sampler", "margin", "--steps", "2"]
    assert main([mdm, *words, "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    expected = load(mdm).generate(["ab", "c"], 4, n=2, seed=7, sampler="margin", steps=2)
    assert [record["text"] for record in records] == [text.text for text in expected]
    assert [tuple(record["ids"]) for record in records] == [text.ids for text in expected]
    assert [record["seed"] for record in records] == [7, 8, 9, 10]
    assert all(
        record["nfe"] in (1, 2) and record["seconds"] > 0 and record["sampler"] == "margin" for record in records
    )
    shown = capsys.readouterr().out
    assert shown.startswith("--- seed 7: ")
    assert "\nab" + expected[0].text in shown


def test_holes_are_filled(mdm, capsys):
    assert main([mdm, "--infill", "a[MASK:2]b"]) == 0
    assert capsys.readouterr().out.endswith(load(mdm).infill("a[MASK:2]b")[0].text + "\n")


def test_a_text_longer_than_a_row_and_a_cache(mdm, tmp_path, capsys):
    out = tmp_path / "texts.jsonl"
    words = ["--tokens", "20", "--stride", "6", "--block", "3", "--cache", "dual", "--seed", "2"]
    assert main([mdm, *words, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    expected = load(mdm).generate("", 20, stride=6, seed=2, block=3, cache="dual")[0]
    assert tuple(record["ids"]) == expected.ids
    assert (record["stride"], record["cache"], record["block"]) == (6, "dual", 3)
    assert "--- seed 2: 20 tokens, 20 forward passes" in capsys.readouterr().out


def test_released_weights_write_text_with_a_cache(reference_data, tmp_path):
    """Weights under SMDM's names with a tokenizer beside them, and the Hugging Face folder that is made from them."""
    (tmp_path / "tokenizer.json").write_text(word_piece(texts(300), 90))
    for name in ("mdm.safetensors", "config.json"):
        shutil.copy(reference_data / "smdm_golden" / name, tmp_path)
    load(tmp_path / "mdm.safetensors").export_hf(tmp_path / "folder")
    lines = []
    for name in ("mdm.safetensors", "folder"):
        words = ["--prompt", "a token", "--tokens", "8", "--block", "4", "--steps", "4", "--cache", "dual"]
        assert main([str(tmp_path / name), *words, "--out", str(tmp_path / "texts.jsonl")]) == 0
        lines.append(json.loads((tmp_path / "texts.jsonl").read_text()))
    assert lines[0]["ids"] == lines[1]["ids"]
    assert lines[0]["ended"] or (lines[0]["tokens"], lines[0]["nfe"]) == (8, 4)


WRONG = [
    (["--cache", "dual"], "block = None: must be the tokens of a block"),
    (["--tokens", "13"], "tokens = 13: must be at most 12, the model's row; a stride (--stride) writes longer texts"),
    (["--infill", "a[MASK]", "--stride", "3"], "--stride = 3: must be absent with --infill"),
    (["--sampler", "gready"], "sampler = 'gready': must be one of ancestral, first_hitting"),
    (["--prompt", "a" * 13], "prompts[0]: tokens = 13: must be at most 11"),
    (["--tokens", "4", "--steps", "9"], "steps = 9: must be at most 4"),
    (["--infill", "a[MASK]", "--tokens", "3"], "--tokens = 3: must be absent with --infill"),
    (["--infill", "a[MASK]", "--prompt", "b"], "not allowed with argument"),
    (["--temperature", "hot"], "invalid float value"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_one_line(mdm, words, said, capsys):
    try:
        code = main([mdm, *words])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 1
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("mdm_jax: ")
