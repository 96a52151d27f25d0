"""Documents from files of text, JSONL and Parquet, on a disk or in a bucket; `.gz` and `.zst` are read as they are."""

import contextlib
import glob
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pyarrow
import pyarrow.parquet

from mdm_jax.files.storage import Path, as_path, is_local

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet",)
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
PIECE_CHARACTERS = 4096
MOST_PIECE_CHARACTERS = 1 << 16
MOST_LINE_BYTES = 64 << 20
READ_BYTES = 1 << 20
BATCH_ROWS = 64
"""Rows of a Parquet file in memory at a time: a long text that many rows share is stored once and read as often."""
MOST_EXPANSION, ALWAYS_FINE_BYTES = 1000, 8 << 20
"""Text compresses by less than this factor, and a column chunk below these bytes may do as it likes."""
BREAK_IT = "break it into lines, with fold -s for example; a text file is cut into documents at blank lines"
RECODE = "convert the file, with iconv -f latin1 -t utf-8 for example, or leave it out with --skip-bad"

Skip = Callable[[str], None]
"""Is told what is passed over and why."""


def find_files(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The file `path`, or the files of the folder (searched to the bottom) or glob, sorted by name.

    Raises:
        ValueError: there are none.
    """
    root = as_path(path)
    if root.is_file():
        return [root]
    if root.is_dir():
        endings = tuple(s + c for s in suffixes for c in ("", *COMPRESSED))
        found = [folder / name for folder, _, names in root.walk() for name in names if name.endswith(endings)]
    elif glob.has_magic(path):
        found = _globbed(root)
    else:
        raise ValueError(f"corpus.path = {path!r}: no such file, folder or glob")
    if not found:
        raise ValueError(f"corpus.path = {path!r}: holds no file ({', '.join(suffixes)})")
    return sorted(found, key=str)


def _globbed(pattern: Path) -> list[Path]:
    if is_local(pattern):
        return [file for name in glob.glob(str(pattern), recursive=True) if (file := as_path(name)).is_file()]
    if "**" in str(pattern):
        raise ValueError(f"corpus.path = {str(pattern)!r}: ** is not searched in an object store; name the folder")
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return [file for file in Path(*parts[:first]).glob("/".join(parts[first:])) if file.is_file()]


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The decompressed content of a file. Arrow decompresses: python-zstandard reads a file that is cut short as whole.

    Raises:
        ValueError: the compressed stream is corrupt or cut short (raised where it is read).
    """
    codec = COMPRESSED.get(path.suffix)
    with path.open("rb") as raw:
        if codec is None:
            yield cast(BinaryIO, raw)
            return
        try:
            with pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), codec) as stream:
                yield io.BufferedReader(cast(io.RawIOBase, stream), READ_BYTES)
        except OSError as error:
            if error.errno is not None:  # the disk or the network; Arrow's own errors have no number
                raise
            raise ValueError(f"{path}: corrupt or cut short ({error})") from None


def _lines(path: Path, start: int = 0, stop: int = sys.maxsize) -> Iterator[tuple[int, bytes]]:
    """Lines that begin in the bytes `start … stop - 1` of the content, each with its number counted from there."""
    with open_bytes(path) as file:
        at = number = 0
        if start:  # the line that holds byte start - 1 belongs to the range before
            file.seek(start - 1)
            at = start - 1 + _skip_line(file)
        while at < stop and (line := file.readline(MOST_LINE_BYTES + 1)):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"{path}: line {_line_number(path, start, number)}: longer than 64 MiB: {BREAK_IT}")
            at += len(line)
            yield number, line


def _skip_line(file: BinaryIO) -> int:
    """Bytes up to and with the next line end."""
    passed = 0
    while line := file.readline(READ_BYTES):
        passed += len(line)
        if line.endswith(b"\n"):
            break
    return passed


def _line_number(path: Path, start: int, number: int) -> int:
    """The number in the file of the `number`-th line that begins at byte `start` or later."""
    if not start:
        return number
    with path.open("rb") as file:
        ends, left, last = 0, start, b""
        while left and (chunk := file.read(min(READ_BYTES, left))):
            ends, left, last = ends + chunk.count(b"\n"), left - len(chunk), chunk[-1:]
    return ends + number + (0 if last == b"\n" else 1)


def _decoded(path: Path, line: bytes, start: int, number: int) -> str:
    """The text of a line; the mark that some editors put at the start of a file is left out."""
    try:
        return line.decode("utf-8-sig" if number == 1 and not start else "utf-8")
    except UnicodeDecodeError as error:
        where = f"{path}: line {_line_number(path, start, number)}"
        said = f"not UTF-8 ({error.reason} at byte {error.start})"
        raise ValueError(f"{where}: {said}: {RECODE}") from None


def text_documents(path: str) -> Iterator[str]:
    """Text files, cut at blank lines into documents of 4096 characters or a little more; a short file is one."""
    for file in find_files(path, TEXT_SUFFIXES):
        piece, size = [], 0
        for number, raw in _lines(file):
            line = _decoded(file, raw, 0, number)
            piece.append(line)
            size += len(line)
            if size >= MOST_PIECE_CHARACTERS or (size >= PIECE_CHARACTERS and not line.strip()):
                yield "".join(piece).strip("\n")
                piece, size = [], 0
        yield "".join(piece).strip("\n")


def jsonl_documents(
    path: str, text_field: str, start: int = 0, stop: int = sys.maxsize, skip: Skip | None = None
) -> Iterator[str]:
    """The field `text_field` of the JSON object on each line; blank lines are passed over.

    Args:
        path: file, folder or glob.
        text_field: name of the field.
        start: only lines that begin at this byte or later.
        stop: only lines that begin before this byte.
        skip: is told of each bad line, which is passed over then.

    Raises:
        ValueError: a line is not JSON or lacks the field; file and line are named.
    """
    for file in find_files(path, JSONL_SUFFIXES):
        for number, raw in _lines(file, start, stop):
            try:
                if (text := _json_text(file, raw, text_field, start, number)) is not None:
                    yield text
            except ValueError as error:
                if skip is None:
                    raise
                skip(str(error))


def _json_text(file: Path, raw: bytes, text_field: str, start: int, number: int) -> str | None:
    """The text of one line, None for a blank one."""
    line = _decoded(file, raw, start, number)
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of more than 4300 digits
        raise ValueError(f"{file}: line {_line_number(file, start, number)}: not JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
        known = ", ".join(record) if isinstance(record, dict) else "none: not an object"
        where = f"{file}: line {_line_number(file, start, number)}"
        raise ValueError(f"{where}: no text in field {text_field!r}; its fields: {known}")
    return record[text_field]


def parquet_documents(path: str, text_field: str) -> Iterator[str]:
    """The string column `text_field` of Parquet files, row group by row group; nulls are passed over.

    Raises:
        ValueError: a file is corrupt or has no such column; it is named.
    """
    for file in find_files(path, PARQUET_SUFFIXES):
        with file.open("rb") as raw:
            try:
                table = pyarrow.parquet.ParquetFile(raw)
                schema = table.schema_arrow
                kinds = (pyarrow.types.is_string, pyarrow.types.is_large_string)
                if text_field not in schema.names or not any(kind(schema.field(text_field).type) for kind in kinds):
                    raise ValueError(f"{file}: no text column {text_field!r}; its columns: {', '.join(schema.names)}")
                _check_expansion(file, table.metadata, text_field)
                for batch in table.iter_batches(BATCH_ROWS, columns=[text_field]):
                    yield from (text for text in batch.column(0).to_pylist() if text is not None)
            except (pyarrow.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # the disk or the network
                    raise
                first = str(error).splitlines()[0]
                raise ValueError(f"{file}: not a readable Parquet file ({first})") from None


def _check_expansion(file: Path, metadata: pyarrow.parquet.FileMetaData, text_field: str) -> None:
    """Refuses a file of few bytes that asks for gigabytes: a page is decompressed whole."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in (group.column(i) for i in range(group.num_columns)):
            grown, stored = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if column.path_in_schema == text_field and grown > max(ALWAYS_FINE_BYTES, MOST_EXPANSION * stored):
                said = f"{file}: row group {number} grows from {stored} to {grown} bytes"
                raise ValueError(f"{said}, more than text does: write the file again, or leave it out")
