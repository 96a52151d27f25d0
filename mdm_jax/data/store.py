"""The tokens of a prepared split: shards mapped into memory, every one verified before the first is used."""

import bisect
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Integer

from mdm_jax.manifest import ITEM_BYTES, Manifest, Shard, read_manifest
from mdm_jax.storage import Path, as_path, inside, is_local

CHUNK_BYTES = 16 << 20
CACHE_VARIABLE = "MDM_JAX_CACHE"
READERS = 4


class TokenStore:
    """The shards of a split end to end, addressed by token."""

    def __init__(self, shards: list[np.ndarray]) -> None:
        self._shards = shards
        self._ends = list(np.cumsum([len(shard) for shard in shards]).tolist())

    def __len__(self) -> int:
        return self._ends[-1]

    def tokens(self, start: int, length: int) -> Integer[np.ndarray, "length"]:
        """Tokens `start … start + length - 1`, as stored (uint16 or uint32); a view where one shard holds them.

        Raises:
            ValueError: there are none, or they are not all in the split.
        """
        if not 0 <= start < start + length <= len(self):
            raise ValueError(f"tokens {start} to {start + length}: the split has {len(self)}")
        first = bisect.bisect_right(self._ends, start)
        parts, done = [], 0
        while done < length:
            shard = self._shards[first]
            offset = start + done - (self._ends[first] - len(shard))
            parts.append(shard[offset : offset + length - done])
            done, first = done + len(parts[-1]), first + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def open_split(
    directory: str | os.PathLike, split: str, verify: bool = True, manifest: Manifest | None = None
) -> TokenStore:
    """The tokens of `train` or `validation`; shards in an object store are copied once to a local cache.

    Args:
        directory: the prepared folder.
        split: its name.
        verify: checks every shard's SHA-256 and that its ids are below the vocabulary; sizes are always checked.
        manifest: the folder's, if it is read already.

    Raises:
        ValueError: a shard is absent, truncated or corrupt; it is named.
    """
    manifest = manifest or read_manifest(directory)
    shards = manifest.split(split).shards
    paths = [inside(directory, shard.file) for shard in shards]
    if not is_local(as_path(directory)):
        paths = [_cached(path, shard, manifest) for path, shard in zip(paths, shards, strict=True)]
    for path, shard in zip(paths, shards, strict=True):
        check_size(path, shard)
    arrays = [np.memmap(os.fspath(path), np.dtype(manifest.dtype).newbyteorder("<"), "r") for path in paths]
    if verify:
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(_verify, paths, shards, arrays, [manifest.vocab_size] * len(shards)))
    return TokenStore([np.asarray(array) for array in arrays])


def verify_folder(directory: str | os.PathLike, manifest: Manifest, contents: bool) -> None:
    """Returns if every shard is there with its size and, if asked, its contents.

    Raises:
        ValueError: one is not; it is named.
    """
    for name in ("train", "validation"):
        if contents:
            open_split(directory, name, manifest=manifest)
        for shard in manifest.split(name).shards:
            check_size(inside(directory, shard.file), shard)


def check_size(path: Path, shard: Shard) -> None:
    """Returns if the file has the bytes that the manifest says.

    Raises:
        ValueError: it is absent, truncated or too long.
    """
    if not path.is_file():
        raise ValueError(f"{path}: shard absent: prepare the corpus again")
    size = path.stat().length
    if size != shard.bytes:
        raise ValueError(f"{path}: shard has {size} bytes, not {shard.bytes}: truncated or replaced; prepare again")


def _verify(path: Path, shard: Shard, array: np.ndarray, vocab_size: int) -> None:
    digest, largest, step = hashlib.sha256(), 0, CHUNK_BYTES // ITEM_BYTES["uint32"]
    for start in range(0, len(array), step):
        chunk = np.asarray(array[start : start + step])
        digest.update(chunk.data)
        largest = max(largest, int(chunk.max()))
    if digest.hexdigest() != shard.sha256:
        found = digest.hexdigest()[:12]
        raise ValueError(
            f"{path}: shard is corrupt (sha256 {found}, not {shard.sha256[:12]}): prepare or copy it again"
        )
    if largest >= vocab_size:
        raise ValueError(f"{path}: token id {largest}: must be below the vocabulary's {vocab_size}")


def cache_folder() -> Path:
    """Where copies of remote shards lie: `MDM_JAX_CACHE`, or `mdm-jax` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return as_path(named) if named else as_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mdm-jax"


def _cached(path: Path, shard: Shard, manifest: Manifest) -> Path:
    """The local copy of a shard, made if it is not there whole; its name is its content's hash."""
    copy = cache_folder() / f"{shard.sha256}.{manifest.dtype}"
    if copy.is_file() and copy.stat().length == shard.bytes:
        return copy
    check_size(path, shard)
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.parent / f"{copy.name}.{os.getpid()}.partial"
    try:
        with path.open("rb") as source, partial.open("wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
        check_size(partial, shard)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)
    return copy
