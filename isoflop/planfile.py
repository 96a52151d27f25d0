"""`plan.jsonl`: one sealed RunSpec a line. A run with a result or a checkpoint keeps its line."""

import enum
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isoflop.trunks import moved_warmup
from mdm_jax.files.layout import (
    CHECKPOINTS_FOLDER,
    PLAN_AGAIN,
    PLAN_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    plan_lines,
    read_spec,
    steps_in,
)
from mdm_jax.files.results import Status, read_result
from mdm_jax.files.sealed_json import Damaged, Newer
from mdm_jax.files.storage import Kind, Path, as_path, entries, is_file, kind, write_atomic
from mdm_jax.spec import RunSpec, to_json


@dataclass(frozen=True)
class Written:
    """The plan that `write_plan` wrote, and how it differs from the older one."""

    runs: tuple[RunSpec, ...]
    """The cells of the plan."""
    added: int
    """The number of cells that the older plan did not have."""
    repaired: int
    """The number of damaged lines of the older plan, which were replaced."""
    dropped: tuple[str, ...]
    """run_ids of the older plan that are no longer planned. They had failed, or had no result and no checkpoint."""


def read_plan(directory: str | os.PathLike) -> tuple[RunSpec, ...]:
    """The runs of `directory/plan.jsonl`, in the order of its lines.

    Raises:
        ValueError: there is no plan, a line is damaged, edited, or of another schema, or two lines are the same run.
            The line is named, and a newer schema is called newer.
    """
    path, command = as_path(directory) / PLAN_FILE, f"python -m isoflop.plan --out {shlex.quote(str(directory))}"
    if not is_file(path):
        raise ValueError(f"{path}: no such file: write it with {command}")
    runs: dict[str, tuple[str, RunSpec]] = {}
    for line in plan_lines(path):
        run = line.run()
        first, _ = runs.setdefault(run.run_id, (line.place, run))
        if first != line.place:
            raise ValueError(f"{line.place}: run {run.run_id} stands in an earlier line too ({first}); {PLAN_AGAIN}")
    if not runs:
        raise ValueError(f"{path}: empty: write it with {command}")
    return tuple(run for _, run in runs.values())


def write_plan(directory: str | os.PathLike, runs: Sequence[RunSpec]) -> Written:
    """Writes the plan atomically. It replaces an older plan while no run has a folder; later it extends the older plan.

    An extended plan begins with the older lines, unchanged. A run with a result or a checkpoint must be in the new plan
    too. A run with neither, or a failed one, may be left out. A failed run takes its new line, for example with another
    mesh. Lines that a refinement appended (python -m isoflop.refine --accept) stay: no experiment file has them.

    Raises:
        ValueError: a run with a result or a checkpoint would be lost, or its corpus has changed, or the older plan has
            a newer schema than this version knows. The message says what to do.
        OSError: the folder is not writable or the disk is full; the older plan is untouched.
    """
    folder = as_path(directory)
    _refuse_newer(folder / PLAN_FILE)
    home = folder / RUNS_FOLDER
    states = {run.name: _state(run) for run in sorted(entries(home)) if kind(run, follow=True) is Kind.FOLDER}
    old, damaged = _read_older(folder) if states else ({}, 0)
    recovered = _specs_in_folders(home, states.keys() - old.keys()) if damaged else {}
    refined = {run_id: run for run_id, run in {**old, **recovered}.items() if run.cell.refined}
    new = {**refined, **{run.run_id: run for run in runs}}
    for run_id, state in states.items():
        if state is _State.WORK:
            _check_kept(folder, run_id, old, new)
    kept = {
        run_id: run if states.get(run_id) is not _State.FAILED and _same_corpus(run, new[run_id]) else new[run_id]
        for run_id, run in old.items()
        if run_id in new
    }
    merged = {**kept, **{run_id: run for run_id, run in new.items() if run_id not in kept}}
    write_atomic(folder / PLAN_FILE, "".join(to_json(run) + "\n" for run in merged.values()))
    dropped = tuple(run_id for run_id in old if run_id not in merged)
    return Written(tuple(merged.values()), len(merged.keys() - old.keys()), damaged, dropped)


class _State(enum.Enum):
    """What a run's folder holds."""

    WORK = "a checkpoint, or a result other than `failed`"
    FAILED = "the result `failed`"
    NOTHING = "neither result nor checkpoint"


def _state(run: Path) -> _State:
    result = run / RESULT_FILE
    if is_file(result):
        try:
            return _State.FAILED if read_result(result).status is Status.FAILED else _State.WORK
        except ValueError:  # damaged: it may have been a result worth keeping
            return _State.WORK
    return _State.WORK if steps_in(run / CHECKPOINTS_FOLDER) else _State.NOTHING


def _specs_in_folders(home: Path, run_ids: Iterable[str]) -> dict[str, RunSpec]:
    """The `spec.json` in each run's folder, by run_id; runs without a readable one are left out."""
    found = {}
    for run_id in sorted(run_ids):
        try:
            run = read_spec(home / run_id)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        if run.run_id == run_id:
            found[run_id] = run
    return found


def _check_kept(folder: Path, run_id: str, old: Mapping[str, RunSpec], new: Mapping[str, RunSpec]) -> None:
    """Refuses a new plan that lacks a run with a result or a checkpoint, or that gives it another corpus."""
    was, run = old.get(run_id), new.get(run_id)
    if run is None:
        why = moved_warmup(was, old.values(), new.values()) if was else ""
        raise ValueError(
            f"{folder}: run {run_id} of the existing plan is not in the new one, and it has a result or a checkpoint:"
            f" {why or 'keep its cell in the sweep'}, plan into another --out,"
            f" or delete {folder / RUNS_FOLDER} to start over"
        )
    if was and not _same_corpus(was, run):
        before, now = was.data.data_hash, run.data.data_hash
        raise ValueError(
            f"{folder}: the corpus in {run.data.directory} has changed since {run_id} was planned (data_hash"
            f" {before[:12]}, now {now[:12]}), and it has run: prepare the same corpus, or plan into another --out"
        )


def _same_corpus(was: RunSpec, now: RunSpec) -> bool:
    """Whether both name the same prepared corpus, or one of them was planned before it was prepared."""
    before, after = was.data.data_hash, now.data.data_hash
    return not before or not after or before == after


def _read_older(folder: Path) -> tuple[dict[str, RunSpec], int]:
    """Runs of the existing plan, by run_id, and the number of its lines that are damaged or repeated."""
    runs, damaged = {}, 0
    for line in plan_lines(folder / PLAN_FILE):
        try:
            run = line.run()
        except Damaged:
            damaged += 1
            continue
        damaged += run.run_id in runs
        runs.setdefault(run.run_id, run)
    return runs, damaged


def _refuse_newer(path: Path) -> None:
    """Refuses to change the plan of a newer version, because this version would drop its new fields."""
    for line in plan_lines(path):
        try:
            line.run()
        except Newer as error:
            raise ValueError(f"{error}, or plan into another --out") from None
        except ValueError:  # `_read_older` counts damaged lines, and refuses lines that are no run
            continue
