"""Training metrics as JSON lines, in part files that end at every checkpoint.

There are parts because object stores cannot append, and because a resumed run must not repeat rows. A part is named by
its first step. A run that resumes from a step deletes the parts that start there or later, and writes them again.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

from mdm_jax.files.storage import (
    Kind,
    Path,
    entries,
    is_local,
    kind,
    make_folder,
    open_no_link,
    refuse_link,
    sync_folder,
)

PART = re.compile(r"(\d{10}|[1-9]\d{10,})\.jsonl", re.ASCII)
MOST_PART_BYTES = 1 << 28
TAIL_BYTES = 4096
"""Bytes that are read for the newest row; a row has a few hundred."""


def _parts(folder: Path) -> list[tuple[int, Path]]:
    """The first step and the file of every part, in order."""
    named = [(PART.fullmatch(entry.name), entry) for entry in entries(folder)]
    return sorted((int(match[1]), entry) for match, entry in named if match)


class MetricsWriter:
    """Writes the rows of one run into `folder`, from `step` on."""

    def __init__(self, folder: Path, step: int):
        """Deletes the parts that start at `step` or later, because they will be written again.

        Raises:
            ValueError: the folder or one of these parts is a link.
            OSError: no access. The parts before `step` are untouched.
        """
        refuse_link(folder)
        make_folder(folder)
        late = [part for first, part in _parts(folder) if first >= step]
        for part in late:
            refuse_link(part)
        for part in reversed(late):
            if kind(part) is Kind.FILE:
                part.unlink()
        self._folder = folder
        self._start(step)

    def _start(self, step: int) -> None:
        self._path, self._rows = self._folder / f"{step:010d}.jsonl", []
        self._file: IO | None = None

    def write(self, row: Mapping[str, float | int]) -> None:
        """Adds a row, which can be read at once if the folder is on a disk.

        Raises:
            OSError: no space or no access.
        """
        line = json.dumps(row) + "\n"
        if not is_local(self._folder):
            self._rows.append(line)
            return
        try:
            if self._file is None:
                self._file = open_no_link(self._path, "w")
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise self._not_written(error) from error

    def next_part(self, step: int) -> None:
        """Closes the part; rows after `step` go to the next part.

        Call it before the checkpoint at `step` is written. If the run is killed between the two, it resumes from an
        older step, and this part is deleted and written again.
        """
        self.close()
        self._start(step)

    def close(self) -> None:
        """Closes the part, which then survives a power cut. In an object store, only this writes the part.

        Raises:
            OSError: no space or no access.
        """
        try:
            if self._file is not None and not self._file.closed:
                with self._file:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                sync_folder(self._folder)
            elif self._rows:
                self._path.write_text("".join(self._rows))
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> OSError:
        return OSError(f"metrics {self._path} not written: {error.strerror or error}")


def metric_rows(folder: Path) -> Iterator[tuple[str, Any]]:
    """The file and line, for messages, and the content of each row of a run, in order.

    A last line that a crash cut off is left out.

    Raises:
        ValueError: a part is larger than a training curve can be, or a line is not JSON; it is named.
        OSError: a part cannot be read now.
    """
    for _, part in _parts(folder):
        if part.stat().length > MOST_PART_BYTES:
            raise ValueError(f"{part}: larger than {MOST_PART_BYTES >> 20} MiB, which is no part of a training curve")
        for number, line in enumerate(part.read_bytes().decode(errors="replace").splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                break
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise ValueError(f"{part}: line {number} is not JSON") from None
            yield f"{part}: line {number}", row


def read_metrics(folder: Path) -> list[dict[str, float | int]]:
    """All rows of a run in order; see `metric_rows`."""
    return [row for _, row in metric_rows(folder)]


def newest_row(folder: Path) -> tuple[dict[str, float | int], float] | None:
    """The newest whole row of a run and the time when it was written (seconds since 1970); None before the first row.

    It is fast enough for a display that asks several times a second. The folder must be on a local disk.
    """
    for _, part in reversed(_parts(folder)):
        try:
            with open(part, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().split(b"\n")
                written = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:  # the run resumes from an earlier step, and has just deleted this part
            continue
        if len(lines) > 1:
            return json.loads(lines[-2]), written
    return None
