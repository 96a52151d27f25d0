"""A sweep's folder as rows: what the plan names, what its runs left, and what of that is damaged or contradicts itself.

No run vanishes: a result that cannot be believed stays in the table under its run_id, with the reason in
`excluded_reason`. A damaged plan is refused, because writing it anew is one command.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.runs.columns import COLUMNS
from mdm_jax import results
from mdm_jax.files.sealed_json import Damaged, numbered_lines, unseal
from mdm_jax.files.storage import Path
from mdm_jax.layout import PLAN_FILE, RESULT_FILE, RUNS_FOLDER, SPEC_FILE
from mdm_jax.results import TABLE_VERSION, Status, contradictions, result_of
from mdm_jax.spec import SCHEMA_VERSION, SEALED_SINCE, RunSpec, from_json

MISSING = "missing"
"""Status of a run that the plan names and that has left no result."""
AGAIN = "plan again with the same command"
MAX_RESULT_BYTES = 1 << 20
DAMAGED_RESULT = "result.json is damaged"
DAMAGED_SPEC = "spec.json is damaged"
CONTRADICTS = "result.json contradicts its spec"
REMEDIES = {
    DAMAGED_RESULT: "python -m isoflop.run DIR sets the file aside and evaluates the run again from its checkpoint",
    DAMAGED_SPEC: "remove the file if plan.jsonl names the run: the analysis then reads the plan's line",
    CONTRADICTS: "find out which of the two is wrong; remove the run's folder and run it again",
}


@dataclass(frozen=True)
class _Planned:
    """A line of the plan: the run's row without a result, and its spec where this version can read it."""

    row: Mapping[str, Any]
    spec: RunSpec | None


def sweep_rows(where: Path) -> list[dict[str, Any]]:
    """Rows of the plan in its order, then those of results that the plan does not name.

    Raises:
        ValueError: neither plan nor results; a line of the plan is damaged or stands twice (file and line are named);
            a result is of a newer version.
    """
    plan_file, runs = where / PLAN_FILE, where / RUNS_FOLDER
    if not runs.is_dir():
        runs = where
    planned = _read_plan(plan_file) if plan_file.exists() else {}
    found = [run for run in sorted(runs.iterdir()) if (run / RESULT_FILE).exists()]
    if not planned and not found:
        raise ValueError(f"{where}: holds neither plan.jsonl nor <run_id>/result.json; give a sweep's directory")
    rows = {name: dict(line.row) for name, line in planned.items()}
    for run in found:
        rows[run.name] = _row(run, planned.get(run.name))
    return list(rows.values())


def _read_plan(file: Path) -> dict[str, _Planned]:
    """The plan's lines by run_id, with rows of status `missing`; what a full RunSpec says is filled in."""
    lines: dict[str, _Planned] = {}
    for number, line in numbered_lines(file.read_bytes()):
        place = f"{file}: line {number}"
        try:
            tree = unseal(line, SEALED_SINCE)
        except Damaged as error:
            raise ValueError(f"{place} is half written or damaged ({error}): {AGAIN}") from None
        name = tree.get("run_id")
        if not isinstance(name, str):
            raise ValueError(f"{place} is not a run (an object with run_id)")
        if name in lines:
            raise ValueError(f"{place}: run {name} stands in an earlier line too: {AGAIN}")
        spec = _spec_of(place, line, tree)
        if spec is None:  # another version's spec still tells which runs there should be
            row = {key: tree[key] for key in COLUMNS if isinstance(tree.get(key), str | int | float)}
        else:
            row = dataclasses.asdict(result_of(spec, Status.RUNNING))
        lines[name] = _Planned({**row, "run_id": name, "status": MISSING}, spec)
    return lines


def _spec_of(place: str, line: str, tree: Mapping[str, Any]) -> RunSpec | None:
    """The spec of a whole line; None where another version, or another program, wrote it."""
    version = tree.get("schema_version")
    try:
        return from_json(line)
    except ValueError as error:
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            return None
        raise ValueError(f"{place}: {error}: {AGAIN}") from None


def _row(run: Path, planned: _Planned | None) -> dict[str, Any]:
    """The row of a run that left a result; where the files disagree, with the reason to leave it out."""
    name, expected = run.name, dict(planned.row) if planned else {}
    try:
        row = _read_result(run / RESULT_FILE)
    except Damaged as error:
        reason = f"{DAMAGED_RESULT}: {error}"
        return {**expected, "run_id": name, "status": Status.FAILED.value, "excluded_reason": reason}
    reason = _fault(run, row, planned.spec if planned else None)
    if reason:
        row |= {"run_id": name, "excluded_reason": reason}
    return {**expected, "run_id": name, **row}


def _read_result(file: Path) -> dict[str, Any]:
    """The plain values of a `result.json`.

    Raises:
        Damaged: it is no JSON object, or its seal does not fit.
        ValueError: it is of a newer version.
    """
    tree = unseal(file.read_bytes() if file.stat().length <= MAX_RESULT_BYTES else b"", results.SEALED_SINCE)
    version = tree.get("schema_version", TABLE_VERSION)
    if not isinstance(version, int) or version > TABLE_VERSION:
        raise ValueError(f"{file}: schema_version {version!r}, known up to {TABLE_VERSION}: update mdm-jax")
    return {key: value for key, value in tree.items() if value is None or isinstance(value, str | int | float)}


def _fault(run: Path, row: Mapping[str, Any], planned: RunSpec | None) -> str:
    """What in a run's folder contradicts its spec, in the plan or in spec.json; empty if nothing does."""
    file, own = run / SPEC_FILE, None
    if file.exists():
        try:
            text = file.read_bytes().decode(errors="replace")
            own = _spec_of(str(file), text, unseal(text, SEALED_SINCE))
        except ValueError:
            return DAMAGED_SPEC
    for source, spec in (("plan.jsonl", planned), ("spec.json", own if own != planned else None)):
        wrong = contradictions(row, spec) if spec else ()
        if wrong:
            return f"{CONTRADICTS}: {', '.join(wrong)} ({source})"
    return ""
