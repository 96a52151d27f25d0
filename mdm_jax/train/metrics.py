"""Training metrics as JSON lines, in part files that are closed at every checkpoint.

Object stores cannot append, and a resumed run must not repeat rows: a part is named by the step it starts at, so
resuming from a step deletes the parts that start there or later, and writes them again.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import IO

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
TAIL_BYTES = 4096
"""A row has a few hundred."""


def _parts(folder: Path) -> list[tuple[int, Path]]:
    """The first step and the file of every part, in order."""
    named = [(PART.fullmatch(entry.name), entry) for entry in entries(folder)]
    return sorted((int(match[1]), entry) for match, entry in named if match)


class MetricsWriter:
    """Writes rows of one run below `folder`, from `step` on."""

    def __init__(self, folder: Path, step: int):
        """Deletes the parts that start at `step` or later: they are about to be written again.

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
        """Adds a row; on a disk it can be read at once.

        Raises:
            OSError: no room or no access.
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
        """Closes the part; rows after `step` go to the next one.

        Call it before the checkpoint at `step` is written: a run that is killed between the two resumes from an older
        step, whose part holds these rows and is written again.
        """
        self.close()
        self._start(step)

    def close(self) -> None:
        """Closes the part, which then survives a power cut; in an object store this is what writes it.

        Raises:
            OSError: no room or no access.
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


def read_metrics(folder: Path) -> list[dict[str, float | int]]:
    """All rows of a run in order; a last line that a crash cut off is left out."""
    rows = []
    for _, part in _parts(folder):
        for line in part.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                rows.append(json.loads(line))
    return rows


def newest_row(folder: Path) -> tuple[dict[str, float | int], float] | None:
    """The newest whole row of a run and the time when it was written (seconds since 1970); None before the first row.

    Costs little, so that a display may ask several times a second. On a local disk only.
    """
    for _, part in reversed(_parts(folder)):
        try:
            with open(part, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().split(b"\n")
                written = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:  # the run goes on from an earlier step, and has just deleted this part
            continue
        if len(lines) > 1:
            return json.loads(lines[-2]), written
    return None
