"""Sequences of nucleotides from FASTA files: whole records, or regions of them as the documents of a corpus.

A record is a header, which begins with `>`, and lines of letters. Letters become A, C, G, T or N (see
`data/nucleotides.py`). Files are read a MiB at a time, so that a chromosome in one line needs no more memory than one
in short lines.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mdm_jax.data.nucleotides import LETTERS, UNKNOWN, not_a_nucleotide, nucleotide_ids
from mdm_jax.data.sources.files import READ_BYTES, open_bytes
from mdm_jax.files.storage import as_path

FASTA_SUFFIXES = (".fa", ".fna", ".fasta")
REGION_LETTERS = 8192
MOST_RECORD_LETTERS = 1 << 20
"""Most letters of a record that is read whole."""
MOST_HEADER_BYTES = 1 << 16
BREAKS = b"\r\n"
BLANKS = b" \t\v\f"


class Fragment(NamedTuple):
    """Letters of a record. The first fragment of each record is its header, without letters."""

    header: str
    line: int
    """Line of the header."""
    letters: str


class Record(NamedTuple):
    """A whole record."""

    header: str
    line: int
    letters: str


def fasta_documents(path: str) -> Iterator[str]:
    """The records of a file, cut into regions of 8192 letters; the last region of a record is what is left.

    A document is a region, and the split is by document. So the validation text is whole regions, neither strand of
    which is in the training text, unless the genome itself repeats them. Regions with the same letters, such as those
    that are all N, count once, like all repeated documents.

    Raises:
        ValueError: the file is corrupt, or is no FASTA of nucleotides; the message names file and line.
    """
    held, size = list[str](), 0
    for fragment in fasta_fragments(path):
        if not fragment.letters and size:
            yield "".join(held)
            held, size = [], 0
        held.append(fragment.letters)
        size += len(fragment.letters)
        if size >= REGION_LETTERS:
            text = "".join(held)
            whole = size // REGION_LETTERS * REGION_LETTERS
            yield from (text[start : start + REGION_LETTERS] for start in range(0, whole, REGION_LETTERS))
            held, size = [text[whole:]], size - whole
    if size:
        yield "".join(held)


def fasta_records(path: str) -> Iterator[Record]:
    """The records of a file, each in one piece.

    Raises:
        ValueError: see `fasta_documents`; or a record has more than 2^20 letters.
    """
    header, line, held, size = "", 0, list[str](), 0
    for fragment in fasta_fragments(path):
        if fragment.line != line and line:
            yield Record(header, line, "".join(held))
            held, size = [], 0
        header, line = fragment.header, fragment.line
        held.append(fragment.letters)
        size += len(fragment.letters)
        if size > MOST_RECORD_LETTERS:
            raise ValueError(f"{path}: line {line}: a record of more than {MOST_RECORD_LETTERS} letters: cut it")
    yield Record(header, line, "".join(held))


def fasta_fragments(path: str) -> Iterator[Fragment]:
    """The headers and letters of a file in order; a fragment has at most a MiB of letters.

    Raises:
        ValueError: see `fasta_documents`.
    """
    header, header_line, letters = "", 0, 0
    for line, first, raw in _line_pieces(path):
        where = f"{path}: line {line}"
        if raw.startswith(b">") and first == 0:
            if header_line and not letters:
                raise ValueError(_empty_record(path, header_line))
            if len(raw) > MOST_HEADER_BYTES:
                raise ValueError(f"{where}: a header of more than {MOST_HEADER_BYTES} bytes: shorten it")
            header, header_line, letters = raw[1:].decode(errors="replace").strip(), line, 0
            yield Fragment(header, header_line, "")
        elif content := raw.rstrip(BREAKS + BLANKS):
            if not header_line:
                raise ValueError(f"{where}: must be a header, which begins with >, before the first letters")
            letters += len(content)
            yield Fragment(header, header_line, _normalised(content, where, first))
    if not header_line:
        raise ValueError(f"{path}: holds no record: a FASTA file has headers, which begin with >")
    if not letters:
        raise ValueError(_empty_record(path, header_line))


def _empty_record(path: str, line: int) -> str:
    return f"{path}: line {line}: a header without letters after it: remove it, or is the file cut short?"


def _normalised(raw: bytes, where: str, first: int) -> str:
    """The letters as A, C, G, T and N; `first` is the place of the first one in its line, from 0.

    Raises:
        ValueError: a character is no nucleotide.
    """
    ids = nucleotide_ids(raw)
    if (unknown := np.flatnonzero(ids == UNKNOWN)).size:
        place = int(unknown[0])
        letter = raw[place:].decode(errors="replace")[0]
        raise ValueError(f"{where}: {not_a_nucleotide(letter, first + place + 1)}")
    return LETTERS[ids].tobytes().decode("ascii")


def _line_pieces(path: str) -> Iterator[tuple[int, int, bytes]]:
    """The number of each line, from 1, the place of its piece in the line, from 0, and the piece.

    Only a line of more than a MiB has several pieces.

    Raises:
        ValueError: the file is corrupt or cut short.
    """
    line, place = 1, 0
    try:
        with open_bytes(as_path(path)) as content:
            while raw := content.readline(READ_BYTES):
                yield line, place, raw
                ended = raw.endswith(b"\n")
                line, place = (line + 1, 0) if ended else (line, place + len(raw))
    except ValueError as error:
        raise ValueError(f"{error}, at line {line}") from None
