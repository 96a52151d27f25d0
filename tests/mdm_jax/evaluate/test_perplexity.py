"""Perplexity of texts under models of both families: closed forms, sums over documents, and the command."""

import csv
import dataclasses
import math
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from json_tokenizers import byte_level, word_piece
from small_corpus import texts, write_jsonl
from smdm_files import TRUNK, random_weights

from mdm_jax import load
from mdm_jax.evaluate.perplexity.__main__ import main
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, Likelihood

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SEQ_LEN = 8
ROWS = ["0123456", "abcdefg", "ABCDEFG", "zyxwvut"]
"""Texts that fill a row of bytes each, with EOS."""


def write(path: Path, attention: Attention, head_scale: float = 1.0, vocab_size: int = 257) -> str:
    """The path of a tiny model; with a head of zeros, all tokens have the same probability."""
    spec = dataclasses.replace(TRUNK, n_layers=1, d_model=8, d_ffn=8, vocab_size=vocab_size, attention=attention)
    weights = random_weights(spec)
    weights["head"] *= head_scale
    path.parent.mkdir(exist_ok=True)
    write_smdm(path, weights, spec, SEQ_LEN, True)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "gpt2").mkdir()
    (folder / "gpt2" / "tokenizer.json").write_text(byte_level(texts(300), 300))
    causal, both = Attention.CAUSAL, Attention.BIDIRECTIONAL
    made = {"arm": write(folder / "arm", causal), "mdm": write(folder / "mdm", both)}
    made["uniform arm"] = write(folder / "gpt2" / "uniform", causal, head_scale=0.0, vocab_size=300)
    return made | {"uniform mdm": write(folder / "uniform_mdm", both, head_scale=0.0)}


def table(words: list[str], out: Path) -> list[dict[str, str]]:
    assert main([*words, "--out", str(out)]) == 0
    with out.open() as file:
        return list(csv.DictReader(file))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(files, tmp_path, capsys):
    """Its bits per byte are log2(V) for each token, EOS included. The tokenizers differ, and the table says so."""
    path = write_jsonl(tmp_path / "a.jsonl", documents := texts(30))
    words = [files["uniform mdm"], files["uniform arm"], "--corpus", f"wiki={path}", "--draws", "2"]
    held = sum(len(text.encode()) for text in documents)
    for row, vocab_size in zip(table(words, tmp_path / "t.csv"), (257, 300), strict=True):
        assert float(row["perplexity"]) == pytest.approx(vocab_size, rel=1e-5)
        tokens = int(row["tokens"])
        assert float(row["bits_per_byte"]) == pytest.approx(math.log2(vocab_size) * tokens / held, rel=1e-5)
        assert float(row["nats_per_token_se_mc"]) < 1e-6
        assert float(row["nats_per_token_se_data"]) < 1e-5
        assert (int(row["bytes"]), int(row["documents"])) == (held, 30)
    out, said = capsys.readouterr()
    assert "The tokenizers differ" in out
    assert "2/2 uniform on wiki: " in said


@pytest.mark.parametrize("method", [Likelihood.NELBO, Likelihood.LEFT_TO_RIGHT])
def test_nats_of_documents_add_up_in_any_order(files, method):
    """Documents that fill whole rows are read alone. The NELBO's draws belong to rows, so only exact values agree."""
    model = load(files["arm" if method is Likelihood.NELBO else "mdm"])

    def nats(documents: list[str]) -> float:
        return model.row_nats(model.tokenizer.encode_batch(documents)[0], method).nats_RS.sum()

    together = nats(ROWS)
    assert nats(ROWS[::-1]) == pytest.approx(together, rel=1e-6)
    assert nats(ROWS[:2]) + nats(ROWS[2:]) == pytest.approx(together, rel=1e-6)


def test_the_table_has_the_numbers_of_nelbo_and_a_model_does_not_differ_from_itself(files, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents := texts(12))
    rows = table([files["mdm"], files["arm"], "--corpus", f"a={path}", "--draws", "4"], tmp_path / "t.csv")
    assert [(row["family"], row["kind"]) for row in rows] == [("mdm", "nelbo"), ("arm", "nll")]
    for row, name in zip(rows, ("mdm", "arm"), strict=True):
        alone = load(files[name]).nelbo(documents, draws=4)
        assert float(row["nats_per_token"]) == pytest.approx(alone.nats_per_token, rel=1e-6)
        assert float(row["nats_per_token_se_mc"]) * alone.tokens == pytest.approx(alone.se_mc, rel=1e-6)
        assert float(row["perplexity"]) == pytest.approx(alone.perplexity, rel=1e-5)
        assert float(row["bits_per_byte"]) == pytest.approx(alone.bits_per_byte, rel=1e-6)
        assert alone.se_data is not None
        assert 0.2 < alone.se_data / alone.tokens / float(row["nats_per_token_se_data"]) < 5
    assert [float(rows[0][name]) for name in ("difference", "difference_se_mc", "difference_se_data")] == [0, 0, 0]
    gap = float(rows[1]["bits_per_byte"]) - float(rows[0]["bits_per_byte"])
    assert float(rows[1]["difference"]) == pytest.approx(gap)
    assert float(rows[1]["difference_se_mc"]) == pytest.approx(float(rows[0]["bits_per_byte_se_mc"]))


def test_an_exact_likelihood_of_an_mdm_has_no_monte_carlo_error(files, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    words = [files["mdm"], "--corpus", f"a={path}", "--likelihood"]
    found = {name: table([*words, name], tmp_path / "t.csv")[0] for name in ("left_to_right", "confidence")}
    nelbo = load(files["mdm"]).nelbo(ROWS, draws=64)
    for name, row in found.items():
        assert (row["kind"], float(row["nats_per_token_se_mc"])) == (name, 0)
        assert float(row["nats_per_token"]) == pytest.approx(nelbo.nats_per_token, rel=0.15)
    assert found["left_to_right"]["nats_per_token"] != found["confidence"]["nats_per_token"]


def test_published_weights_are_scored_with_a_tokenizer_beside_them(reference_data, tmp_path):
    """Random weights under SMDM's names, close to uniform over 96 tokens. SMDM's ARM reads EOS as its start."""
    for name in ("mdm.safetensors", "ar.safetensors", "config.json"):
        shutil.copy(reference_data / "smdm_golden" / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text(word_piece(texts(300), 90))
    path = write_jsonl(tmp_path / "a.jsonl", texts(20))
    models = [str(tmp_path / "mdm.safetensors"), str(tmp_path / "ar.safetensors")]
    rows = table([*models, "--corpus", f"a={path}", "--draws", "2", "--max-tokens", "200"], tmp_path / "t.csv")
    for row, family in zip(rows, ("mdm", "arm"), strict=True):
        assert (row["family"], int(row["tokens"]) <= 200) == (family, True)
        assert 48 < float(row["perplexity"]) < 400


REFUSED = [
    (["--corpus", "wiki"], "--corpus = 'wiki': must be NAME=PATH"),
    (["--corpus", "a=x.txt", "a=y.txt"], "must be a different name for each corpus"),
    (["--corpus", "a=absent.txt"], "absent.txt': no such file"),
    (["--corpus", "a=absent.txt", "--draws", "1"], "--draws = 1: must be from 2"),
    (["--corpus", "a=absent.txt", "--out", "."], ".: is a folder: give the path of a file"),
    (["--corpus", "a=absent.txt", "--max-tokens", "-1"], "--max-tokens = -1: must be 0"),
    (["--corpus", "a=absent.txt", "--likelihood", "any"], "invalid choice: 'any'"),
    ([], "the following arguments are required: --corpus"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_wrong_call_is_refused_in_one_line(files, words, said, capsys):
    assert said in one_line(main, [files["arm"], *words], capsys)


def test_a_model_that_is_not_there_and_an_empty_text_are_named(files, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n \n")
    assert "absent: no such file" in one_line(main, ["absent", "--corpus", "a=b.txt"], capsys)
    words = [files["arm"], "--corpus", f"a={tmp_path / 'a.txt'}"]
    assert "no text in" in one_line(main, words, capsys)


def test_weights_that_overflow_are_named_with_the_texts(tmp_path, capsys):
    path = write(tmp_path / "bad", Attention.CAUSAL, head_scale=2e38)
    corpus = write_jsonl(tmp_path / "a.jsonl", ROWS)
    said = one_line(main, [path, "--corpus", f"wiki={corpus}", "--draws", "2"], capsys)
    assert re.search("bad on wiki: nats = (inf|nan): must be finite: the weights have NaN or are too large", said)


@pytest.mark.parametrize("name", ["mdm", "arm"])
def test_a_row_of_one_token_has_its_probability_after_nothing(files, name):
    """Such a row may end any text. Id V is MASK for an MDM, and the start token for an ARM."""
    model = load(files[name])
    logits_V = np.asarray(model.logits(np.array([[model.spec.vocab_size]])))[0, 0].astype(np.float64)
    nats = np.log(np.exp(logits_V).sum()) - logits_V[97]
    np.testing.assert_allclose(model.row_nats(np.array([97]), draws=2).nats_RS, nats, rtol=1e-5)


def test_progress_reaches_the_end_and_may_stop_the_work(files):
    model, shares = load(files["mdm"]), []
    ids = model.tokenizer.encode_batch(ROWS)[0]
    model.row_nats(ids, draws=3, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)

    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model.row_nats(ids, draws=3, progress=stop)


def test_ctrl_c_ends_the_command_and_keeps_the_finished_rows(files, tmp_path, capsys):
    path, out = write_jsonl(tmp_path / "a.jsonl", texts(12)), tmp_path / "t.csv"

    def interrupt() -> None:
        while not out.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    words = [files["arm"], files["mdm"], "--corpus", f"a={path}", "--draws", str(1 << 19), "--out", str(out)]
    assert main(words) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"mdm_jax: interrupted: {out} has the 1 finished rows"
    assert len(out.read_text().splitlines()) == 2
    assert np.isfinite(load(files["arm"]).nelbo(["a"]).nats), "the device works on"
