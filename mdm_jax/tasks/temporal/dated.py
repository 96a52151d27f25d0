"""Dated texts from JSONL, and how texts are compared: exactly after normalisation, and with all numbers hidden."""

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mdm_jax.data.sources.files import Line, find_files, read_lines
from mdm_jax.tasks.temporal.dates import parse_date

Skip = Callable[[str], None]
"""Called with a message about each bad record that is skipped."""
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Dated:
    """A text with its day.

    `group` names texts that depend on each other, such as those of one package or one site. It is empty if nothing is
    known about that.
    """

    text: str
    date: datetime.date
    group: str = ""


def digest(text: str) -> bytes:
    """A hash that is equal for texts that differ only in white space and in upper and lower case."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).digest()


def digest_without_numbers(text: str) -> bytes:
    """Like `digest`, but texts that differ only in their numbers are equal too, such as those of two versions."""
    return digest(DIGITS.sub("0", text))


def cut_to(text: str, most_bytes: int) -> str:
    """The text up to its last line that ends within so many UTF-8 bytes; 0 leaves the text whole.

    A first line that is longer is cut within the line.
    """
    raw = text.encode()
    if not most_bytes or len(raw) <= most_bytes:
        return text
    kept = raw[:most_bytes].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1] or kept


@dataclass(frozen=True)
class Fields:
    """Names of the fields of a record. `group` is empty if the records have no such field."""

    text: str = "text"
    date: str = "date"
    group: str = ""


def read_dated(paths: Sequence[str], fields: Fields, skip: Skip | None = None) -> Iterator[Dated]:
    """The dated texts of JSONL files; records with a blank text are left out.

    Args:
        paths: files, folders or globs of `.jsonl`, also `.gz` and `.zst`.
        fields: names of the fields.
        skip: called for each bad record, which is then skipped; by default a bad record is an error.

    Raises:
        ValueError: no file, or a line is not JSON, lacks a field, or has a date that does not parse; the message names
            file and line.
    """
    for path in paths:
        for file in find_files(path, (".jsonl", ".json")):
            for line in read_lines(file):
                try:
                    found = _record(line, fields)
                except ValueError as error:
                    if skip is None:
                        raise
                    skip(str(error))
                    continue
                if found is not None:
                    yield found


def _record(line: Line, fields: Fields) -> Dated | None:
    """The record of one line; None for a blank line or text."""
    content = line.text
    if not content.strip():
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{line.where}: not JSON ({error})") from None
    wanted = [name for name in (fields.text, fields.date, fields.group) if name]
    missing = [name for name in wanted if not isinstance(record, dict) or not isinstance(record.get(name), str)]
    if missing:
        known = ", ".join(record) if isinstance(record, dict) else "none: not an object"
        raise ValueError(f"{line.where}: no text in field {missing[0]!r}; its fields: {known}")
    try:
        date = parse_date(record[fields.date])
    except ValueError as error:
        raise ValueError(f"{line.where}, field {fields.date!r}: {error}") from None
    text = record[fields.text]
    return Dated(text, date, record[fields.group] if fields.group else "") if text.strip() else None
