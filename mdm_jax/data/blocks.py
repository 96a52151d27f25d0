"""One shard, mapped into memory. Each block is verified when it is first read."""

import hashlib
import os
from functools import cached_property

import numpy as np
from jaxtyping import Integer

from mdm_jax.data.manifest import BLOCK_BYTES, ITEM_BYTES, SUM_BYTES, Manifest, Shard, sums_file
from mdm_jax.files.storage import Path


class Blocks:
    """The tokens of a shard on a disk."""

    def __init__(self, path: Path, shard: Shard, manifest: Manifest) -> None:
        self._path, self._shard, self._ids = path, shard, manifest.ids
        self._dtype = np.dtype(manifest.dtype).newbyteorder("<")
        self._item_bytes = ITEM_BYTES[manifest.dtype]
        self._verified = bytearray(-(-shard.bytes // BLOCK_BYTES))
        """A byte for each block: 1 after this process has verified the block."""

    def __len__(self) -> int:
        return self._shard.tokens

    @cached_property
    def _array(self) -> np.ndarray:
        return np.asarray(np.memmap(os.fspath(self._local_file()), self._dtype, "r", shape=(len(self),)))

    @cached_property
    def _sums(self) -> bytes:
        """The hashes of the blocks, end to end."""
        sums = self._sums_content()
        if hashlib.sha256(sums).hexdigest() != self._shard.sums_sha256 or len(sums) != SUM_BYTES * len(self._verified):
            raise ValueError(f"{sums_file(str(self._path))}: corrupt: prepare or copy it again")
        return sums

    def _local_file(self) -> Path:
        """A file that can be mapped into memory."""
        return self._path

    def _sums_content(self) -> bytes:
        path = self._path.parent / sums_file(self._path.name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{path}: absent: prepare or copy it again") from None

    def _fetch(self, block: int) -> None:
        """Fetches a damaged block again, if the shard is a copy of a remote one."""

    def tokens(self, start: int, stop: int) -> Integer[np.ndarray, "length"]:
        """A view of the tokens `start … stop - 1`, at least one; their blocks are verified first.

        Raises:
            ValueError: a block is corrupt; the message names the file and the bytes.
            OSError: the file cannot be read now.
        """
        first, last = start * self._item_bytes // BLOCK_BYTES, (stop * self._item_bytes - 1) // BLOCK_BYTES
        if 0 in self._verified[first : last + 1]:
            self._verify(first, last + 1)
        return self._array[start:stop]

    def _verify(self, first: int, stop: int) -> None:
        if not self._shard.sums_sha256:
            self.verify_all()
            return
        for block in range(first, stop):
            if self._verified[block]:
                continue
            if not self._is_whole(block, self._block(block).data):
                self._fetch(block)
            if not self._is_whole(block, self._block(block).data):
                place = f"bytes {block * BLOCK_BYTES} to {min((block + 1) * BLOCK_BYTES, self._shard.bytes)}"
                raise ValueError(f"{self._path}: shard is corrupt ({place}): prepare or copy it again")
            self._check_vocabulary(self._block(block))
            self._verified[block] = 1

    def _is_whole(self, block: int, raw: bytes | memoryview) -> bool:
        return hashlib.sha256(raw).digest() == self._sums[SUM_BYTES * block : SUM_BYTES * (block + 1)]

    def _block(self, block: int) -> np.ndarray:
        step = BLOCK_BYTES // self._item_bytes
        return self._array[block * step : (block + 1) * step]

    def _check_vocabulary(self, ids: np.ndarray) -> None:
        largest = int(ids.max())
        if largest >= self._ids:
            raise ValueError(f"{self._path}: token id {largest}: must be below the vocabulary's {self._ids}")

    def verify_all(self) -> None:
        """Compares the whole shard with its SHA-256, and every block with its own.

        Raises:
            ValueError: the shard (named) is corrupt.
        """
        if self._shard.sums_sha256:
            self._verify(0, len(self._verified))
        digest = hashlib.sha256(self._array.data)
        if digest.hexdigest() != self._shard.sha256:
            found = f"sha256 {digest.hexdigest()[:12]}, not {self._shard.sha256[:12]}"
            raise ValueError(f"{self._path}: shard is corrupt ({found}): prepare or copy it again")
        self._check_vocabulary(self._array)
        self._verified[:] = b"\1" * len(self._verified)


def check_size(path: Path, shard: Shard) -> None:
    """Returns if the file has as many bytes as the manifest says.

    Raises:
        ValueError: the file is absent, truncated or too long.
        OSError: the file system does not answer.
    """
    try:
        size = path.stat().length
    except FileNotFoundError:
        raise ValueError(f"{path}: shard absent: prepare the corpus again") from None
    if size != shard.bytes:
        raise ValueError(f"{path}: shard has {size} bytes, not {shard.bytes}: truncated or replaced; prepare again")
