"""Finds the first occurrence of each document of a corpus, on disk and with bounded memory.

Hashes are distributed over files by their first bits, so that equal hashes are in the same file. Each file is sorted by
itself. A document needs 25 bytes on disk. Sorting a file of n documents needs about 70 n bytes of memory: 18 MB for a
corpus of up to 67 million documents, and 0.28 bytes for each document of a larger corpus.
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
    """A mask of the documents that differ from all earlier ones; a file mapped into memory, one byte a document.

    Args:
        indexes: structured arrays, in order, with the two halves `high` and `low` of each document's hash.
        total: number of documents in all indexes.
        folder: folder for temporary files.
        file_documents: documents that are sorted at a time, unless this needs more than 256 files.
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
