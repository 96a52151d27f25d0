"""The tokens of a prepared split. Opening it checks the sizes of its shards; reading checks their blocks.

Before a token of a 64 KiB block is returned, the block is compared with its SHA-256, and its ids with the vocabulary.
So a run on a corpus of any size starts at once, and never trains on a damaged block. A small split is checked when it
is opened, so that damage is reported before anything is compiled.
"""

import bisect
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Integer

from mdm_jax.data.blocks import Blocks, check_size
from mdm_jax.data.manifest import Manifest, Shard, read_manifest
from mdm_jax.data.remote import RemoteBlocks
from mdm_jax.files.storage import as_path, inside, is_local
from mdm_jax.files.user_cache import cache_folder

READERS = 16
OTHER_FILES = 512
SMALL_BYTES = 64 << 20


class TokenStore:
    """The shards of a split, as one sequence of tokens."""

    def __init__(self, shards: list[Blocks]) -> None:
        self._shards = shards
        self._ends = list(np.cumsum([len(shard) for shard in shards]).tolist())

    def __len__(self) -> int:
        return self._ends[-1]

    def tokens(self, start: int, length: int) -> Integer[np.ndarray, "length"]:
        """Tokens `start … start + length - 1`, as stored (uint16 or uint32); a view if one shard has them all.

        Raises:
            ValueError: `length` is below 1, the split does not have all these tokens, or one of their blocks (named) is
                corrupt.
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
    """The tokens of a split. Blocks that are read from an object store are kept in a local cache.

    Args:
        directory: the prepared folder.
        split: `train` or `validation`.
        verify: True checks all contents now; False checks each block when it is first read. None checks now if that
            takes less than a tenth of a second: for a split of up to 64 MiB on a disk.
        manifest: the folder's manifest, if it has been read already.

    Raises:
        ValueError: a shard (named) is absent, has another size, or is found corrupt.
    """
    manifest = manifest or read_manifest(directory)
    shards = manifest.split(split).shards
    _allow_open_files(len(shards))
    local = is_local(as_path(directory))

    def open_shard(shard: Shard) -> Blocks:
        path = inside(directory, shard.file)
        if not local:
            return RemoteBlocks(path, shard, manifest, cache_folder())
        check_size(path, shard)
        return Blocks(path, shard, manifest)

    small = local and sum(shard.bytes for shard in shards) <= SMALL_BYTES
    with ThreadPoolExecutor(READERS) as pool:  # an object store is slow to answer for each size
        opened = list(pool.map(open_shard, shards))
        if verify or (verify is None and small):
            list(pool.map(Blocks.verify_all, opened))
    return TokenStore(opened)


def _allow_open_files(count: int) -> None:
    """Raises this process's limit of open files if possible, because every shard that is read stays open."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + OTHER_FILES
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    if limit != resource.RLIM_INFINITY and wanted > limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
