"""Builds the shards of a corpus: documents to ids, split by the hash of their content, into flat little-endian files.

A document's split depends on its own text alone, so adding documents moves no other. EOS ends each document.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import numpy as np
from jaxtyping import Int32

from mdm_jax.data.corpus import documents
from mdm_jax.data.tokenizer import TRAINING_BYTES, Tokenizer, make_tokenizer
from mdm_jax.manifest import SPLITS, TOKENIZER_FILE, Manifest, Shard, Split, data_hash, write_manifest
from mdm_jax.spec import DataSpec, TokenizerKind
from mdm_jax.storage import Path

SHARD_TOKENS = 1 << 26
REPORT_EVERY = 500


def in_validation(text: str, fraction: float) -> bool:
    """Whether a document belongs to the validation split."""
    first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return first < fraction * 2.0**64


class ShardWriter:
    """Writes one split: `train-00000.bin`, `train-00001.bin`, …, each of at most `shard_tokens` ids."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int = SHARD_TOKENS) -> None:
        self._folder, self._name, self._most = folder, split, shard_tokens
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shards: list[Shard] = []
        self._file: IO[bytes] | None = None
        self._held, self._digest = 0, hashlib.sha256()
        self._documents = self._text_bytes = 0

    def add(self, ids: Int32[np.ndarray, "tokens"], text_bytes: int) -> None:
        """Appends one document's ids; a document may go on in the next shard."""
        self._documents += 1
        self._text_bytes += text_bytes
        stored = ids.astype(self._dtype)
        while len(stored):
            room = self._most - self._held
            self._write(stored[:room].tobytes(), len(stored[:room]))
            stored = stored[room:]

    def _write(self, raw: bytes, tokens: int) -> None:
        if self._file is None:
            self._file = (self._folder / self._file_name()).open("wb")
        self._file.write(raw)
        self._digest.update(raw)
        self._held += tokens
        if self._held == self._most:
            self._close()

    def _file_name(self) -> str:
        return f"{self._name}-{len(self._shards):05d}.bin"

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            size = self._held * self._dtype.itemsize
            self._shards.append(Shard(self._file_name(), self._held, size, self._digest.hexdigest()))
        self._file, self._held, self._digest = None, 0, hashlib.sha256()

    def finish(self) -> Split:
        """The counts and shards of the split.

        Raises:
            ValueError: no document fell into it.
        """
        self._close()
        if not self._shards:
            raise ValueError(f"the {self._name} split has no document: give more text or change validation_fraction")
        return Split(sum(s.tokens for s in self._shards), self._documents, self._text_bytes, tuple(self._shards))


def build_shards(
    data: DataSpec, folder: Path, report: Callable[[int, int], None], shard_tokens: int = SHARD_TOKENS
) -> Manifest:
    """Writes shards, tokenizer and, last, the manifest into an empty folder.

    Raises:
        ValueError: the corpus is absent, corrupt or too small for its splits, or the tokenizer is bad.
    """
    texts, fraction = documents(data.corpus), data.validation_fraction
    sample: list[str] = []
    if data.tokenizer.kind is TokenizerKind.SENTENCEPIECE:
        sample = _sample(texts)
    tokenizer = make_tokenizer(data.tokenizer, (text for text in sample if not in_validation(text, fraction)))
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    writers = {name: ShardWriter(folder, name, dtype, shard_tokens) for name in SPLITS}
    _write_all(itertools.chain(sample, texts), fraction, tokenizer, writers, report)
    train, validation = (writers[name].finish() for name in SPLITS)
    if tokenizer.model:
        (folder / TOKENIZER_FILE).write_bytes(tokenizer.model)
    manifest = Manifest(
        corpus=data.corpus,
        tokenizer=data.tokenizer,
        validation_fraction=fraction,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        dtype=dtype,
        tokenizer_hash=tokenizer.hash,
        data_hash=data_hash(tokenizer.hash, train, validation),
        train=train,
        validation=validation,
    )
    write_manifest(folder, manifest)
    return manifest


def _write_all(
    texts: Iterable[str],
    fraction: float,
    tokenizer: Tokenizer,
    writers: dict[str, ShardWriter],
    report: Callable[[int, int], None],
) -> None:
    total = 0
    for count, text in enumerate(texts, 1):
        size = len(text.encode())
        total += size
        ids = np.append(tokenizer.encode(text), np.int32(tokenizer.eos_id))
        writers["validation" if in_validation(text, fraction) else "train"].add(ids, size)
        if count % REPORT_EVERY == 0:
            report(count, total)


def _sample(texts: Iterator[str]) -> list[str]:
    """The first documents, as many as a tokenizer is trained on; they are taken off the iterator."""
    taken, size = [], 0
    for text in texts:
        taken.append(text)
        size += len(text.encode())
        if size >= TRAINING_BYTES:
            break
    return taken
