"""Sealed parts: the ids of one piece of a corpus and an index of its documents, written by one worker.

A part's name is a hash of everything that decides its content: the piece and its stamp, the corpus and the tokenizer.
Its seal is written last. So an interrupted preparation goes on from the parts that have a seal, and a changed file
gives a part with another name.
"""

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from mdm_jax.data.pairs import stored_ids
from mdm_jax.data.sources.pieces import Document, Piece, SourceChanged, read_piece
from mdm_jax.data.tokenizer import Tokenizer, open_tokenizer
from mdm_jax.files.storage import Path, as_path, is_file, sha256_of, write_atomic
from mdm_jax.spec import CorpusSource, DataSpec, TokenizerKind
from mdm_jax.spec.validation import build, require, to_dict

PART_VERSION = 1
BATCH_DOCUMENTS = 512
MOST_REPORTED = 20
MOST_REMEMBERED_BYTES = 1 << 30
INDEX = np.dtype([("high", "<u8"), ("low", "<u8"), ("tokens", "<u4"), ("text_bytes", "<u4"), ("validation", "?")])
"""A row for each document, 25 bytes: the first 128 bits of the text's SHA-256, its ids with EOS, its UTF-8 bytes."""


def name_of(decides: object) -> str:
    """A file name that is a hash of the plain values that decide the file's content."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Task:
    """A piece to be made into a part."""

    piece: Piece
    data: DataSpec
    folder: str
    dtype: str
    tokenizer_hash: str
    model: str
    """Path of the tokenizer's model; empty if the tokenizer needs none."""
    skip_bad: bool = False

    @property
    def name(self) -> str:
        """The part's name, a hash of everything that decides its content."""
        data = self.data
        decides = [PART_VERSION, to_dict(self.piece), to_dict(data.corpus), data.validation_fraction, self.dtype]
        decides += [self.tokenizer_hash, self.skip_bad]
        return name_of(decides)


@dataclass(frozen=True)
class Part:
    """The seal of a part. `skipped` has messages about bad lines and files, `skipped_count` is their number."""

    name: str
    documents: int
    text_bytes: int
    sha256: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0

    def ids(self, folder: str, dtype: str) -> np.ndarray:
        """All ids, mapped into memory."""
        return _mapped(_paths(folder, self.name)[0], np.dtype(dtype).newbyteorder("<"))

    def index(self, folder: str) -> np.ndarray:
        """A row of `INDEX` for each document, mapped into memory."""
        return _mapped(_paths(folder, self.name)[1], INDEX)


def _paths(folder: str, name: str) -> tuple[Path, Path]:
    """The paths of a part's ids and index."""
    return as_path(folder) / f"{name}.ids", as_path(folder) / f"{name}.index"


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    """The file as an array, mapped into memory unless it is empty, which numpy cannot map."""
    return np.memmap(str(path), dtype, "r") if path.stat().length else np.zeros(0, dtype)


def make_part(task: Task) -> Part:
    """The part of a piece: an existing one if it is whole, otherwise made now.

    Raises:
        ValueError: the piece's file is bad or has changed, unless bad files are skipped.
        OSError: the disk is full or not writable.
    """
    return _existing_part(task) or _new_part(task)


def _existing_part(task: Task) -> Part | None:
    seal = as_path(task.folder) / f"{task.name}.json"
    if not is_file(seal):
        return None
    try:
        part = build(Part, json.loads(seal.read_text()))
    except (ValueError, TypeError):
        return None
    files = _paths(task.folder, task.name)
    whole = part.name == task.name and all(is_file(file) for file in files)
    return part if whole and tuple(map(sha256_of, files)) == part.sha256 else None


class _Skipped:
    """The number of skipped lines and files, and the messages about the first ones."""

    def __init__(self) -> None:
        self.count, self._first = 0, list[str]()

    def __call__(self, line: str) -> None:
        self.count += 1
        if self.count <= MOST_REPORTED:
            self._first.append(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """The messages about the first ones, and one line for the rest."""
        rest = self.count - len(self._first)
        return (*self._first, f"{rest} more in the same file") if rest else tuple(self._first)


def _new_part(task: Task) -> Part:
    skipped = _Skipped()
    corpus, skip = task.data.corpus, skipped if task.skip_bad else None
    try:
        documents = read_piece(corpus, task.piece, task.data.validation_fraction, skip)
        part = _write(task, _up_to_max_bytes(documents, corpus.max_bytes))
    except ValueError as error:
        if skip is None or isinstance(error, SourceChanged):
            raise
        skip(str(error))
        part = _write(task, iter(()))
    part = replace(part, skipped=skipped.lines, skipped_count=skipped.count)
    write_atomic(as_path(task.folder) / f"{task.name}.json", json.dumps(to_dict(part)) + "\n")
    return part


def _up_to_max_bytes(documents: Iterator[Document], max_bytes: int) -> Iterator[Document]:
    """Documents until they have `max_bytes` without repeats; all documents if `max_bytes` is 0 or over 1 GiB."""
    if not 0 < max_bytes <= MOST_REMEMBERED_BYTES:
        yield from documents
        return
    seen, held = set[bytes](), 0
    for document in documents:
        yield document
        if document.digest not in seen:
            seen.add(document.digest)
            held += len(document.content)
            if held >= max_bytes:
                return


def _write(task: Task, documents: Iterator[Document]) -> Part:
    """Writes ids and index, one batch of documents at a time, so that memory does not grow with the piece."""
    tokenizer = _tokenizer(task.model, task.data.tokenizer.kind, task.tokenizer_hash)
    stored = np.dtype(task.dtype).newbyteorder("<")
    count = text_bytes = 0
    files = _paths(task.folder, task.name)
    with files[0].open("wb") as ids_file, files[1].open("wb") as index_file:
        while batch := list(islice(documents, BATCH_DOCUMENTS)):
            ids, lengths = _encoded(tokenizer, batch, task.data)
            ids_file.write(ids.astype(stored).data)
            index_file.write(_index_rows(batch, lengths).data)
            count += len(batch)
            text_bytes += sum(len(document.content) for document in batch)
    return Part(task.name, count, text_bytes, tuple(map(sha256_of, files)))


def _encoded(tokenizer: Tokenizer, batch: list[Document], data: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """The ids of all documents in one array, and the number of ids of each."""
    if data.corpus.source is CorpusSource.PAIRS:
        pairs = [(document.prompt, document.text) for document in batch]
        return stored_ids(tokenizer, pairs, data.tokenizer.vocab_size)
    return tokenizer.encode_batch([document.text for document in batch])


def _index_rows(batch: list[Document], lengths: np.ndarray) -> np.ndarray:
    rows = np.empty(len(batch), INDEX)
    halves = np.frombuffer(b"".join(document.digest[:16] for document in batch), ">u8").reshape(-1, 2)
    rows["high"], rows["low"], rows["tokens"] = halves[:, 0], halves[:, 1], lengths
    rows["text_bytes"] = [len(document.content) for document in batch]
    rows["validation"] = [document.validation for document in batch]
    return rows


@functools.lru_cache(maxsize=1)
def _tokenizer(model: str, kind: TokenizerKind, tokenizer_hash: str) -> Tokenizer:
    """The tokenizer with this hash, opened once in each process."""
    tokenizer = open_tokenizer(model, kind)
    require(tokenizer.hash == tokenizer_hash, f"{model}: sha256", tokenizer.hash, tokenizer_hash)
    return tokenizer
