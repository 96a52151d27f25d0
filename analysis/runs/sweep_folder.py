"""A sweep's folder as rows: what the plan names, what its runs left, and what of that is damaged or contradicts itself.

No run vanishes: a result that cannot be believed stays in the table under its run_id, with the reason in
`excluded_reason`. A damaged plan is refused, because writing it anew is one command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.runs.columns import COLUMNS
from mdm_jax.files.layout import PLAN_AGAIN, PLAN_FILE, RESULT_FILE, RUNS_FOLDER, SPEC_FILE, PlanLine, plan_lines
from mdm_jax.files.results import Status, contradictions, result_of, result_tree
from mdm_jax.files.sealed_json import Damaged, Newer
from mdm_jax.files.storage import Path
from mdm_jax.spec import RunSpec

MISSING = "missing"
"""Status of a run that the plan names and that has left no result."""
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
    """A line of the plan: its text, the run's row without a result, and its spec where this version can read it."""

    row: Mapping[str, Any]
    spec: RunSpec | None
    text: str


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
        rows[run.name] = _result_row(run, planned.get(run.name))
    return list(rows.values())


def _read_plan(file: Path) -> dict[str, _Planned]:
    """The plan's lines by run_id, with rows of status `missing`; what a full RunSpec says is filled in."""
    lines: dict[str, _Planned] = {}
    for line in plan_lines(file):
        tree = line.tree()
        name = tree.get("run_id")
        if not isinstance(name, str):
            raise ValueError(f"{line.place} is not a run (an object with run_id)")
        if name in lines:
            raise ValueError(f"{line.place}: run {name} stands in an earlier line too; {PLAN_AGAIN}")
        spec = _spec_of(line, tree)
        if spec is None:  # another version's spec still tells which runs there should be
            row = {key: tree[key] for key in COLUMNS if isinstance(tree.get(key), str | int | float)}
        else:
            row = vars(result_of(spec, Status.RUNNING))
        lines[name] = _Planned({**row, "run_id": name, "status": MISSING}, spec, line.text)
    return lines


def _spec_of(line: PlanLine, tree: Mapping[str, Any]) -> RunSpec | None:
    """The spec of a whole line with this tree; None where a newer version, or another program, wrote it."""
    if not isinstance(tree.get("schema_version"), int):
        return None
    try:
        return line.run()
    except Newer:
        return None


def _result_row(run: Path, planned: _Planned | None) -> dict[str, Any]:
    """The row of a run that left a result; where the files disagree, with the reason to leave it out."""
    name, expected = run.name, dict(planned.row) if planned else {}
    try:
        tree = result_tree(run / RESULT_FILE)
    except Damaged as error:
        reason = f"{DAMAGED_RESULT}: {error}"
        return {**expected, "run_id": name, "status": Status.FAILED.value, "excluded_reason": reason}
    row = {key: value for key, value in tree.items() if value is None or isinstance(value, str | int | float)}
    reason = _contradiction(run, row, planned)
    if reason:
        row |= {"run_id": name, "excluded_reason": reason}
    return {**expected, "run_id": name, **row}


def _contradiction(run: Path, row: Mapping[str, Any], line: _Planned | None) -> str:
    """What in a run's folder contradicts its spec, in the plan or in spec.json; empty if nothing does."""
    planned = line.spec if line else None
    file, own = run / SPEC_FILE, planned
    text = file.read_bytes().decode(errors="replace") if file.exists() else None
    if text is not None and not (line and text.strip() == line.text.strip()):  # the plan's line is checked already
        try:
            written = PlanLine(str(file), text)
            own = _spec_of(written, written.tree())
        except ValueError:
            return DAMAGED_SPEC
    for source, spec in (("plan.jsonl", planned), ("spec.json", own if own != planned else None)):
        wrong = contradictions(row, spec) if spec else ()
        if wrong:
            return f"{CONTRADICTS}: {', '.join(wrong)} ({source})"
    return ""
