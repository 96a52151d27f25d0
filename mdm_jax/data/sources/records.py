"""Documents from the records of JSONL and Parquet files."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow
import pyarrow.parquet

from mdm_jax.data.sources.files import Line, read_lines
from mdm_jax.files.storage import Path, as_path

T = TypeVar("T")
TEXT_TYPES = (pyarrow.string(), pyarrow.large_string())
BATCH_ROWS = 64
"""Rows of a Parquet file in memory at a time. The file may store a long text once for many rows; memory does not."""
MOST_EXPANSION, ALWAYS_FINE_BYTES = 1000, 8 << 20
"""Text compresses by less than this factor. Column chunks with fewer bytes than this are not checked."""
Skip = Callable[[str], None]
"""Called with a message about each bad line or file that is skipped."""


def jsonl_documents(
    path: str, text_field: str, start: int = 0, stop: int = sys.maxsize, skip: Skip | None = None
) -> Iterator[str]:
    """The field `text_field` of the JSON object on each line; see `jsonl_records`."""
    return jsonl_records(path, lambda record, line: text_of(record, text_field, line), start, stop, skip)


def jsonl_records(
    path: str,
    convert: Callable[[Any, Line], T],
    start: int = 0,
    stop: int = sys.maxsize,
    skip: Skip | None = None,
) -> Iterator[T]:
    """What `convert` makes of the JSON value on each line; blank lines are skipped.

    Args:
        path: the file.
        convert: gets the value and its line. It may raise ValueError, with a message that names the line.
        start: only lines that begin at this byte or later.
        stop: only lines that begin before this byte.
        skip: called for each bad line, which is then skipped; by default a bad line is an error.

    Raises:
        ValueError: a line is not JSON, or `convert` refuses it; the message names file and line.
    """
    for line in read_lines(as_path(path), start, stop):
        try:
            if (content := line.text).strip():
                yield convert(_json(content, line), line)
        except ValueError as error:
            if skip is None:
                raise
            skip(str(error))


def _json(content: str, line: Line) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError: also a number with more than 4300 digits
        raise ValueError(f"{line.where}: not JSON ({error})") from None


def text_of(record: Any, field: str, line: Line) -> str:
    """The text in a field of a record.

    Raises:
        ValueError: the record is no object, or has no text there; the message names file, line and fields.
    """
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        known = ", ".join(record) if isinstance(record, dict) else "none: not an object"
        raise ValueError(f"{line.where}: no text in field {field!r}; its fields: {known}")
    return record[field]


def parquet_documents(path: str, text_field: str) -> Iterator[str]:
    """The string column `text_field` of a Parquet file; nulls are skipped.

    Raises:
        ValueError: the file (named) is corrupt or has no such column.
    """
    file = as_path(path)
    with file.open("rb") as raw:
        try:
            table = pyarrow.parquet.ParquetFile(raw)
            schema = table.schema_arrow
            if text_field not in schema.names or schema.field(text_field).type not in TEXT_TYPES:
                raise ValueError(f"{file}: no text column {text_field!r}; its columns: {', '.join(schema.names)}")
            _check_expansion(file, table.metadata, text_field)
            for batch in table.iter_batches(BATCH_ROWS, columns=[text_field]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk or the network failed
                raise
            first = str(error).splitlines()[0]
            raise ValueError(f"{file}: not a readable Parquet file ({first})") from None


def _check_expansion(file: Path, metadata: pyarrow.parquet.FileMetaData, text_field: str) -> None:
    """Refuses a small file that would take gigabytes in memory, because a page is decompressed whole."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            grown, stored = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if column.path_in_schema == text_field and grown > max(ALWAYS_FINE_BYTES, MOST_EXPANSION * stored):
                message = f"{file}: row group {number} grows from {stored} to {grown} bytes"
                raise ValueError(f"{message}, more than text does: write the file again, or leave it out")
