"""A sweep's folder in which a file was damaged or contradicts another: the run is left out by name, never believed."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from analysis import check, read_runs
from analysis.runs.consistency import contradictions_within
from analysis.runs.learning_rates import DROPPED
from analysis.runs.sweep_folder import sweep_rows
from mdm_jax.files.results import TRUNK_SEGMENT, Status, implied_by, result_of, write_result
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.files.storage import as_path, write_atomic
from mdm_jax.spec import CellSpec, Family, RunSpec, pair, to_json

MDM = RunSpec(cell=CellSpec(budget=1e12, group="a"), data=dataclasses.replace(RunSpec().data, data_hash="ab" * 32))
ARM = pair(MDM, Family.ARM)
FLIPS = 60


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A plan of two runs, both finished."""
    (tmp_path / "plan.jsonl").write_text(to_json(MDM) + "\n" + to_json(ARM) + "\n")
    for run, loss in ((MDM, 2.9), (ARM, 2.5)):
        row = result_of(run, Status.OK, loss=loss, loss_se_mc=0.0, data_hash=run.data.data_hash)
        write_result(tmp_path / "runs" / run.run_id / "result.json", row)
        write_atomic(tmp_path / "runs" / run.run_id / "spec.json", to_json(run) + "\n")
    return tmp_path


def reason(sweep: Path, run: RunSpec = ARM) -> str:
    """Why the run is left out."""
    table = read_runs(sweep)
    assert list(table["run_id"]) == [MDM.run_id, ARM.run_id]
    return str(table.set_index("run_id")["excluded_reason"][run.run_id])


@pytest.mark.parametrize("name", ["result.json", "spec.json", "plan.jsonl"])
def test_a_flipped_bit_is_named_or_changes_nothing(sweep: Path, name: str) -> None:
    path = sweep / name if name == "plan.jsonl" else sweep / "runs" / ARM.run_id / name
    whole, before = path.read_bytes(), sweep_rows(as_path(sweep))
    rng, refused = random.Random(5), []
    for bit in rng.sample(range(8 * len(whole)), FLIPS):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            mdm, arm = sweep_rows(as_path(sweep))
        except ValueError as error:
            refused.append(str(error))
            continue
        if [mdm, arm] != before:
            assert (mdm, arm["run_id"]) == (before[0], ARM.run_id)
            refused.append(arm["excluded_reason"])
    said = "plan.jsonl line" if name == "plan.jsonl" else f"{name} is damaged"
    assert all(said in reason for reason in refused)
    assert len(refused) > 0.9 * FLIPS  # the others are blanks


def test_what_is_left_out_is_a_finding_with_its_remedy(sweep: Path) -> None:
    path = sweep / "runs" / ARM.run_id / "result.json"
    path.write_text(path.read_text().replace('"loss": 2.5', '"loss": 1.5'))
    assert reason(sweep).startswith("result.json is damaged: sha256")
    found = {f.code: f for f in check(read_runs(sweep))}["result_json_is_damaged_runs"]
    assert ARM.run_id in found.message
    assert "python -m isoflop.run" in found.remedy


def other_values() -> list[tuple[str, Any]]:
    """Each column that follows from the spec, with a value that does not."""
    changed = []
    for name, value in implied_by(ARM).items():
        if isinstance(value, float | int):
            changed.append((name, value * 2 + 1))
        elif name != "run_id":
            changed.append((name, {"family": "mdm", "loss_kind": "nelbo"}.get(name, "other")))
    return [
        *changed,
        ("eval_tokens", ARM.evaluation.eval_tokens + 1),
        ("eval_tokens", "many"),
        ("data_hash", "cd" * 32),
    ]


@pytest.mark.parametrize(("name", "value"), other_values(), ids=[name for name, _ in other_values()])
def test_a_sealed_row_that_is_not_its_specs_is_left_out(sweep: Path, name: str, value: Any) -> None:
    """The seal fits, as in a row that a bug wrote: only the spec tells that it is wrong."""
    path = sweep / "runs" / ARM.run_id / "result.json"
    tree = unseal(path.read_text(), since=3) | {name: value}
    path.write_text(json.dumps(seal(tree)))
    said = [row["excluded_reason"] for row in sweep_rows(as_path(sweep))]
    assert said == ["", f"result.json contradicts its spec: {name} (plan.jsonl)"]
    (sweep / "plan.jsonl").unlink()
    said = {row["run_id"]: row["excluded_reason"] for row in sweep_rows(as_path(sweep))}
    assert said == {MDM.run_id: "", ARM.run_id: f"result.json contradicts its spec: {name} (spec.json)"}


def test_a_result_in_another_runs_folder_is_left_out_and_hides_nothing(sweep: Path) -> None:
    other = (sweep / "runs" / MDM.run_id / "result.json").read_text()
    (sweep / "runs" / ARM.run_id / "result.json").write_text(other)
    assert reason(sweep).startswith("result.json contradicts its spec: run_id, family")
    assert reason(sweep, MDM) == ""


def test_a_segment_that_does_not_say_so_is_left_out(sweep: Path) -> None:
    segment = dataclasses.replace(ARM, cell=dataclasses.replace(ARM.cell, segment=True))
    (sweep / "plan.jsonl").write_text(to_json(MDM) + "\n" + to_json(segment) + "\n")
    (sweep / "runs" / ARM.run_id / "spec.json").unlink()
    assert reason(sweep) == "result.json contradicts its spec: excluded_reason (plan.jsonl)"
    row = result_of(segment, Status.OK, loss=2.5, loss_se_mc=0.0)
    write_result(sweep / "runs" / ARM.run_id / "result.json", row)
    assert reason(sweep) == TRUNK_SEGMENT


def test_a_result_from_before_the_seals_is_compared_with_its_spec_too(sweep: Path) -> None:
    path = sweep / "runs" / ARM.run_id / "result.json"
    tree = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("sha256", "group")}
    path.write_text(json.dumps(tree | {"schema_version": 1}))
    assert reason(sweep) == ""
    path.write_text(json.dumps(tree | {"schema_version": 1, "seed": 3}))
    assert reason(sweep) == "result.json contradicts its spec: seed (plan.jsonl)"


def test_a_line_that_stands_twice_is_refused(sweep: Path) -> None:
    with (sweep / "plan.jsonl").open("a") as file:
        file.write(to_json(MDM) + "\n")
    with pytest.raises(ValueError, match=rf"plan\.jsonl line 3: run {MDM.run_id} stands in an earlier line too"):
        read_runs(sweep)


# tables, which are made to be edited by hand and carry no seal


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [
        ("tokens", 2, "tokens, flops_6nd, epochs"),
        ("params", 1.01, "params"),
        ("params_non_embedding", 2, "params_non_embedding, flops_6nd"),
        ("n_layers", 2, "params, params_non_embedding"),
        ("steps", 2, "tokens"),
        ("flops_6nd", 1.01, "flops_6nd"),
        ("epochs", 2, "epochs"),
    ],
)
def test_a_row_of_ours_that_contradicts_itself_is_left_out(sweep: Path, name: str, factor: float, said: str) -> None:
    table = read_runs(sweep).assign(unique_tokens=1e6)
    table["epochs"] = table["tokens"] / 1e6
    assert contradictions_within(table) == ["", ""]
    table.loc[1, name] *= factor
    assert contradictions_within(table) == ["", f"the row contradicts itself: {said}"]
    assert contradictions_within(table.assign(spec_hash="")) == ["", ""]  # a stranger's: other models, other units


def test_a_row_that_contradicts_itself_is_a_finding(sweep: Path) -> None:
    table = read_runs(sweep)
    table.loc[1, "tokens"] *= 2
    runs = read_runs(table)
    assert list(runs["excluded_reason"]) == ["", "the row contradicts itself: tokens, flops_6nd"]
    (finding,) = (f for f in check(runs) if f.code == "the_row_contradicts_itself_runs")
    assert ARM.run_id in finding.message


def test_published_tables_of_this_project_do_not_contradict_themselves() -> None:
    for file in (Path(__file__).parents[2] / "experiments/results").glob("*/run_table.csv"):
        assert set(read_runs(file)["excluded_reason"]) <= {"", DROPPED}, file
