"""A shard in an object store: a local file of the same size caches the blocks that have been read.

There is no list of the cached blocks: a block is in the file if its bytes match its hash. So the processes of a host
share the file without a lock, an interrupted copy is completed, and a damaged block is fetched again.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator

from mdm_jax.data.blocks import Blocks, check_size
from mdm_jax.data.manifest import BLOCK_BYTES, Manifest, Shard
from mdm_jax.files.storage import Path, is_file, write_atomic

COPY_BYTES = 16 << 20
FETCH_BLOCKS = 64
"""Blocks that are fetched at a time. They have 4 MiB; an object store answers smaller requests hardly faster."""


class RemoteBlocks(Blocks):
    """The tokens of a shard in an object store."""

    def __init__(self, path: Path, shard: Shard, manifest: Manifest, cache: Path) -> None:
        """Opens the shard at `path`; the local folder `cache` keeps the blocks that are read."""
        super().__init__(path, shard, manifest)
        self._copy = cache / f"{shard.sha256}.{manifest.dtype}"
        self._sums_copy = cache / f"{shard.sums_sha256}.sums"
        if not is_file(self._copy):
            check_size(path, shard)

    def _local_file(self) -> Path:
        """The local copy. It begins empty; a shard without block hashes is copied whole."""
        if not is_file(self._copy) or self._copy.stat().length != self._shard.bytes:
            self._copy.parent.mkdir(parents=True, exist_ok=True)
            if not self._shard.sums_sha256:
                self._copy_whole()
            else:
                with self._cache_named_in_errors(), self._copy.open("ab") as file:
                    os.truncate(file.fileno(), self._shard.bytes)
        return self._copy

    def _copy_whole(self) -> None:
        partial = self._copy.parent / f"{self._copy.name}.{os.getpid()}.partial"
        try:
            with self._path.open("rb") as source, partial.open("wb") as target:
                while chunk := source.read(COPY_BYTES):
                    with self._cache_named_in_errors():
                        target.write(chunk)
            check_size(partial, self._shard)
            partial.replace(self._copy)
        finally:
            partial.unlink(missing_ok=True)

    def verify_all(self) -> None:
        """Verifies as `Blocks` does. A bad copy of a shard without block hashes is removed, and copied again later."""
        try:
            super().verify_all()
        except ValueError:
            if not self._shard.sums_sha256:
                self._copy.unlink(missing_ok=True)
            raise

    def _sums_content(self) -> bytes:
        if is_file(self._sums_copy):
            copy = self._sums_copy.read_bytes()
            if hashlib.sha256(copy).hexdigest() == self._shard.sums_sha256:
                return copy
        content = super()._sums_content()
        with self._cache_named_in_errors():
            write_atomic(self._sums_copy, content)
        return content

    def _fetch(self, block: int) -> None:
        """Copies the block and its neighbours, except those that do not match their hash."""
        check_size(self._path, self._shard)
        first = block // FETCH_BLOCKS * FETCH_BLOCKS
        with self._path.open("rb") as source:
            source.seek(first * BLOCK_BYTES)
            content = source.read(FETCH_BLOCKS * BLOCK_BYTES)
        with self._cache_named_in_errors(), open(self._copy, "r+b") as target:
            for start in range(0, len(content), BLOCK_BYTES):
                raw = content[start : start + BLOCK_BYTES]
                if self._is_whole(first + start // BLOCK_BYTES, raw):
                    os.pwrite(target.fileno(), raw, first * BLOCK_BYTES + start)

    @contextlib.contextmanager
    def _cache_named_in_errors(self) -> Iterator[None]:
        """Adds the cache's folder to an error of writing, because the system does not name it."""
        try:
            yield
        except OSError as error:
            where = f"{self._copy.parent}: no copy of {self._path.name} ({error.strerror or error})"
            raise OSError(f"{where}: free space or set MDM_JAX_CACHE to a folder on another disk") from error
