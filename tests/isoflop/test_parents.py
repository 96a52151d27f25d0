"""The runner with runs that start from others: in which order they go, and what becomes of them when a parent fails."""

import csv
import dataclasses
import functools
import shutil
from pathlib import Path

import pytest
from command_line import one_line
from imitated_runs import QUICK, ROOT, imitation, set_modes, started, sweep, write_sweep

from isoflop.run.__main__ import main
from isoflop.trunks import with_trunks
from mdm_jax.files.layout import PLAN_FILE
from mdm_jax.files.results import TRUNK_SEGMENT
from mdm_jax.spec import CellSpec, RunSpec, ScheduleKind, ScheduleSpec, to_json

SLOW = 0.8
"""What the imitated run of mode `slow` takes, in seconds."""


@pytest.fixture(autouse=True)
def _import_from_here(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def cell(steps: int, seed: int = 0) -> RunSpec:
    schedule = ScheduleSpec(ScheduleKind.WSD, steps, 0)
    return RunSpec(schedule=schedule, cell=CellSpec(budget=float(steps), size="2x64"), seed=seed)


def trunk(*steps: int, seed: int = 0) -> list[RunSpec]:
    """Segment and branch, segment and branch, …"""
    return list(with_trunks([cell(n, seed) for n in steps], 0.2))


def starts(directory: Path) -> dict[str, float]:
    return {entry["run_id"]: entry["start"] for entry in started(directory)}


def statuses(rows) -> list[str]:
    return [row.status.value for row in rows]


def test_a_branch_runs_beside_the_next_segment(tmp_path) -> None:
    runs = write_sweep(tmp_path, trunk(1000, 2000, 3000), ["slow"] * 6)
    rows = sweep(tmp_path, dataclasses.replace(QUICK, jobs=2))
    assert statuses(rows) == ["ok"] * 6
    assert [row.excluded_reason for row in rows] == [TRUNK_SEGMENT, ""] * 3
    assert [row.parent_run_id for row in rows] == [run.cell.parent_run_id for run in runs]
    began = starts(tmp_path)
    for run in runs:
        if run.cell.parent_run_id:
            assert began[run.run_id] - began[run.cell.parent_run_id] >= SLOW
    for branch, segment in zip(runs[1::2], runs[2::2], strict=False):
        assert abs(began[branch.run_id] - began[segment.run_id]) < SLOW


def test_the_run_on_which_the_longest_chain_waits_goes_first(tmp_path) -> None:
    longest, single, short = trunk(100_000, 200_000), [cell(150_000, seed=1)], trunk(50_000, seed=2)
    runs = write_sweep(tmp_path, [*single, *short, *longest], ["ok"] * 7)
    sweep(tmp_path)
    order = [entry["run_id"] for entry in started(tmp_path)]
    by_id = {run.run_id: run for run in runs}
    assert [(by_id[name].seed, by_id[name].schedule.steps) for name in order] == [
        (0, 80_000), (1, 150_000), (0, 160_000), (2, 40_000), (0, 200_000), (0, 100_000), (2, 50_000)
    ]  # fmt: skip


def test_what_waits_for_a_diverged_run_is_recorded_and_taken_up_when_it_is_repaired(tmp_path, capsys) -> None:
    runs = write_sweep(tmp_path, trunk(1000, 2000, 3000), ["ok", "ok", "diverged", "ok", "ok", "ok"])
    assert main([str(tmp_path)], command=imitation(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "6 runs: 2 ok, 1 diverged, 3 failed" in out
    assert f"] {runs[5].run_id} 3000 d64 failed: parent {runs[4].run_id} failed; 0 s" in out
    assert out.endswith("3 not started, because their parents diverged or failed\n")
    with (tmp_path / "runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["status"] for row in table] == ["ok", "ok", "diverged", "failed", "failed", "failed"]
    assert [row["excluded_reason"] for row in table[3:]] == [
        f"parent {runs[2].run_id} diverged", f"parent {runs[2].run_id} diverged", f"parent {runs[4].run_id} failed"
    ]  # fmt: skip
    assert [row["attempts"] for row in table[3:]] == ["0"] * 3
    before = len(started(tmp_path))
    assert main([str(tmp_path)], command=imitation(tmp_path)) == 1  # nothing has been repaired
    assert len(started(tmp_path)) == before
    shutil.rmtree(tmp_path / "runs" / runs[2].run_id)
    set_modes(tmp_path, runs, ["ok"] * 6)
    rows = sweep(tmp_path)
    assert statuses(rows) == ["ok"] * 6
    assert [row.attempts for row in rows] == [1] * 6
    assert len(started(tmp_path)) == before + 4


def test_failed_parents_are_retried_on_request_and_their_children_follow(tmp_path) -> None:
    runs = write_sweep(tmp_path, trunk(1000), ["crash", "ok"])
    assert statuses(sweep(tmp_path)) == ["failed", "failed"]
    set_modes(tmp_path, runs, ["ok", "ok"])
    assert statuses(sweep(tmp_path)) == ["failed", "failed"]
    assert len(started(tmp_path)) == 1
    assert statuses(sweep(tmp_path, dataclasses.replace(QUICK, retry_failed=True))) == ["ok", "ok"]


def test_a_child_waits_while_its_parent_is_tried_again(tmp_path) -> None:
    runs = write_sweep(tmp_path, trunk(1000), ["flaky", "ok"])
    assert statuses(sweep(tmp_path, dataclasses.replace(QUICK, jobs=2))) == ["ok", "ok"]
    assert [entry["run_id"] for entry in started(tmp_path)] == [runs[0].run_id] * 3 + [runs[1].run_id]


def test_dry_run_says_what_starts_from_what(tmp_path, capsys) -> None:
    runs = write_sweep(tmp_path, trunk(1000, 2000), ["ok", "ok", "crash", "ok"])
    assert main([str(tmp_path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" d64 ")[2] for line in lines[1::2]] == [
        f"would run from the end of {run.run_id}" for run in runs[::2]
    ]
    sweep(tmp_path)
    capsys.readouterr()
    assert main([str(tmp_path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("has a result (failed)")
    assert lines[3].endswith(f"would run from the end of {runs[2].run_id}")


@pytest.mark.parametrize("which", ["absent", "cycle"])
def test_a_plan_with_wrong_parents_starts_nothing(tmp_path, capsys, which: str) -> None:
    segment, branch = write_sweep(tmp_path, trunk(1000), ["ok", "ok"])
    own = dataclasses.replace(segment.cell, parent_run_id=branch.run_id, parent_steps=1000)
    lines = [branch] if which == "absent" else [dataclasses.replace(segment, cell=own), branch]
    (tmp_path / PLAN_FILE).write_text("".join(to_json(run) + "\n" for run in lines))
    said = "is not in the plan" if which == "absent" else "schedule.cooldown_steps = 200: must be 0"
    for flags in ([], ["--dry-run"]):
        assert said in one_line(functools.partial(main, command=imitation(tmp_path)), [str(tmp_path), *flags], capsys)
    assert not started(tmp_path)
    assert not (tmp_path / "runs").exists()
