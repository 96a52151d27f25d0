"""An object store in memory, which answers to `s3://` paths while a test uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    protocol = ("s3",)
    store: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleVariableOverride]
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("s3://"))


@contextmanager
def in_memory() -> Iterator[Bucket]:
    """The empty store."""
    fsspec.register_implementation("s3", Bucket, clobber=True)
    try:
        yield Bucket()
    finally:
        fsspec.register_implementation("s3", "s3fs.S3FileSystem", clobber=True)
        Bucket.store.clear()
        Bucket.pseudo_dirs[:] = [""]
