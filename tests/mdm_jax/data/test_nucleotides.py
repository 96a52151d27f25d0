"""Nucleotides: their ids, and the reverse complement of half of the training rows."""

import dataclasses

import numpy as np
import pytest
import tokenizers
from smdm_files import random_weights

from mdm_jax import load
from mdm_jax.data.corpus import TextRows, TrainingRows, reads_other_strand
from mdm_jax.data.nucleotides import NucleotideTokenizer, reverse_complement
from mdm_jax.data.store import TokenStore
from mdm_jax.data.tokenizer import make_tokenizer, open_tokenizer
from mdm_jax.interop.hf.tokenizer import tokenizer_files
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, DataSpec, ModelSpec, RunSpec, TokenizerKind, TokenizerSpec

OURS = NucleotideTokenizer()
SPEC = TokenizerSpec(TokenizerKind.NUCLEOTIDES, 6)
EOS = 5


def test_ids_letters_and_ends():
    assert OURS.encode("ACGTNacgtnUuRv").tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 3, 3, 4, 4]
    ids, lengths = OURS.encode_batch(["AC", "", "T"])
    assert (ids.tolist(), lengths.tolist()) == ([0, 1, EOS, EOS, 3, EOS], [3, 1, 2])
    assert (OURS.decode(ids), OURS.text_bytes(ids)) == ("ACT", 3)
    assert OURS.encode_batch([])[0].tolist() == []
    assert make_tokenizer(SPEC).hash == open_tokenizer("", TokenizerKind.NUCLEOTIDES).hash == OURS.hash
    assert OURS.hash != open_tokenizer("").hash


@pytest.mark.parametrize(("text", "said"), [("AC GT", "character 3, ' '"), ("漢A", "character 1, '漢'"), ("E", "'E'")])
def test_other_characters_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        OURS.encode(text)


@pytest.mark.parametrize("starts", [True, False])
def test_the_exported_json_gives_the_same_ids(starts):
    model = ModelSpec(1, 16, 2, 24, 6, Attention.CAUSAL if starts else Attention.BIDIRECTIONAL)
    files = tokenizer_files(OURS, model, True, 16)
    exported = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    text = "ACGTNacgtnUuRyswkmbdhv"
    assert exported.encode(text).ids == [6] * starts + OURS.encode(text).tolist()
    assert exported.decode(OURS.encode("GATTACAN").tolist()) == "GATTACAN"
    assert [exported.id_to_token(i) for i in (EOS, 6)] == ["<|endoftext|>", "<|start|>" if starts else "<|mask|>"]


def test_the_tokenizer_travels_with_a_hugging_face_folder(tmp_path):
    spec = ModelSpec(1, 16, 2, 24, 6, Attention.CAUSAL)
    write_smdm(tmp_path / "dna", random_weights(spec), spec, 8, True)
    model = load(tmp_path / "dna")
    assert isinstance(model.tokenizer, NucleotideTokenizer)
    model.export_hf(tmp_path / "folder")
    assert isinstance(load(tmp_path / "folder").tokenizer, NucleotideTokenizer)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 100])
def test_the_reverse_complement_twice_is_the_row(length):
    row = np.random.default_rng(length).integers(0, 6, length).astype(np.int32)
    other = reverse_complement(row)
    np.testing.assert_array_equal(reverse_complement(other), row)
    assert (other.dtype, np.count_nonzero(other == EOS)) == (row.dtype, np.count_nonzero(row == EOS))


def test_the_reverse_complement_by_hand():
    """Documents change places around their EOS, and each is reversed and complemented by itself."""
    ids, _ = OURS.encode_batch(["AACGN", "GGT"])
    other = reverse_complement(ids)
    assert other[0] == EOS
    documents = np.split(other[1:], np.flatnonzero(other[1:] == EOS))
    assert [OURS.decode(document) for document in documents] == ["ACC", "NCGTT"]
    assert reverse_complement(OURS.encode("ACG").astype(np.uint16)).tolist() == OURS.encode("CGT").tolist()


class Tokens(TokenStore):
    """Tokens in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def tokens(self, start: int, length: int) -> np.ndarray:
        return self._ids[start : start + length]


@pytest.fixture(scope="module")
def rows() -> TrainingRows:
    """500 different rows of 12 tokens, in batches of 8."""
    ids = np.random.default_rng(0).integers(0, 6, 6000).astype(np.uint16)
    return TrainingRows(TextRows(Tokens(ids), 12), 8, 3, True)


def test_half_of_the_rows_are_read_from_the_other_strand(rows):
    """Each row is the plain one or its reverse complement, as the hash of seed and position says."""
    plain, flipped = dataclasses.replace(rows, both_strands=False), 0
    for step in range(200):
        for got, row, i in zip(rows.read(step, 0, 8), plain.read(step, 0, 8), range(8), strict=True):
            other = reads_other_strand(step * 8 + i, 3)
            np.testing.assert_array_equal(got, reverse_complement(row) if other else row)
            flipped += other
    assert abs(flipped - 800) < 4 * 20  # four standard deviations of 1600 fair coins


def test_a_row_s_strand_depends_on_seed_step_and_row_alone(rows):
    whole = rows.read(70, 0, 8)
    for first, last in ((5, 8), (0, 1), (1, 5)):
        np.testing.assert_array_equal(rows.read(70, first, last), whole[first:last])
    larger = dataclasses.replace(rows, global_batch=16)
    np.testing.assert_array_equal(larger.read(35, 0, 8), whole)
    strands = np.array([[reads_other_strand(i, seed) for i in range(2000)] for seed in (3, 4)])
    assert 0.4 < (strands[0] == strands[1]).mean() < 0.6
    epochs = strands[0].reshape(4, 500)  # a row is not read from the same strand in every epoch
    assert 0.4 < (epochs[0] == epochs[1]).mean() < 0.6


def test_the_field_changes_the_run_only_where_it_is_set():
    model = ModelSpec(vocab_size=6)
    plain, both = (RunSpec(model, data=DataSpec(tokenizer=SPEC, reverse_complement=one)) for one in (False, True))
    assert plain.run_id != both.run_id
    assert RunSpec().run_id == RunSpec(data=DataSpec(reverse_complement=False)).run_id
    with pytest.raises(ValueError, match=r"data\.reverse_complement = True: must be false unless"):
        DataSpec(reverse_complement=True)
    with pytest.raises(ValueError, match=r"vocab_size = 257: must be 6 for nucleotides"):
        TokenizerSpec(TokenizerKind.NUCLEOTIDES)
