"""Tokenizers give the text back, end documents with an id of their own, and are the same whenever they are trained."""

import io
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
from small_corpus import documents, prepared, texts

from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.tokenizer import (
    ByteTokenizer,
    SentencePieceTokenizer,
    load_tokenizer,
    make_tokenizer,
    train_sentencepiece,
)
from mdm_jax.spec import CorpusSpec, TokenizerKind, TokenizerSpec

AWKWARD = [
    "",
    " ",
    "plain words",
    "  indented\n\tand\ttabbed\r\n\n\n   x  ",
    "größe 漢字 😀 \u0301 \x00 \ufeff \u2028",
    "</s><s><unk><0x41>",
    "½ ﬁ Å K",  # what NFKC would change
    "def f(x):\n    return x ** 2  # 1234567890\n",
]


@pytest.fixture(scope="module")
def corpus():
    return documents(CorpusSpec(max_bytes=200_000))


@pytest.fixture(scope="module")
def model(corpus):
    return train_sentencepiece(corpus, 600)


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def tokenizer(request):
    return ByteTokenizer() if request.param == "bytes" else SentencePieceTokenizer(request.getfixturevalue("model"))


def test_decoding_gives_the_text_back(tokenizer, corpus):
    for text in AWKWARD + corpus:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(np.append(ids, tokenizer.eos_id)) == text


def test_text_never_holds_eos(tokenizer, corpus):
    for text in AWKWARD + corpus:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert tokenizer.eos_id not in ids
        assert np.all((ids >= 0) & (ids < tokenizer.vocab_size))
    assert 0 <= tokenizer.eos_id < tokenizer.vocab_size


def test_bytes_are_utf8():
    assert ByteTokenizer().encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert ByteTokenizer().decode(np.array([97, 0xC3, 256, 98])) == "a\ufffdb"


def with_dummy_prefix() -> bytes:
    """A model with sentencepiece's defaults: blanks collapse, and a document is given a blank before it."""
    model = io.BytesIO()
    settings = {"model_type": "unigram", "vocab_size": 320, "byte_fallback": True, "minloglevel": 2}
    sentence_iterator = iter(texts(200))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=sentence_iterator, model_writer=model, **settings)
    return model.getvalue()


@pytest.mark.parametrize("make", [ByteTokenizer, None, with_dummy_prefix])
def test_text_bytes_are_those_of_the_decoded_documents(model, corpus, make):
    made = ByteTokenizer() if make is ByteTokenizer else SentencePieceTokenizer(make() if make else model)
    documents = [made.encode(text) for text in (*AWKWARD, *corpus[:20])]
    ids = np.concatenate([np.append(document, made.eos_id) for document in documents])
    decoded = [len(made.decode(document).encode()) for document in documents]
    assert made.text_bytes(ids) == sum(decoded)
    if make is not with_dummy_prefix:
        assert sum(decoded) == sum(len(text.encode()) for text in (*AWKWARD, *corpus[:20]))
    assert made.text_bytes(ids[:0]) == made.text_bytes(np.array([made.eos_id])) == 0
    cut = made.encode("a😀")  # four ids of one byte each end the text
    assert [made.text_bytes(cut[: len(cut) - n]) for n in range(4)] == [5, 4, 3, 2]


def test_pieces_are_shorter_than_bytes(model, corpus):
    tokenizer = SentencePieceTokenizer(model)
    assert tokenizer.vocab_size == 600
    assert sum(len(tokenizer.encode(t)) for t in corpus) < 0.7 * sum(len(t.encode()) for t in corpus)


def test_training_again_in_another_process_gives_the_same_model(model):
    code = (
        "import hashlib; from mdm_jax.data.sources.pieces import labelled; from mdm_jax.spec import CorpusSpec;"
        "from mdm_jax.data.tokenizer import train_sentencepiece;"
        "texts = (document.text for document in labelled(CorpusSpec(max_bytes=200_000), 0.02));"
        "print(hashlib.sha256(train_sentencepiece(texts, 600)).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == SentencePieceTokenizer(model).hash


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_a_vocabulary_that_cannot_be_trained_is_named(size):
    with pytest.raises(ValueError, match=rf"data\.tokenizer\.vocab_size = {size}: sentencepiece cannot train it: "):
        train_sentencepiece(texts(20), size)


def test_a_model_file_is_read_and_its_vocabulary_checked(tmp_path, model):
    path = tmp_path / "mine.model"
    path.write_bytes(model)
    spec = TokenizerSpec(TokenizerKind.SENTENCEPIECE_FILE, 600, str(path))
    assert make_tokenizer(spec).hash == SentencePieceTokenizer(model).hash
    wrong = TokenizerSpec(TokenizerKind.SENTENCEPIECE_FILE, 601, str(path))
    with pytest.raises(ValueError, match=r"data\.tokenizer\.vocab_size = 601: must be 600, the ids of "):
        make_tokenizer(wrong)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\xff" * 1000])
def test_what_is_no_model_is_named(tmp_path, content):
    path = tmp_path / "mine.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.model: (no such|not a)"):
        make_tokenizer(TokenizerSpec(TokenizerKind.SENTENCEPIECE_FILE, 600, str(path)))


def test_a_prepared_folder_gives_its_tokenizer_back(tmp_path):
    data = prepared(tmp_path, tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 300))
    manifest = read_manifest(data.directory)
    tokenizer = load_tokenizer(data.directory, manifest)
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (manifest.vocab_size, manifest.eos_id) == (300, 1)
    path = tmp_path / "prepared" / "tokenizer.model"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"tokenizer\.model: (corrupt|not a sentencepiece model)"):
        load_tokenizer(data.directory, manifest)
