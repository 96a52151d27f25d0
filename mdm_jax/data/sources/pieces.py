"""Documents of a corpus, in a fixed order: pydoc, or files of text, JSONL, Parquet, FASTA or TFDS, read in pieces.

A piece is a file, or a range of a file; one worker reads it. The corpus is the documents of all pieces in order.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mdm_jax.data.sources.fasta import FASTA_SUFFIXES, fasta_documents
from mdm_jax.data.sources.files import COMPRESSED, find_files
from mdm_jax.data.sources.holdout import Grouped, hold_out, in_validation
from mdm_jax.data.sources.pairs import jsonl_pairs
from mdm_jax.data.sources.plain_text import passages, text_documents
from mdm_jax.data.sources.pydoc import pydoc_documents, pydoc_versions
from mdm_jax.data.sources.records import Skip, jsonl_documents, parquet_documents
from mdm_jax.data.sources.tfds import tfds_documents, tfds_records
from mdm_jax.files.storage import Path, as_path
from mdm_jax.spec import CorpusSource, CorpusSpec

PIECE_BYTES = 32 << 20
PIECE_RECORDS = 1 << 15
PAIR_CUT = b"\xff"
"""A byte that UTF-8 does not have. It stands between prompt and response in what is hashed."""
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
SUFFIXES = {
    CorpusSource.TEXT: TEXT_SUFFIXES,
    CorpusSource.PASSAGES: TEXT_SUFFIXES,
    CorpusSource.JSONL: JSONL_SUFFIXES,
    CorpusSource.PAIRS: JSONL_SUFFIXES,
    CorpusSource.PARQUET: (".parquet",),
    CorpusSource.FASTA: FASTA_SUFFIXES,
}


class SourceChanged(ValueError):
    """A file changed while it was read. Unlike a bad file, it is never skipped."""


class Document(NamedTuple):
    """One text, its UTF-8 bytes, their SHA-256, and its split.

    For a pair, `text` is the response, and the bytes and the SHA-256 are those of the prompt and the response.
    """

    text: str
    content: bytes
    digest: bytes
    validation: bool
    prompt: str = ""


@dataclass(frozen=True)
class Piece:
    """A file of the corpus, or the lines or records of one that begin at `start … stop - 1`."""

    path: str
    stamp: str
    """Size and time of the file, or versions of packages. A changed stamp means that the text may have changed."""
    weight: int
    """Bytes (records for TFDS), for the display of progress."""
    start: int = 0
    stop: int = sys.maxsize


def pieces_of(corpus: CorpusSpec, piece_bytes: int = PIECE_BYTES, piece_records: int = PIECE_RECORDS) -> list[Piece]:
    """The pieces of a corpus in order. Plain JSONL and TFDS are cut into ranges; another file is one piece.

    Raises:
        ValueError: there is no such file, folder, glob or TFDS builder.
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
        divisible = SUFFIXES[corpus.source] is JSONL_SUFFIXES and file.suffix not in COMPRESSED
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
    r"""Documents of a piece that are not empty, with `\n` line ends.

    Args:
        corpus: the source.
        piece: one of `pieces_of`.
        fraction: share of the validation split.
        skip: called for each bad line of JSONL, which is then skipped; by default a bad line is an error.

    Raises:
        ValueError: a file is corrupt, or has changed since `pieces_of`; the message names it, and the line.
    """
    if corpus.source is CorpusSource.PYDOC:
        yield from _split_pydoc(corpus.max_bytes, fraction)
        return
    try:
        yield from (
            _pairs(piece, fraction, skip)
            if corpus.source is CorpusSource.PAIRS
            else (_document(raw, fraction) for raw in _texts(corpus, piece, skip) if raw.strip())
        )
    except ValueError:
        _check_unchanged(corpus, piece)  # a file that changes while it is read may look corrupt
        raise
    _check_unchanged(corpus, piece)


def _document(raw: str, fraction: float) -> Document:
    text, content = _normalised(raw)
    digest = hashlib.sha256(content).digest()
    return Document(text, content, digest, in_validation(digest, fraction))


def _pairs(piece: Piece, fraction: float, skip: Skip | None) -> Iterator[Document]:
    """The pairs of a piece. The prompt decides the split, so that a question is never in both; else the response."""
    for raw_prompt, raw_response in jsonl_pairs(piece.path, piece.start, piece.stop, skip):
        (prompt, before), (response, after) = _normalised(raw_prompt), _normalised(raw_response)
        digest = hashlib.sha256(before + PAIR_CUT + after).digest()
        validation = in_validation(hashlib.sha256(before or after).digest(), fraction)
        yield Document(response, before + after, digest, validation, prompt)


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
        case CorpusSource.FASTA:
            return fasta_documents(piece.path)
    return text_documents(piece.path)


def _normalised(raw: str) -> tuple[str, bytes]:
    r"""The text with `\n` line ends, and its UTF-8 bytes."""
    text = raw.replace("\r\n", "\n").replace("\r", "\n") if "\r" in raw else raw
    try:
        return text, text.encode()
    except UnicodeEncodeError:  # JSON can have half a surrogate pair, UTF-8 cannot
        content = text.encode(errors="replace")
        return content.decode(), content


def _split_pydoc(max_bytes: int, fraction: float) -> Iterator[Document]:
    """The pydoc corpus, which fits into memory and is split by package."""
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
    """Documents of the whole corpus in order, each once, until `corpus.max_bytes` of UTF-8.

    Files are sorted by name, and documents keep their order in the file. Shuffle a corpus that is ordered by topic,
    because the final evaluation takes the first tokens of the validation split; `pydoc` is mixed already. Repeats are
    found in memory, with 83 bytes for each document. `build_shards` does this on disk, for a corpus of any size.

    Args:
        corpus: the source.
        fraction: share of the validation split.
        skip_bad: skip bad lines of JSONL and bad files, without a message.

    Raises:
        ValueError: a file is absent or corrupt (the message names it, and the line), or the corpus has no text.
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
    """The message for a corpus without text."""
    return f"corpus {corpus.source.value}: no text" + (f" in {corpus.path}" if corpus.path else "")
