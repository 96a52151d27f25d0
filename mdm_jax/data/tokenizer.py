"""Tokenizers: bytes, nucleotides, sentencepiece trained here, an existing sentencepiece model, and a `tokenizer.json`.

A tokenizer gives ids below `vocab_size`. `eos_id` never stands for text. `hash` is the SHA-256 (hex) of everything that
decides the ids. `model` is the content of the tokenizer's file, empty for bytes and nucleotides. `keeps_text` says
whether `text_bytes` counts the bytes of the text that was encoded. Training depends only on the documents: it uses one
thread, no sampling, and no normalisation, so that decoding returns the text.
"""

import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import sentencepiece
from jaxtyping import Int32, Int64, Integer

from mdm_jax.data.manifest import Manifest, tokenizer_file
from mdm_jax.data.nucleotides import NucleotideTokenizer
from mdm_jax.data.tokenizer_json import MOST_JSON_BYTES, JsonTokenizer, decoded_bytes
from mdm_jax.files.storage import Path, as_path, is_file
from mdm_jax.spec import BYTES_VOCAB_SIZE, TokenizerKind, TokenizerSpec
from mdm_jax.spec.validation import require

BYTES_EOS = 256
MOST_MODEL_BYTES = 256 << 20
TRAINING_BYTES = 64 << 20
TRAINING_PIECE_CHARACTERS = 4096


class ByteTokenizer:
    """UTF-8: ids 0-255 are bytes and 256 is EOS."""

    vocab_size = BYTES_VOCAB_SIZE
    eos_id = BYTES_EOS
    hash = hashlib.sha256(b"mdm-jax bytes 257").hexdigest()
    model = b""
    keeps_text = True

    def encode(self, text: str) -> Int32[np.ndarray, "tokens"]:
        """The ids of a text, without EOS: its UTF-8 bytes."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def encode_batch(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """The ids of all texts in one array, with EOS after each text; and the number of ids of each text, with EOS."""
        contents = [text.encode() for text in texts]  # the byte 0xff, which UTF-8 never has, marks the ends
        ids = np.frombuffer(b"".join(content + b"\xff" for content in contents), np.uint8).astype(np.int32)
        ids[ids == 0xFF] = BYTES_EOS
        return ids, np.array([len(content) + 1 for content in contents], np.int64)

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> str:
        """The text of ids, without EOS. Bytes that are not UTF-8, as in a cut character, become U+FFFD."""
        return ids[ids < BYTES_EOS].astype(np.uint8).tobytes().decode(errors="replace")

    def text_bytes(self, ids: Integer[np.ndarray, "tokens"]) -> int:
        """The number of UTF-8 bytes of the ids' text: one for each id, none for EOS."""
        return int(np.count_nonzero(ids < BYTES_EOS))


class SentencePieceTokenizer:
    """A sentencepiece model. If it has no EOS, EOS is the id after its last piece.

    The model's own normalisation applies. A model trained here has none, and changes only U+2581, which sentencepiece
    uses for blanks.
    """

    keeps_text = True

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.hash = hashlib.sha256(model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._pieces, eos = self._processor.get_piece_size(), self._processor.eos_id()
        self.eos_id = eos if eos >= 0 else self._pieces
        self.vocab_size = self._pieces if eos >= 0 else self._pieces + 1

    def encode(self, text: str) -> Int32[np.ndarray, "tokens"]:
        """The ids of a text, without EOS."""
        return np.asarray(self._processor.encode(text), np.int32)

    def encode_batch(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """The same as `ByteTokenizer.encode_batch`."""
        parts = [[*self._processor.encode(text), self.eos_id] for text in texts]
        ids = np.fromiter(itertools.chain.from_iterable(parts), np.int32)
        return ids, np.array([len(part) for part in parts], np.int64)

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> str:
        """The text of ids, without EOS."""
        return self._processor.decode([int(i) for i in ids if i != self.eos_id])

    def text_bytes(self, ids: Integer[np.ndarray, "tokens"]) -> int:
        """The number of UTF-8 bytes of the documents as `decode` gives them, after the model's own normalisation.

        See `decoded_bytes`.
        """
        return decoded_bytes(ids, self.eos_id, self._is_byte, self.decode)

    def _is_byte(self, number: int) -> bool:
        return number < self._pieces and self._processor.is_byte(number)


Tokenizer = ByteTokenizer | NucleotideTokenizer | SentencePieceTokenizer | JsonTokenizer
WITHOUT_FILE = {TokenizerKind.BYTES: ByteTokenizer, TokenizerKind.NUCLEOTIDES: NucleotideTokenizer}
"""The tokenizers that need no file."""


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> bytes:
    """The model of a BPE with byte fallback, trained on `texts`. The same texts give the same model.

    Raises:
        ValueError: the texts have too few pieces for the vocabulary, or it is too small for the 256 bytes.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_pieces(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            num_threads=1,
            max_sentence_length=8 * TRAINING_PIECE_CHARACTERS,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        message = str(error).splitlines()[-1]
        raise ValueError(
            f"data.tokenizer.vocab_size = {vocab_size}: sentencepiece cannot train it: {message}"
        ) from None
    return model.getvalue()


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for start in range(0, len(text), TRAINING_PIECE_CHARACTERS):
            yield text[start : start + TRAINING_PIECE_CHARACTERS]


def make_tokenizer(spec: TokenizerSpec, texts: Iterable[str] = (), padded: bool = False) -> Tokenizer:
    """The tokenizer that a spec describes; a new sentencepiece model is trained on `texts`.

    Args:
        spec: kind, file and vocabulary.
        texts: for training.
        padded: a `tokenizer.json` may have fewer ids than the vocabulary, or special tokens above it that stand for no
            text, as those of published models do.

    Raises:
        ValueError: the file is absent or no tokenizer, its vocabulary is not the spec's, or training failed.
    """
    if spec.kind in WITHOUT_FILE:
        return WITHOUT_FILE[spec.kind]()
    if spec.kind is TokenizerKind.SENTENCEPIECE:
        return SentencePieceTokenizer(train_sentencepiece(texts, spec.vocab_size))
    path = as_path(spec.path)
    tokenizer = _read_json(path) if spec.kind is TokenizerKind.TOKENIZER_JSON else _read_model(path)
    if padded and isinstance(tokenizer, JsonTokenizer):
        largest, bound = tokenizer.largest_text_id, f"below {spec.vocab_size}, the vocabulary"
        require(largest < spec.vocab_size, f"{spec.path}: largest id of text", largest, bound)
    elif tokenizer.vocab_size != spec.vocab_size:
        bound = f"must be {tokenizer.vocab_size}, the ids of {spec.path} with EOS"
        raise ValueError(f"data.tokenizer.vocab_size = {spec.vocab_size}: {bound}")
    return tokenizer


def open_tokenizer(model: str, kind: TokenizerKind = TokenizerKind.BYTES) -> Tokenizer:
    """The tokenizer of a file: a `….json`, or else a sentencepiece model. An empty path gives one that needs no file.

    Args:
        model: path of the file, or empty.
        kind: the tokenizer of an empty path: bytes or nucleotides. A file is known by its ending.

    Raises:
        ValueError: the file is absent or no tokenizer.
    """
    if not model:
        return WITHOUT_FILE[kind]()
    path = as_path(model)
    return _read_json(path) if path.suffix == ".json" else _read_model(path)


def load_tokenizer(directory: str | os.PathLike, manifest: Manifest) -> Tokenizer:
    """The tokenizer of a prepared corpus.

    Raises:
        ValueError: the tokenizer's file is absent or corrupt.
    """
    kind = manifest.tokenizer.kind
    path = as_path(directory) / tokenizer_file(kind)
    tokenizer = open_tokenizer("" if kind in WITHOUT_FILE else str(path), kind)
    if tokenizer.hash != manifest.tokenizer_hash:
        raise ValueError(f"{path}: corrupt (sha256 {tokenizer.hash[:12]}, not {manifest.tokenizer_hash[:12]})")
    return tokenizer


def _read_model(path: Path) -> SentencePieceTokenizer:
    if not is_file(path):
        raise ValueError(f"{path}: no such tokenizer model")
    if path.stat().length > MOST_MODEL_BYTES:
        raise ValueError(f"{path}: {path.stat().length} bytes: not a sentencepiece model (over 256 MiB)")
    model = path.read_bytes()
    try:
        if model:  # sentencepiece would read an empty file as a model without pieces
            return SentencePieceTokenizer(model)
    except RuntimeError:
        pass
    raise ValueError(f"{path}: not a sentencepiece model, or corrupt")


def _read_json(path: Path) -> JsonTokenizer:
    if not is_file(path):
        raise ValueError(f"{path}: no such tokenizer")
    length = path.stat().length  # checked before anything is read
    require(length <= MOST_JSON_BYTES, f"{path}: bytes", length, "at most 128 MiB for a tokenizer.json")
    try:
        return JsonTokenizer(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
