"""Dated texts from JSONL, and how texts are compared: exactly after normalisation, and with all numbers hidden."""

import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mdm_jax.data.sources.files import Line, find_files
from mdm_jax.data.sources.records import Skip, jsonl_records, text_of
from mdm_jax.tasks.temporal.dates import parse_date

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

    def dated(record: Any, line: Line) -> Dated:
        text, date = text_of(record, fields.text, line), text_of(record, fields.date, line)
        group = text_of(record, fields.group, line) if fields.group else ""
        try:
            return Dated(text, parse_date(date), group)
        except ValueError as error:
            raise ValueError(f"{line.where}, field {fields.date!r}: {error}") from None

    for path in paths:
        for file in find_files(path, (".jsonl", ".json")):
            records = jsonl_records(str(file), dated, skip=skip)
            yield from (record for record in records if record.text.strip())
