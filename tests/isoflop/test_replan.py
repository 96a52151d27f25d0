"""Planning again over a sweep that has begun: what has come to something stays, what failed may go, and it is said."""

import dataclasses
import json
from pathlib import Path

import pytest

from isoflop.plan.__main__ import main
from isoflop.planfile import read_plan, write_plan
from mdm_jax.files.results import Status, result_of, write_result
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.spec import CellSpec, HardwareSpec, RunSpec, to_json

FIRST, SECOND, THIRD = (RunSpec(seed=seed, cell=CellSpec(budget=1e12)) for seed in (1, 2, 3))
PLAN = ["--budgets", "1e12", "--sizes", "2x64", "--recipe", "tiny", "--seq-len", "64"]


def leave(directory: Path, run: RunSpec, status: Status | None, checkpoint: str = "") -> None:
    """What a run has left: its folder, a result, a checkpoint's folder."""
    folder = directory / "runs" / run.run_id
    (folder / "checkpoints" / checkpoint).mkdir(parents=True)
    if status is not None:
        write_result(folder / "result.json", result_of(run, status))


@pytest.mark.parametrize(
    ("status", "checkpoint"),
    [(None, ""), (None, "10.orbax-checkpoint-tmp"), (Status.FAILED, ""), (Status.FAILED, "10")],
)
def test_a_run_that_came_to_nothing_may_leave_the_plan(tmp_path: Path, status: Status | None, checkpoint: str) -> None:
    write_plan(tmp_path, [FIRST, SECOND])
    leave(tmp_path, FIRST, status, checkpoint)
    leave(tmp_path, SECOND, Status.OK)
    (tmp_path / "runs" / ".DS_Store").write_text("no run")
    written = write_plan(tmp_path, [SECOND, THIRD])
    assert (written.runs, written.added, written.dropped) == ((SECOND, THIRD), 1, (FIRST.run_id,))
    assert read_plan(tmp_path) == (SECOND, THIRD)
    assert (tmp_path / "runs" / FIRST.run_id).is_dir()


@pytest.mark.parametrize(
    ("status", "checkpoint"),
    [(Status.OK, ""), (Status.DIVERGED, ""), (Status.RUNNING, ""), (None, "10")],
)
def test_a_run_that_came_to_something_may_not(tmp_path: Path, status: Status | None, checkpoint: str) -> None:
    write_plan(tmp_path, [FIRST, SECOND])
    before = (tmp_path / "plan.jsonl").read_bytes()
    leave(tmp_path, FIRST, status, checkpoint)
    with pytest.raises(ValueError, match=rf"run {FIRST.run_id} .* has a result or a checkpoint: keep its cell"):
        write_plan(tmp_path, [SECOND])
    assert (tmp_path / "plan.jsonl").read_bytes() == before


def test_a_damaged_result_may_have_been_a_good_one(tmp_path: Path) -> None:
    write_plan(tmp_path, [FIRST, SECOND])
    leave(tmp_path, FIRST, Status.FAILED)
    path = tmp_path / "runs" / FIRST.run_id / "result.json"
    path.write_text(path.read_text().replace("failed", "fbiled"))
    with pytest.raises(ValueError, match="has a result or a checkpoint"):
        write_plan(tmp_path, [SECOND])


def test_a_failed_run_takes_its_new_line_and_others_keep_theirs(tmp_path: Path) -> None:
    write_plan(tmp_path, [FIRST, SECOND])
    leave(tmp_path, FIRST, Status.FAILED)
    leave(tmp_path, SECOND, Status.RUNNING)
    smaller = [dataclasses.replace(run, hardware=HardwareSpec(microbatches=2)) for run in (FIRST, SECOND)]
    assert write_plan(tmp_path, smaller).runs == (smaller[0], SECOND)


def test_the_command_says_what_left_the_plan(tmp_path: Path, capsys) -> None:
    assert main([*PLAN, "--out", str(tmp_path)]) == 0
    for run in read_plan(tmp_path):
        leave(tmp_path, run, Status.FAILED)
    capsys.readouterr()
    assert main([*PLAN, "--set", "run.optim.weight_decay=0", "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left the plan: 2 run(s) that failed, or had neither result nor checkpoint: mdm-2x64-" in said
    assert "2 runs, 2 of them new" in said


def test_a_damaged_line_is_written_anew_whatever_bit_changed(tmp_path: Path) -> None:
    write_plan(tmp_path, [FIRST, SECOND])
    leave(tmp_path, FIRST, Status.OK)
    path = tmp_path / "plan.jsonl"
    whole = path.read_bytes()
    for wrong in (b'"budget": 1000000000000.0', b'"budget": 1000000000001.0'), (b'"seed": 2', b'"seed": 3'):
        path.write_bytes(whole.replace(*wrong))
        assert path.read_bytes() != whole
        with pytest.raises(ValueError, match=r"plan\.jsonl line [12]: half-written or damaged \(sha256"):
            read_plan(tmp_path)
        assert write_plan(tmp_path, [FIRST, SECOND]).repaired >= 1
        assert path.read_bytes() == whole


def test_a_line_that_stands_twice_is_refused_and_mended(tmp_path: Path) -> None:
    write_plan(tmp_path, [FIRST, SECOND])
    leave(tmp_path, FIRST, Status.OK)
    other = dataclasses.replace(FIRST, cell=CellSpec(budget=2e12))  # the same run under another budget
    with (tmp_path / "plan.jsonl").open("a") as file:
        file.write(to_json(other) + "\n")
    with pytest.raises(
        ValueError, match=rf"plan\.jsonl line 3: run {FIRST.run_id} stands in an earlier line too .*line 1\)"
    ):
        read_plan(tmp_path)
    written = write_plan(tmp_path, [FIRST, SECOND])
    assert (written.runs, written.repaired) == ((FIRST, SECOND), 1)


@pytest.mark.parametrize("budget", [0, -0.0, -1e12, 1e31, 1e308])
def test_a_line_of_an_impossible_budget_is_refused(tmp_path: Path, budget: float) -> None:
    tree = unseal(to_json(FIRST), since=2)
    tree["cell"]["budget"] = budget
    (tmp_path / "plan.jsonl").write_text(json.dumps(seal(tree)) + "\n")
    with pytest.raises(ValueError, match=r"line 1: cell\.budget = .*: must be above 0 and at most 1e\+30 FLOPs"):
        read_plan(tmp_path)
