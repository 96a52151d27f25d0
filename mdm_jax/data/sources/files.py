"""Finds the files of a corpus, on a disk or in a bucket, and reads their lines; `.gz` and `.zst` are decompressed."""

import contextlib
import functools
import glob
import io
import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

import pyarrow

from mdm_jax.files.storage import Path, as_path, is_local

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
MOST_LINE_BYTES = 64 << 20
READ_BYTES = 1 << 20
BREAK_IT = "break it into lines, with fold -s for example, or cut a text without lines by --corpus passages"
RECODE = "convert the file, with iconv -f latin1 -t utf-8 for example, or leave it out with --skip-bad"


def find_files(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The file `path`, or the files that match a glob or lie in a folder and its subfolders, sorted by name.

    Raises:
        ValueError: there are none.
    """
    root = as_path(path)
    if root.is_file():
        return [root]
    if root.is_dir():
        known = endings(suffixes)
        found = [folder / name for folder, _, names in root.walk() for name in names if name.endswith(known)]
    elif glob.has_magic(path):
        found = _matching_files(root)
    else:
        raise ValueError(f"corpus.path = {path!r}: no such file, folder or glob")
    if not found:
        raise ValueError(f"corpus.path = {path!r}: holds no file ({', '.join(suffixes)})")
    return sorted(found, key=str)


def endings(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """The suffixes, each alone and with the suffix of each compression after it."""
    return tuple(suffix + more for suffix in suffixes for more in ("", *COMPRESSED))


def _matching_files(pattern: Path) -> list[Path]:
    if is_local(pattern):
        return [file for name in glob.glob(str(pattern), recursive=True) if (file := as_path(name)).is_file()]
    if "**" in str(pattern):
        raise ValueError(f"corpus.path = {str(pattern)!r}: ** is not searched in an object store; name the folder")
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return [file for file in Path(*parts[:first]).glob("/".join(parts[first:])) if file.is_file()]


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The decompressed content of a file.

    Raises:
        ValueError: the compressed stream is corrupt or cut short; raised while it is read.
    """
    codec = COMPRESSED.get(path.suffix)
    with path.open("rb") as raw:
        if codec is None:
            yield cast(BinaryIO, raw)
            return
        try:  # with Arrow, because python-zstandard does not notice that a file is cut short
            with pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), codec) as stream:
                yield io.BufferedReader(cast(io.RawIOBase, stream), READ_BYTES)
        except OSError as error:
            if error.errno is not None:  # the disk or the network failed; Arrow's own errors have no number
                raise
            raise ValueError(f"{path}: corrupt or cut short ({error})") from None


class Line(NamedTuple):
    """A line of a file."""

    file: Path
    first_byte: int
    """First byte of the range that was read."""
    number: int
    """Number of the line in this range, from 1."""
    start: int
    """First byte of the line in the (decompressed) file."""
    raw: bytes

    @property
    def text(self) -> str:
        """The line decoded.

        Raises:
            ValueError: the line is not UTF-8; the message names file, line and byte.
        """
        try:
            return without_mark(self.raw.decode(), self.start)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.where}, {not_utf8_message(error, self.start)}") from None

    @property
    def where(self) -> str:
        """File and line number, for a message."""
        return f"{self.file}: line {_line_ends_before(self.file, self.first_byte) + self.number}"


def without_mark(text: str, start: int) -> str:
    """The text without the byte order mark that some editors put at byte 0; `start` is the text's first byte."""
    return text if start else text.removeprefix("\ufeff")


def not_utf8_message(error: UnicodeDecodeError, start: int) -> str:
    """The message for bytes that are not UTF-8; the decoded text begins at byte `start` of its file."""
    return f"byte {start + error.start}: not UTF-8 ({error.reason}): {RECODE}"


def read_lines(file: Path, first_byte: int = 0, stop: int = sys.maxsize) -> Iterator[Line]:
    """Lines that begin in the bytes `first_byte … stop - 1` of the decompressed content.

    Raises:
        ValueError: a line is longer than 64 MiB, or the file is corrupt.
    """
    with open_bytes(file) as content:
        start = 0
        if first_byte:  # the range before has the line that contains the byte before `first_byte`
            content.seek(first_byte - 1)
            start = first_byte - 1 + _skip_line(content)
        number = 0
        while start < stop and (raw := content.readline(MOST_LINE_BYTES + 1)):
            number += 1
            line = Line(file, first_byte, number, start, raw)
            if len(raw) > MOST_LINE_BYTES:
                raise ValueError(f"{line.where}: longer than 64 MiB: {BREAK_IT}")
            start += len(raw)
            yield line


def _skip_line(file: BinaryIO) -> int:
    """Reads to the next line end, and returns the number of bytes read."""
    passed = 0
    while line := file.readline(READ_BYTES):
        passed += len(line)
        if line.endswith(b"\n"):
            break
    return passed


@functools.lru_cache(maxsize=1)
def _line_ends_before(path: Path, start: int) -> int:
    """The number of lines that begin before byte `start` of an uncompressed file; counted once for a whole range."""
    if not start:
        return 0
    with path.open("rb") as file:
        ends, left, last = 0, start, b""
        while left and (chunk := file.read(min(READ_BYTES, left))):
            ends, left, last = ends + chunk.count(b"\n"), left - len(chunk), chunk[-1:]
    return ends + (0 if last == b"\n" else 1)
