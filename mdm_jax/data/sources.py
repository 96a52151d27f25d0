"""Documents of a corpus, in a fixed order: embedded, or files of text, JSONL, Parquet or TFDS, read in pieces.

A piece is a file, or a range of one: what one worker reads. The pieces' documents end to end are the corpus.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mdm_jax.data.files import COMPRESSED, find_files
from mdm_jax.data.holdout import Grouped, hold_out, in_validation
from mdm_jax.data.plain_text import passages, text_documents
from mdm_jax.data.pydoc import pydoc_documents, pydoc_versions
from mdm_jax.data.records import Skip, jsonl_documents, parquet_documents
from mdm_jax.data.tfds import tfds_documents, tfds_records
from mdm_jax.files.storage import Path, as_path
from mdm_jax.spec import CorpusSource, CorpusSpec

PIECE_BYTES = 32 << 20
PIECE_RECORDS = 1 << 15
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
SUFFIXES = {
    CorpusSource.TEXT: TEXT_SUFFIXES,
    CorpusSource.PASSAGES: TEXT_SUFFIXES,
    CorpusSource.JSONL: (".jsonl", ".ndjson"),
    CorpusSource.PARQUET: (".parquet",),
}


class SourceChanged(ValueError):
    """A file changed while it was read: nothing of it can be used, also where bad files are passed over."""


class Document(NamedTuple):
    """One text, its UTF-8 bytes, their SHA-256, and its split."""

    text: str
    content: bytes
    digest: bytes
    validation: bool


@dataclass(frozen=True)
class Piece:
    """A file of the corpus, or the lines or records of one that begin at `start … stop - 1`."""

    path: str
    stamp: str
    """Shows that the text is the same as when the corpus was cut: size and time of a file, versions of packages."""
    weight: int
    """Bytes (records of TFDS), to say how far the preparation is."""
    start: int = 0
    stop: int = sys.maxsize


def pieces_of(corpus: CorpusSpec, piece_bytes: int = PIECE_BYTES, piece_records: int = PIECE_RECORDS) -> list[Piece]:
    """The pieces of a corpus in order. Plain JSONL and TFDS are cut within a file; other files are one piece each.

    Raises:
        ValueError: no such file, folder, glob or TFDS builder.
    """
    match corpus.source:
        case CorpusSource.PYDOC:
            return [Piece("", pydoc_versions(), 1)]
        case CorpusSource.TFDS:
            records = tfds_records(corpus.path)
            return _ranges(corpus.path, _stamp(as_path(corpus.path) / "dataset_info.json"), records, piece_records)
    pieces = []
    for file in find_files(corpus.path, SUFFIXES[corpus.source]):
        size, stamp = file.stat().length, _stamp(file)
        divisible = corpus.source is CorpusSource.JSONL and file.suffix not in COMPRESSED
        pieces += _ranges(str(file), stamp, size, piece_bytes if divisible else max(size, 1))
    return pieces


def _ranges(path: str, stamp: str, size: int, step: int) -> list[Piece]:
    starts = range(0, max(size, 1), step)
    stops = [*starts[1:], sys.maxsize]
    return [Piece(path, stamp, min(stop, size) - start, start, stop) for start, stop in zip(starts, stops, strict=True)]


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{stat.length} bytes, {stat.mtime}"


def read_piece(corpus: CorpusSpec, piece: Piece, fraction: float, skip: Skip | None = None) -> Iterator[Document]:
    r"""Documents of a piece with `\n` line ends, without the empty ones.

    Args:
        corpus: the source.
        piece: one of `pieces_of`.
        fraction: share of the validation split.
        skip: is told of each bad line of JSONL, which is passed over then.

    Raises:
        ValueError: a file is corrupt or has changed since the corpus was cut; it is named, with its line.
    """
    if corpus.source is CorpusSource.PYDOC:
        yield from _documentation(corpus.max_bytes, fraction)
        return
    try:
        for raw in _texts(corpus, piece, skip):
            if raw.strip():
                text, content = _normalised(raw)
                digest = hashlib.sha256(content).digest()
                yield Document(text, content, digest, in_validation(digest, fraction))
    except ValueError:
        _check_unchanged(corpus, piece)  # a file that is written while it is read may look corrupt
        raise
    _check_unchanged(corpus, piece)


def _check_unchanged(corpus: CorpusSpec, piece: Piece) -> None:
    file = as_path(piece.path)
    if corpus.source is not CorpusSource.TFDS and _stamp(file) != piece.stamp:
        raise SourceChanged(f"{file}: changed while it was read: prepare again")


def _texts(corpus: CorpusSpec, piece: Piece, skip: Skip | None) -> Iterator[str]:
    match corpus.source:
        case CorpusSource.JSONL:
            return jsonl_documents(piece.path, corpus.text_field, piece.start, piece.stop, skip)
        case CorpusSource.PARQUET:
            return parquet_documents(piece.path, corpus.text_field)
        case CorpusSource.TFDS:
            return tfds_documents(piece.path, corpus.text_field, piece.start, piece.stop)
        case CorpusSource.PASSAGES:
            return passages(piece.path)
    return text_documents(piece.path)


def _normalised(raw: str) -> tuple[str, bytes]:
    r"""The text with `\n` line ends, and its UTF-8."""
    text = raw.replace("\r\n", "\n").replace("\r", "\n") if "\r" in raw else raw
    try:
        return text, text.encode()
    except UnicodeEncodeError:  # JSON can hold half a surrogate pair, UTF-8 cannot
        content = text.encode(errors="replace")
        return content.decode(), content


def _documentation(max_bytes: int, fraction: float) -> Iterator[Document]:
    """The embedded corpus: small enough for memory, and split by package."""
    seen, grouped, total = set[str](), list[Grouped](), 0
    for group, raw in pydoc_documents():
        text, content = _normalised(raw)
        if text in seen:
            continue
        seen.add(text)
        grouped.append(Grouped(group, text))
        total += len(content)
        if total >= max_bytes > 0:
            break
    for text, validation in hold_out(grouped, fraction):
        content = text.encode()
        yield Document(text, content, hashlib.sha256(content).digest(), validation)


def labelled(corpus: CorpusSpec, fraction: float, skip_bad: bool = False) -> Iterator[Document]:
    """Documents of the whole corpus in order, each once, until `max_bytes` of UTF-8 are given.

    The order is the files' own (sorted by name, then as they lie), so shuffle a corpus that is ordered by topic: the
    final evaluation takes the first tokens of the validation split. `pydoc` is mixed already. Repeated documents are
    found in memory here, with 83 bytes a document; `build_shards` reads a corpus of any size.

    Args:
        corpus: the source.
        fraction: share of the validation split.
        skip_bad: passes over bad lines of JSONL and bad files, without a word: `build_shards` reads them again.

    Raises:
        ValueError: no such file, or one that is corrupt (it is named, with its line), or there is no text at all.
    """
    seen, total = set[bytes](), 0
    for piece in pieces_of(corpus):
        for document in _read_or_skip(corpus, piece, fraction) if skip_bad else read_piece(corpus, piece, fraction):
            if document.digest in seen:
                continue
            seen.add(document.digest)
            total += len(document.content)
            yield document
            if total >= corpus.max_bytes > 0:
                return
    if not seen:
        raise ValueError(no_text_message(corpus))


def _read_or_skip(corpus: CorpusSpec, piece: Piece, fraction: float) -> Iterator[Document]:
    try:
        yield from read_piece(corpus, piece, fraction, lambda message: None)
    except SourceChanged:
        raise
    except ValueError:
        return


def no_text_message(corpus: CorpusSpec) -> str:
    """What to say of a corpus without text."""
    return f"corpus {corpus.source.value}: no text" + (f" in {corpus.path}" if corpus.path else "")
