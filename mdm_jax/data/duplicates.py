"""Finds the documents of a corpus that equal no earlier document, on disk and with bounded memory.

Hashes are distributed over files by their first bits, so that equal hashes lie in the same file. Each file is sorted
alone. On disk a document takes 25 bytes for a while. In memory a file of n documents takes about 70 n bytes while it is
sorted: 18 MB for a corpus of up to 67 million documents, and .28 bytes a document beyond.
"""

from collections.abc import Iterable
from typing import IO

import numpy as np
from jaxtyping import Bool

from mdm_jax.files.storage import Path

MOST_FILES = 256
FILE_DOCUMENTS = 1 << 18
ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("position", "<u8")])


def first_of_each(
    indexes: Iterable[np.ndarray], total: int, folder: Path, file_documents: int = FILE_DOCUMENTS
) -> Bool[np.ndarray, "documents"]:
    """True for each document that equals none before it; a file mapped into memory, one byte a document.

    Args:
        indexes: structured arrays with the fields `high` and `low`, halves of a document's hash; in order.
        total: their rows, all together.
        folder: where the files lie while they are needed.
        file_documents: documents that are sorted at a time, where 256 files suffice.
    """
    count = min(MOST_FILES, -(-total // file_documents))
    paths = [folder / f"hashes-{i:03d}" for i in range(count)]
    files = [path.open("wb") for path in paths]
    try:
        _distribute(indexes, files)
    finally:
        for file in files:
            file.close()
    first = np.memmap(str(folder / "first"), bool, "w+", shape=(total,))
    first[:] = True
    for path in paths:
        rows = np.fromfile(str(path), ROW)
        order = np.lexsort((rows["position"], rows["low"], rows["high"]))
        rows = rows[order]
        again = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
        first[rows["position"][1:][again]] = False
        path.unlink()
    return first


def _distribute(indexes: Iterable[np.ndarray], files: list[IO[bytes]]) -> None:
    position = 0
    for index in indexes:
        rows = np.empty(len(index), ROW)
        rows["high"], rows["low"] = index["high"], index["low"]
        rows["position"] = np.arange(position, position + len(index), dtype=np.uint64)
        position += len(index)
        place = (rows["high"] >> np.uint64(32)) * np.uint64(len(files)) >> np.uint64(32)
        order = np.argsort(place, kind="stable")
        ends = np.cumsum(np.bincount(place.astype(np.int64), minlength=len(files)))
        for file, own in zip(files, np.split(rows[order], ends[:-1]), strict=True):
            file.write(own.tobytes())
