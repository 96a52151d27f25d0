"""The tokens of a prepared split. Sizes are checked when it is opened, contents block by block when they are read.

Each block of 64 KiB is compared with its SHA-256 before the first of its tokens is given out, and its ids with the
vocabulary. A run therefore starts at once, however large the corpus, and never trains on a damaged block. A small split
is checked when it is opened, so that its damage is named before anything is compiled.
"""

import bisect
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Integer

from mdm_jax.data.blocks import Blocks, check_size
from mdm_jax.data.remote import RemoteBlocks
from mdm_jax.files.storage import as_path, inside, is_local
from mdm_jax.files.user_cache import cache_folder
from mdm_jax.manifest import Manifest, Shard, read_manifest

READERS = 16
OTHER_FILES = 512
SMALL_BYTES = 64 << 20


class TokenStore:
    """The shards of a split end to end, addressed by token."""

    def __init__(self, shards: list[Blocks]) -> None:
        self._shards = shards
        self._ends = list(np.cumsum([len(shard) for shard in shards]).tolist())

    def __len__(self) -> int:
        return self._ends[-1]

    def tokens(self, start: int, length: int) -> Integer[np.ndarray, "length"]:
        """Tokens `start … start + length - 1`, as stored (uint16 or uint32); a view where one shard holds them.

        Raises:
            ValueError: there are none, or they are not all in the split; or a block under them is corrupt: it is named.
            OSError: the shard cannot be read now.
        """
        if not 0 <= start < start + length <= len(self):
            raise ValueError(f"tokens {start} to {start + length}: the split has {len(self)}")
        first = bisect.bisect_right(self._ends, start)
        parts, done = [], 0
        while done < length:
            shard = self._shards[first]
            offset = start + done - (self._ends[first] - len(shard))
            parts.append(shard.tokens(offset, min(offset + length - done, len(shard))))
            done, first = done + len(parts[-1]), first + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def open_split(
    directory: str | os.PathLike, split: str, verify: bool | None = None, manifest: Manifest | None = None
) -> TokenStore:
    """The tokens of `train` or `validation`; what is read from an object store is kept in a local cache.

    Args:
        directory: the prepared folder.
        split: its name.
        verify: True checks all contents now, False each block when it is first read. None checks now what takes under a
            tenth of a second: a split of up to 64 MiB on a disk.
        manifest: the folder's, if it is read already.

    Raises:
        ValueError: a shard is absent, of another size, or (if it is checked now) corrupt; it is named.
    """
    manifest = manifest or read_manifest(directory)
    shards = manifest.split(split).shards
    _allow_open_files(len(shards))
    local = is_local(as_path(directory))
    open_shard = _open_local if local else _open_remote
    small = local and sum(shard.bytes for shard in shards) <= SMALL_BYTES
    with ThreadPoolExecutor(READERS) as pool:  # an object store takes its time for each size
        opened = list(pool.map(open_shard, [directory] * len(shards), shards, [manifest] * len(shards)))
        if verify or (verify is None and small):
            list(pool.map(Blocks.verify_all, opened))
    return TokenStore(opened)


def _allow_open_files(count: int) -> None:
    """Raises this process's limit of open files where it can: every shard that has been read stays open."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + OTHER_FILES
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    if limit != resource.RLIM_INFINITY and wanted > limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _open_local(directory: str | os.PathLike, shard: Shard, manifest: Manifest) -> Blocks:
    path = inside(directory, shard.file)
    check_size(path, shard)
    return Blocks(path, shard, manifest)


def _open_remote(directory: str | os.PathLike, shard: Shard, manifest: Manifest) -> Blocks:
    return RemoteBlocks(inside(directory, shard.file), shard, manifest, cache_folder())


def verify_folder(directory: str | os.PathLike, manifest: Manifest, contents: bool) -> None:
    """Returns if every shard is there with its size and, if asked, its contents.

    Raises:
        ValueError: one is not; it is named.
    """
    for name in ("train", "validation"):
        open_split(directory, name, contents, manifest)
