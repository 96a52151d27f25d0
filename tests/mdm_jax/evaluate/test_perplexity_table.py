"""The texts of the perplexity command, its blocks of documents, their errors, and the table: no model is needed."""

import csv
import dataclasses
import gzip
import io
import json
import math
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from json_tokenizers import byte_level
from small_corpus import texts, write_jsonl

from mdm_jax.data.tokenizer import ByteTokenizer
from mdm_jax.data.tokenizer_json import JsonTokenizer
from mdm_jax.evaluate.perplexity.blocks import block_ends, nats_of_blocks, sums_of_blocks
from mdm_jax.evaluate.perplexity.corpus import parse_corpus, read_corpus, source_of
from mdm_jax.evaluate.perplexity.table import Score, TableRow, as_csv, as_text, kind_of, measures
from mdm_jax.evaluate.ratio import ratio
from mdm_jax.evaluate.stream import RowNats
from mdm_jax.spec import CorpusSource, Family, Likelihood

BYTES = ByteTokenizer()
TEXTS = texts(40)


def test_both_errors_of_a_ratio_are_the_spread_of_repetitions():
    """Parts of unequal size with a rate of their own, and draws with noise: 400 worlds, 30 parts, 6 draws."""
    make, found = np.random.default_rng(0), []
    for _ in range(400):
        size_G = make.integers(1, 20, 30)
        rate_G = 2 + 0.3 * make.normal(size=30)
        found.append(ratio(size_G * (rate_G + 0.5 * make.normal(size=(6, 30))), size_G))
    spread = np.std([one.value for one in found])
    assert np.mean([one.se_data for one in found]) == pytest.approx(spread, rel=0.1)
    fixed_G, rate_G, again = make.integers(1, 20, 30), make.normal(size=30), []
    for _ in range(400):
        again.append(ratio(fixed_G * (rate_G + 0.5 * make.normal(size=(6, 30))), fixed_G))
    assert np.mean([one.se_mc for one in again]) == pytest.approx(np.std([one.value for one in again]), rel=0.1)


def test_a_ratio_of_constant_rate_has_no_error_and_one_part_has_no_spread():
    exact = ratio(np.array([[2.0, 6.0, 4.0]]), np.array([1, 3, 2]))
    assert (exact.value, exact.se_mc, exact.se_data) == (2.0, 0.0, 0.0)
    assert math.isnan(ratio(np.array([[2.0]]), np.array([1])).se_data)


@pytest.mark.parametrize("longest_row", [0.5, 30.0, 1e9])
@pytest.mark.parametrize("count", [1, 7, 2000])
def test_blocks_are_whole_documents_of_at_least_four_rows(count, longest_row):
    bytes_D = np.random.default_rng(count).integers(1, 200, count)
    ends_G = block_ends(bytes_D, longest_row)
    assert ends_G[-1] == count
    assert np.all(np.diff(ends_G) > 0)
    sizes_G = sums_of_blocks(bytes_D, ends_G)
    assert sizes_G.sum() == bytes_D.sum()
    assert 1 <= len(ends_G) <= 256
    assert len(ends_G) == 1 or sizes_G.min() >= max(4 * longest_row, bytes_D.sum() / 256)


def test_the_nats_of_blocks_add_up_and_a_row_in_two_blocks_is_shared():
    rows = RowNats(np.array([[4.0, 8.0, 3.0], [0.0, 4.0, 6.0]]), np.array([4, 4, 3]))
    tokens_D = np.array([2, 4, 5])  # documents end at the tokens 2, 6 and 11
    np.testing.assert_allclose(nats_of_blocks(rows, tokens_D, np.array([1, 2, 3])), [[2, 6, 7], [0, 2, 8]])
    np.testing.assert_allclose(nats_of_blocks(rows, tokens_D, np.array([2, 3])), [[8, 7], [2, 8]])
    np.testing.assert_allclose(nats_of_blocks(rows, tokens_D, np.array([3])), [[15], [10]])


def folder_of(tmp_path, kind: str) -> str:
    folder = tmp_path / kind
    folder.mkdir()
    if kind == "jsonl":
        write_jsonl(folder / "a.jsonl", TEXTS[:25])
        lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[25:])
        (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), folder / "a.parquet")
    else:
        for number, text in enumerate(TEXTS):
            (folder / f"{number:02d}.txt").write_text(text)
    return str(folder)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text"])
def test_a_folder_or_glob_or_file_is_read_by_its_kind(tmp_path, kind):
    folder = folder_of(tmp_path, kind)
    assert source_of(folder) is source_of(f"{folder}/*") is CorpusSource(kind)
    corpus = read_corpus("mine", folder, "text", [BYTES], 0)
    kept = [text if kind != "text" else text.strip("\n") for text in TEXTS]
    assert BYTES.decode(corpus.encoded[BYTES.hash].ids) == "".join(kept)
    assert corpus.bytes_D.tolist() == [len(text.encode()) for text in kept]
    (tmp_path / kind / "z.parquet").touch()
    (tmp_path / kind / "z.txt").touch()
    with pytest.raises(ValueError, match="must be files of one kind: name one of them with a glob"):
        source_of(folder)


def test_repeated_documents_are_kept(tmp_path):
    """A test set is scored as it is. The preparation of training data takes each document once."""
    path = write_jsonl(tmp_path / "a.jsonl", ["same", "same", "other"])
    assert read_corpus("a", path, "text", [BYTES], 0).encoded[BYTES.hash].tokens_D.tolist() == [5, 5, 6]


def test_all_tokenizers_read_the_same_first_documents(tmp_path):
    path, other = write_jsonl(tmp_path / "a.jsonl", TEXTS), JsonTokenizer(byte_level(texts(300)).encode())
    sizes_D = BYTES.encode_batch(TEXTS)[1]
    for most in (300, 1000, int(sizes_D.sum())):
        corpus = read_corpus("a", path, "text", [other, BYTES, BYTES], most)
        count = len(corpus.bytes_D)
        assert count == np.searchsorted(sizes_D.cumsum(), most, "right"), "bytes need the most tokens"
        for tokenizer in (BYTES, other):
            ids, counts = tokenizer.encode_batch(TEXTS[:count])
            np.testing.assert_array_equal(corpus.encoded[tokenizer.hash].ids, ids)
            np.testing.assert_array_equal(corpus.encoded[tokenizer.hash].tokens_D, counts)
    with pytest.raises(ValueError, match=r"--max-tokens = 3: must be at least \d+, the first document of a"):
        read_corpus("a", path, "text", [BYTES], 3)


@pytest.mark.parametrize("text", ["", "wiki", "=path", "wiki=", " =path"])
def test_a_corpus_without_name_or_path_is_refused(text):
    with pytest.raises(ValueError, match="must be NAME=PATH"):
        parse_corpus(text)
    assert parse_corpus("wiki=a=b.txt") == ("wiki", "a=b.txt")


def score(rate: float, draws: int, blocks: int = 12, seed: int = 0) -> Score:
    make = np.random.default_rng(seed)
    tokens_G = make.integers(50, 90, blocks)
    return Score(tokens_G * (rate + 0.1 * make.normal(size=(draws, blocks))), tokens_G, 4 * tokens_G)


def row(name: str, one: Score, first: Score, **changes) -> TableRow:
    fixed = {"corpus": "wiki", "family": "mdm", "kind": "nelbo", "seq_len": 64, "tokenizer_hash": "a", "documents": 40}
    sizes = {"blocks": len(one.tokens_G), "tokens": int(one.tokens_G.sum()), "bytes": int(one.bytes_G.sum())}
    columns: dict[str, Any] = fixed | sizes | measures(one, first) | changes
    return TableRow(model=name, **columns)


def test_measures_are_one_ratio_in_three_units_and_the_difference_is_paired():
    one, other = score(2.0, 8), score(2.5, 8)  # the same draws: only the rate differs
    found = measures(other, one)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))
    assert found["perplexity_se_data"] == pytest.approx(found["perplexity"] * found["nats_per_token_se_data"])
    assert found["bits_per_byte"] == pytest.approx(found["nats_per_token"] / math.log(2) / 4)
    assert found["difference"] == pytest.approx(0.5 / math.log(2) / 4)
    assert found["difference_se_mc"] == pytest.approx(0, abs=1e-12)
    assert found["bits_per_byte_se_mc"] > 1e-4
    exact = measures(score(2.0, 1), score(2.5, 8))
    assert exact["bits_per_byte_se_mc"] == 0 < exact["difference_se_mc"]
    assert measures(score(2000.0, 1), one)["perplexity"] == math.inf


def test_the_table_marks_bounds_and_says_what_cannot_be_compared():
    first, other = score(2.0, 1), score(2.5, 8)
    arm = row("arm", first, first, family="arm", kind=kind_of(Family.ARM, Likelihood.LEFT_TO_RIGHT))
    alike = as_text([arm, row("mdm", other, first)])
    assert "arm    arm     nll" in alike
    assert "nelbo       " in alike
    assert "≤ 2.5" in alike
    assert "(reference)" in alike
    assert "tokenizers differ" not in alike
    unlike = as_text([arm, row("mdm", other, first, tokenizer_hash="b", seq_len=128)])
    assert "The tokenizers differ: nats per token and perplexity cannot be compared between these models." in unlike
    assert "The rows have 64 to 128 tokens" in unlike
    few = as_text([row("exact", score(2.0, 1, blocks=1), score(2.0, 1, blocks=1), kind="left_to_right")])
    assert "± -" in few
    assert "≤" not in few
    assert "Fewer than 10 blocks in wiki" in few


def test_the_csv_has_every_column_and_an_empty_cell_for_what_is_unknown():
    rows = [row("a", score(2.0, 8), score(2.0, 8)), row("b", score(2.0, 1, blocks=1), score(2.0, 1, blocks=1))]
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert list(read[0]) == [field.name for field in dataclasses.fields(TableRow)]
    assert float(read[0]["perplexity"]) == rows[0].perplexity
    assert read[1]["perplexity_se_data"] == ""


def test_a_corpus_whose_name_begins_like_a_formula_is_text_in_a_spreadsheet():
    score_2 = score(2.0, 8)
    named = dataclasses.replace(row("=a", score_2, score_2), corpus="+1")
    (read,) = csv.DictReader(io.StringIO(as_csv([named])))
    assert (read["model"], read["corpus"]) == ("'=a", "'+1")
