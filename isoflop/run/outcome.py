"""The outcome of each planned run: its `result.json`, which the runner writes if the run died, and `runs.csv`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mdm_jax.files.layout import RESULT_FILE, RUNS_FOLDER
from mdm_jax.files.results import RunResult, Status, read_result, result_of, to_csv, write_result
from mdm_jax.files.storage import write_atomic
from mdm_jax.spec import RunSpec

TABLE_FILE = "runs.csv"


def run_folder(directory: Path, run: RunSpec) -> Path:
    """`directory/runs/RUN_ID`."""
    return directory / RUNS_FOLDER / run.run_id


def read_row(directory: Path, run: RunSpec) -> RunResult | None:
    """The run's row; None if there is none yet, or a damaged one (see `set_aside_unusable`).

    Raises:
        OSError: the row cannot be read now.
    """
    try:
        row = read_result(run_folder(directory, run) / RESULT_FILE)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return row if row.run_id == run.run_id else None


def is_done(row: RunResult | None) -> bool:
    """Whether the row is final."""
    return row is not None and row.status is not Status.RUNNING


def is_blocked(row: RunResult | None) -> bool:
    """Whether the run never started because its parent diverged or failed."""
    return row is not None and row.status is Status.FAILED and row.attempts == 0


def write_failure(directory: Path, run: RunSpec, reason: str, attempts: int, seconds: float) -> RunResult:
    """Writes and returns the `failed` row of a run that wrote no final row. What the run had recorded is kept.

    Args:
        reason: how the run ended.
        attempts: number of all attempts so far.
        seconds: wall seconds of all attempts.
    """
    begun = read_row(directory, run) or result_of(run, Status.RUNNING, data_hash=run.data.data_hash)
    row = dataclasses.replace(
        _with_seconds(begun, seconds), status=Status.FAILED, excluded_reason=reason, attempts=attempts
    )
    write_result(run_folder(directory, run) / RESULT_FILE, row)
    return row


def with_attempts(directory: Path, run: RunSpec, row: RunResult, attempts: int) -> RunResult:
    """The row with at least this many attempts. It is written again if the run itself has counted fewer."""
    if row.attempts >= attempts:
        return row
    row = dataclasses.replace(row, attempts=attempts)
    write_result(run_folder(directory, run) / RESULT_FILE, row)
    return row


def raise_seconds(directory: Path, run: RunSpec, seconds: float) -> None:
    """Raises the wall seconds in the run's row, if there is one, to at least `seconds`."""
    row = read_row(directory, run)
    if row is not None and (row.wall_seconds or 0.0) < seconds:
        write_result(run_folder(directory, run) / RESULT_FILE, _with_seconds(row, seconds))


def _with_seconds(row: RunResult, seconds: float) -> RunResult:
    """The row with at least this many wall seconds. Added seconds are not training steps, so `goodput` falls."""
    before = row.wall_seconds or 0.0
    if before >= seconds:
        return row
    goodput = None if row.goodput is None else round(row.goodput * before / seconds, 6)
    return dataclasses.replace(row, wall_seconds=round(seconds, 3), goodput=goodput)


def write_table(directory: Path, runs: Sequence[RunSpec]) -> list[RunResult]:
    """Writes `runs.csv`, in the order of the plan, and returns its rows: of all runs that were ever started."""
    rows = []
    for run in runs:
        row = read_row(directory, run)
        if row is None and run_folder(directory, run).is_dir():
            row = result_of(run, Status.RUNNING)
        if row is not None:
            rows.append(row)
    write_atomic(directory / TABLE_FILE, to_csv(rows))
    return rows
