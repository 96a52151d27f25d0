"""Fine-tuning on published formats: the pairs that reach the shards, and answers to word problems afterwards."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from smdm_files import write_random

from mdm_jax import load
from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.tokenizer import ByteTokenizer
from mdm_jax.files.layout import plan_lines
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Attention
from mdm_jax.tasks.gsm8k.__main__ import read_problems
from mdm_jax.tasks.gsm8k.answers import Settings, accuracy, answers
from mdm_jax.tasks.pairs.formats import PairFormat, Reading, read_pairs
from mdm_jax.tasks.sft import main

pytestmark = pytest.mark.usefixtures("compiled_quickly", "sigterm_handler")


def word_problems(path: Path, count: int) -> str:
    """Sums of two digits as word problems in GSM8K's format."""
    records = []
    for n in range(count):
        a, b = 1 + n % 9, 1 + n // 9
        answer = f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"
        records.append({"question": f"{a} pens and {b}?", "answer": answer})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("form", [PairFormat.GSM8K, PairFormat.GSM8K_TWO_STAGE])
def test_the_shards_hold_the_pairs_of_the_format(tmp_path, form):
    path = word_problems(tmp_path / "problems.jsonl", 20)
    model = str(write_random(tmp_path / "model", Attention.CAUSAL, 64))
    out = tmp_path / "out"
    words = [model, "--pairs", path, "--format", form, "--out", str(out), "--validation-fraction", "0.3"]
    words += ["--plan-only", "--devices", "1"]
    assert main(words) == 0
    written = os.stat(out / "pairs.jsonl").st_mtime_ns
    assert main(words) == 0
    assert os.stat(out / "pairs.jsonl").st_mtime_ns == written
    (line,) = plan_lines(as_path(out / "plan.jsonl"))
    corpus, decode = open_corpus(line.run().data), ByteTokenizer().decode
    held = set()
    for rows in (corpus.train_pairs, corpus.validation_pairs):
        for row_L in map(rows.row, range(len(rows))):
            held.add((decode(-1 - row_L[row_L < 0]), decode(row_L[(row_L >= 0) & (row_L < 257)])))
    assert held == {(pair.prompt, pair.response) for pair in read_pairs(path, Reading(form))}


def test_a_record_without_a_response_is_named(tmp_path, capsys):
    said = [{"from": "human", "value": "Hello"}]
    (tmp_path / "talks.json").write_text(json.dumps([{"conversations": said}]))
    model = str(write_random(tmp_path / "model", Attention.CAUSAL, 64))
    words = [model, "--pairs", str(tmp_path / "talks.json"), "--format", "sharegpt", "--out", str(tmp_path / "out")]
    assert "talks.json: record 1: a pair without a response" in one_line(main, words, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("two_stages", [False, True])
@pytest.mark.parametrize("attention", Attention)
def test_a_fine_tuned_model_answers_the_problems_that_it_has_read(tmp_path, attention, two_stages):
    path = word_problems(tmp_path / "problems.jsonl", 81)
    model = str(write_random(tmp_path / "model", attention, 64))
    form = PairFormat.GSM8K_TWO_STAGE if two_stages else PairFormat.GSM8K
    words = ["--pairs", path, "--format", form, "--out", str(tmp_path / "out"), "--validation-fraction", "0.3"]
    words += ["--eos-to-end"] * (attention is Attention.BIDIRECTIONAL)
    hard = attention is Attention.BIDIRECTIONAL and not two_stages  # rationale and number together, in any order
    assert main([model, *words, "--epochs", "800" if hard else "250", "--lr", "0.004", "--batch", "16"]) == 0
    (folder,) = as_path(tmp_path / "out" / "runs").iterdir()
    tuned, problems = load(folder), read_problems(path)
    room = (None, None) if attention is Attention.BIDIRECTIONAL else (16, 4)
    options = {"temperature": 0.0, "sampler": "confidence" if attention is Attention.BIDIRECTIONAL else ""}
    found = answers(tuned, problems, Settings(two_stages, *room, options))
    assert accuracy(found).right >= 30  # it has not read about 24 of the 81
    assert np.mean([answer.number is not None for answer in found]) > 0.9
