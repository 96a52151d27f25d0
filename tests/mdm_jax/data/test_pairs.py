"""Pairs of prompt and response: the rows are what the file says, whatever the tokenizer, and bad records are named."""

import dataclasses
import json

import numpy as np
import pytest
from pair_corpus import prepared_pairs, sums, write_pairs

from mdm_jax.data.corpus import Corpus, open_corpus
from mdm_jax.data.manifest import Manifest
from mdm_jax.data.pairs import find_pairs, pair_ids, scored_ids
from mdm_jax.data.prepare import main, prepare
from mdm_jax.data.sources.pieces import labelled
from mdm_jax.data.store import open_split
from mdm_jax.data.tokenizer import ByteTokenizer
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec, TokenizerKind, TokenizerSpec

V, EOS = 257, 256
BATCH = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataSpec:
    return prepared_pairs(tmp_path_factory.mktemp("pairs"))


def texts_of(corpus: Corpus, row_L: np.ndarray) -> tuple[str, str]:
    """The prompt and the response of a row, which must be prompt, response, EOS and padding."""
    padded = corpus.manifest.vocab_size
    prompt, rest = -1 - row_L[row_L < 0], row_L[(row_L >= 0) & (row_L < padded)]
    layout = np.select([row_L < 0, row_L < padded], [0, 1], 2)
    assert (np.diff(layout) >= 0).all()
    assert (rest == corpus.manifest.eos_id).sum() == 1
    assert rest[-1] == corpus.manifest.eos_id
    return corpus.tokenizer.decode(prompt), corpus.tokenizer.decode(rest)


def all_pairs(corpus: Corpus) -> list[tuple[str, str]]:
    rows = [split.row(i) for split in (corpus.train_pairs, corpus.validation_pairs) for i in range(len(split))]
    return [texts_of(corpus, row_L) for row_L in rows]


def test_every_pair_is_in_one_split_and_comes_back(data):
    corpus = open_corpus(data)
    written = [(pair["prompt"], pair["response"]) for pair in sums(60)]
    assert sorted(all_pairs(corpus)) == sorted(written)
    assert min(len(corpus.train_pairs), len(corpus.validation_pairs)) > 5
    assert corpus.left_out_messages == ()
    assert corpus.unique_tokens == len(corpus.train_pairs) * 16
    assert corpus.manifest.positions("train", 16) == corpus.unique_tokens
    counted = sum(len(prompt) + len(response) for prompt, response in written)
    assert corpus.manifest.train.text_bytes + corpus.manifest.validation.text_bytes == counted


def test_an_epoch_gives_each_pair_once_and_batches_do_not_depend_on_where_reading_started(data):
    corpus = open_corpus(data)
    rows = corpus.training_rows(BATCH, seed=3)
    assert rows.shape == (BATCH, 16)
    steps = len(corpus.train_pairs) // BATCH + 1
    read = np.concatenate([rows.read(step, 0, BATCH) for step in range(steps)])
    epoch = [bytes(row_L) for row_L in read[: len(corpus.train_pairs)]]
    assert sorted(epoch) == sorted(bytes(corpus.train_pairs.row(i)) for i in range(len(corpus.train_pairs)))
    again = open_corpus(data).training_rows(BATCH, seed=3)
    np.testing.assert_array_equal(again.read(steps - 1, 3, 5), read[-BATCH:][3:5])


def test_rows_filled_with_eos(data):
    filled = open_corpus(dataclasses.replace(data, eos_to_end=True)).train_pairs
    padded = open_corpus(data).train_pairs
    for i in range(len(padded)):
        np.testing.assert_array_equal(filled.row(i), np.where(padded.row(i) == V, EOS, padded.row(i)))


def test_long_pairs_are_left_out_and_counted(tmp_path):
    """A pair of exactly L tokens with its EOS stays."""
    exact, long = {"prompt": "a" * 9, "response": "b" * 6}, {"prompt": "c" * 9, "response": "d" * 7}
    corpus = open_corpus(prepared_pairs(tmp_path, [*sums(40), exact, long]))
    found = all_pairs(corpus)
    assert (exact["prompt"], exact["response"]) in found
    assert len(found) == 41
    (message,) = corpus.left_out_messages
    assert message.startswith("1 of ")
    assert "more than 16 tokens" in message
    short = dataclasses.replace(corpus.data, seq_len=2)
    with pytest.raises(ValueError, match=r"data\.seq_len = 2: must be at least \d, the tokens of the shortest pair"):
        _ = open_corpus(short).train_pairs


def test_evaluation_rows_are_the_first_pairs_and_their_bytes_are_the_responses(data):
    corpus = open_corpus(data)
    rows_SL = corpus.evaluation_rows(16 * 6 + 5)
    assert rows_SL.shape == (6, 16)
    texts = [texts_of(corpus, row_L) for row_L in rows_SL]
    assert corpus.text_bytes(rows_SL) == sum(len(response) for _, response in texts)
    whole = Corpus(dataclasses.replace(data, score_prompt=True), corpus.manifest)
    assert whole.text_bytes(rows_SL) == sum(len(prompt + response) for prompt, response in texts)
    assert len(scored_ids(rows_SL, V, False)) == corpus.text_bytes(rows_SL) + 6
    with pytest.raises(ValueError, match=r"evaluation\.eval_tokens = 16000: must be at most"):
        corpus.evaluation_rows(16000)


def test_a_repeated_pair_is_stored_once_and_a_prompt_is_in_one_split(tmp_path):
    answers = [{"prompt": f"q{i}", "response": f"r{j}"} for i in range(30) for j in range(3)]
    corpus = open_corpus(prepared_pairs(tmp_path, answers * 2))
    assert len(all_pairs(corpus)) == 90
    prompts = [{texts_of(corpus, split.row(i))[0] for i in range(len(split))} for split in both(corpus)]
    assert not prompts[0] & prompts[1]


def both(corpus: Corpus):
    return corpus.train_pairs, corpus.validation_pairs


def test_prompt_and_response_have_ids_of_their_own():
    tokenizer = ByteTokenizer()
    assert [len(ids) for ids in pair_ids(tokenizer, "ab", "c")] == [2, 1]
    assert [len(ids) for ids in pair_ids(tokenizer, "", "abc")] == [0, 3]


def test_pairs_that_differ_in_their_cut_are_both_kept(tmp_path):
    """The same bytes, cut elsewhere, are another document."""
    path = write_pairs(tmp_path / "p.jsonl", [{"prompt": "a", "response": "bc"}, {"prompt": "ab", "response": "c"}])
    found = list(labelled(CorpusSpec(CorpusSource.PAIRS, path), 0.5))
    assert [(one.prompt, one.text, one.content) for one in found] == [("a", "bc", b"abc"), ("ab", "c", b"abc")]


def test_sentencepiece_rows_decode_to_the_pairs(tmp_path):
    tokenizer = TokenizerSpec(TokenizerKind.SENTENCEPIECE, 290)
    pairs = [{"prompt": f"what is {i} ?  ", "response": f" it is {i}, and {i + 1}"} for i in range(40)]
    path = write_pairs(tmp_path / "pairs.jsonl", pairs)
    corpus = CorpusSpec(CorpusSource.PAIRS, path)
    data = DataSpec(corpus, tokenizer, 64, 0.3, str(tmp_path / "prepared"))
    prepare(data)
    assert sorted(all_pairs(open_corpus(data))) == sorted((pair["prompt"], pair["response"]) for pair in pairs)


def test_a_vocabulary_that_fills_uint16_leaves_no_room_for_the_cut(data):
    manifest = open_corpus(data).manifest
    assert manifest.ids == V + 1
    with pytest.raises(ValueError, match="at most 65536 ids for uint16"):
        dataclasses.replace(manifest, vocab_size=1 << 16)


def test_shards_that_are_not_pairs_are_refused(data):
    manifest = open_corpus(data).manifest
    text: Manifest = dataclasses.replace(manifest, eos_id=255)
    with pytest.raises(ValueError, match="are not pairs: prepare the corpus again"):
        find_pairs(open_split(data.directory, "train"), text, 16)


BAD_LINES = [
    ('{"prompt": "a"}', "no text in field 'response'; its fields: prompt"),
    ('{"prompt": null, "response": "b"}', "no text in field 'prompt'"),
    ('{"prompt": "a", "response": " \\n"}', "the response is empty"),
    ('["a", "b"]', "its fields: none: not an object"),
    ("null", "its fields: none: not an object"),
    ("{" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES)
def test_a_bad_record_is_named_with_its_line(tmp_path, capsys, line, said):
    path = tmp_path / "pairs.jsonl"
    good = [json.dumps(pair) for pair in sums(60)]
    path.write_text("\n".join([*good[:2], "", line, *good[2:]]))
    flags = ["--corpus", "pairs", "--path", str(path), "--validation-fraction", "0.3", "--out", str(tmp_path / "out")]
    assert main(flags) == 1
    message = capsys.readouterr().err
    assert said in message
    assert f"{path}: line 4: " in message
    assert len(message.strip().splitlines()) == 1
    assert main([*flags, "--skip-bad"]) == 0
    assert "train: " in capsys.readouterr().out
