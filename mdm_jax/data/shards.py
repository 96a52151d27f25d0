"""Writes the shards of a split: flat little-endian ids, and a second file with the SHA-256 of each block.

`train-00000.bin.sums` has 32 bytes for each 64 KiB of `train-00000.bin`, so that a run can verify only the blocks that
it reads.
"""

import hashlib
import os
from typing import IO

import numpy as np
from jaxtyping import Integer

from mdm_jax.data.manifest import BLOCK_BYTES, Shard, Split, sums_file
from mdm_jax.files.storage import Path, write_atomic

SHARD_TOKENS = 1 << 26


class ShardWriter:
    """Writes one split: `train-00000.bin`, `train-00001.bin`, …, each of at most `shard_tokens` ids."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int = SHARD_TOKENS) -> None:
        self._folder, self._name, self._shard_tokens = folder, split, shard_tokens
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shards: list[Shard] = []
        self._file: IO[bytes] | None = None
        self._begin()
        self._documents = self._text_bytes = 0

    def _begin(self) -> None:
        self._held, self._digest, self._sums, self._unsummed = 0, hashlib.sha256(), bytearray(), bytearray()

    def add(self, ids: Integer[np.ndarray, "tokens"], text_bytes: int, documents: int = 1) -> None:
        """Appends the ids of whole documents. A document may continue in the next shard."""
        self._documents += documents
        self._text_bytes += text_bytes
        stored = ids.astype(self._dtype, copy=False)
        while len(stored):
            room = self._shard_tokens - self._held
            self._write(stored[:room].tobytes(), len(stored[:room]))
            stored = stored[room:]

    def _write(self, raw: bytes, tokens: int) -> None:
        if self._file is None:
            self._file = (self._folder / self._file_name()).open("wb")
        self._file.write(raw)
        self._digest.update(raw)
        self._unsummed += raw
        self._sum_blocks(len(self._unsummed) // BLOCK_BYTES * BLOCK_BYTES)
        self._held += tokens
        if self._held == self._shard_tokens:
            self._close()

    def _sum_blocks(self, stop: int) -> None:
        """Hashes the first `stop` bytes of those that have no hash yet, block by block."""
        with memoryview(self._unsummed) as rest:
            for start in range(0, stop, BLOCK_BYTES):
                self._sums += hashlib.sha256(rest[start : min(start + BLOCK_BYTES, stop)]).digest()
        del self._unsummed[:stop]

    def _file_name(self) -> str:
        return f"{self._name}-{len(self._shards):05d}.bin"

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._sum_blocks(len(self._unsummed))
            name, size = self._file_name(), self._held * self._dtype.itemsize
            write_atomic(self._folder / sums_file(name), bytes(self._sums))
            sums = hashlib.sha256(self._sums).hexdigest()
            self._shards.append(Shard(name, self._held, size, self._digest.hexdigest(), sums))
        self._file = None
        self._begin()

    def close(self) -> None:
        """Closes the file of an unfinished shard, after an error."""
        if self._file is not None:
            self._file.close()

    def finish(self) -> Split:
        """The counts and shards of the split.

        Raises:
            ValueError: the split has no document.
        """
        self._close()
        if not self._shards:
            more = "give more text or change validation_fraction; a text file is cut into documents at blank lines,"
            raise ValueError(f"the {self._name} split has no document: {more} --corpus passages cuts it without them")
        return Split(sum(s.tokens for s in self._shards), self._documents, self._text_bytes, tuple(self._shards))
