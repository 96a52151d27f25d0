"""The JSON records of a file: one record a line, or all records in one array.

An array is read piece by piece, so that memory holds one record at a time. No record may be longer than 64 MiB.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mdm_jax.data.sources.files import MOST_LINE_BYTES, RECODE, Line, open_bytes, read_lines
from mdm_jax.data.sources.plain_text import decoded_text
from mdm_jax.files.storage import Path, as_path, is_file

T = TypeVar("T")
BLANKS = re.compile(r"[ \t\r\n]*")
FIRST_BYTES = 1 << 16
MOST_SHOWN = 80
DETAILS = re.compile(r"[:;(].*", re.DOTALL)


class BadRecord(ValueError):
    """A record that cannot be used.

    Attributes:
        where: the file, and the number of the line or of the record.
        fault: what is wrong, without the details in which records with the same fault differ.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.fault = where, DETAILS.sub("", reason).rstrip()


Skip = Callable[[BadRecord], None]
"""Called with each bad record, which is then left out."""


@dataclass(frozen=True)
class Record:
    """A JSON object of a file, and its place for messages."""

    where: str
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """The text of a field. Half surrogate pairs, which UTF-8 cannot write, become question marks.

        Raises:
            BadRecord: the field is absent or no text.
        """
        if name not in self.fields:
            raise BadRecord(self.where, f"no field {name!r}; its fields: {shown(', '.join(self.fields)) or 'none'}")
        return as_text(self.fields[name], self.where, f"field {name!r}")


def as_text(value: Any, where: str, name: str) -> str:
    """The value, which must be text, without half surrogate pairs.

    Raises:
        BadRecord: the value is no text.
    """
    if not isinstance(value, str):
        raise BadRecord(where, f"{name} is no text (but {type(value).__name__})")
    return value.encode(errors="replace").decode()


def shown(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"


def read_records(path: str, skip: Skip | None = None) -> Iterator[Record]:
    """The JSON objects of a file, in its order: those of an array, or one on each line that is not blank.

    Args:
        path: a JSON or JSONL file; `.gz` and `.zst` are decompressed.
        skip: called with each bad record, which is then left out; by default a bad record is an error.

    Raises:
        BadRecord: a record is not a JSON object, and there is no `skip`.
        ValueError: there is no such file, or it is corrupt; or an array ends early or is not JSON, after which no
            record can be found.
    """
    file = as_path(path)
    if not is_file(file):
        raise ValueError(f"{path}: no such file")
    values = _array(file) if _begins_with_bracket(file) else _lines(file)
    for where, value in values:
        if isinstance(value, dict):
            yield Record(where, value)
            continue
        bad = (
            value if isinstance(value, BadRecord) else BadRecord(where, f"no JSON object (but {type(value).__name__})")
        )
        if skip is None:
            raise bad
        skip(bad)


def convert_records(path: str, convert: Callable[[Record], T], skip: Skip | None = None) -> Iterator[T]:
    """What `convert` makes of each record of a file, in its order.

    Args:
        path: see `read_records`.
        convert: it may raise BadRecord.
        skip: called with each bad record, which is then left out; by default a bad record is an error.

    Raises:
        BadRecord, ValueError: see `read_records`; or `convert` refuses a record, and there is no `skip`.
    """
    for record in read_records(path, skip):
        try:
            converted = convert(record)
        except BadRecord as bad:
            if skip is None:
                raise
            skip(bad)
        else:
            yield converted


def _begins_with_bracket(file: Path) -> bool:
    with open_bytes(file) as content:
        return content.read(FIRST_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    """The place and the value of each line; a `BadRecord` in place of a value that cannot be read."""
    for line in read_lines(file):
        if line.raw.strip():
            yield line.where, _line_value(line)


def _line_value(line: Line) -> Any:
    try:
        content = line.text
    except ValueError:
        return BadRecord(line.where, f"not UTF-8: {RECODE}")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError: also a number with more than 4300 digits
        return BadRecord(line.where, f"not JSON ({error})")


def _array(file: Path) -> Iterator[tuple[str, Any]]:
    """The place and the value of each item of an array."""
    held = _Held(file)
    held.skip_blanks()
    held.at += 1
    number = 0
    while held.skip_blanks() != "]":
        number += 1
        where = f"{file}: record {number}"
        yield where, held.value(where)
        if (mark := held.skip_blanks()) == ",":
            held.at += 1
            if held.skip_blanks() == "]":
                raise ValueError(f"{where}: a comma follows, but no record")
        elif mark != "]":
            raise ValueError(f"{where}: {f'followed by {mark!r}' if mark else 'the file ends'} before the array does")
    held.at += 1
    if rest := held.skip_blanks():
        raise ValueError(f"{file}: {rest!r} follows the array: one array, or one record a line, is read")


class _Held:
    """The text of a file that is read but not used yet: `text` from `at` on."""

    def __init__(self, file: Path) -> None:
        self.text, self.at = "", 0
        self._more, self._decoder = filter(None, decoded_text(str(file))), json.JSONDecoder()

    def _read(self, characters: int) -> bool:
        """Reads at least so many characters, and returns whether the file had any left."""
        parts, count = list[str](), 0
        while count < max(characters, 1) and (part := next(self._more, "")):
            parts.append(part)
            count += len(part)
        if not parts:
            return False
        self.text, self.at = "".join([self.text[self.at :], *parts]), 0
        return True

    def skip_blanks(self) -> str:
        """The next character that is no blank; empty at the end of the file."""
        while True:
            match = BLANKS.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read(1):
                return ""

    def value(self, where: str) -> Any:
        """The next JSON value.

        Raises:
            ValueError: it is not JSON, or is longer than 64 MiB.
        """
        while True:
            held, end, value, wrong = len(self.text) - self.at, 0, None, ""
            try:
                value, end = self._decoder.raw_decode(self.text, self.at)
            except (ValueError, RecursionError) as error:  # a value that is not read to its end is not JSON either
                wrong = str(error).partition(": line")[0]
            if wrong and held > MOST_LINE_BYTES:
                raise ValueError(f"{where}: longer than 64 MiB, or not JSON ({wrong})")
            # A number may go on behind the held text. Reading twice as much keeps long values from being read again.
            if 0 < end < len(self.text) or not self._read(held):
                if wrong:
                    raise ValueError(f"{where}: not JSON ({wrong})")
                self.at = end
                return value
