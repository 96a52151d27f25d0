"""Training from a parent: a branch ends with the bits of the run trained alone, and a wrong parent is refused."""

import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import (
    SECONDS,
    Workshop,
    assert_same,
    checkpoints,
    killed_at,
    locked,
    outcome,
    result,
    rows,
    wait_until,
    workshop,
)

from analysis.runs.training_curves import read_curves
from isoflop.planfile import write_plan
from isoflop.trunks import with_trunks
from mdm_jax.files.lock import SWEEP_LOCK
from mdm_jax.files.results import TRUNK_SEGMENT, Status, result_of, write_result
from mdm_jax.main import main
from mdm_jax.spec import CellSpec, Family, RunSpec, ScheduleKind, ScheduleSpec, to_json

RETRY, BAD = 42, 1
STEPS = {Family.ARM: (20,), Family.MDM: (8, 20)}


def cells(shop: Workshop, family: Family, *steps: int, width: int = 16) -> list[RunSpec]:
    base = shop.spec(family)
    base = dataclasses.replace(base, model=dataclasses.replace(base.model, d_model=width))
    schedules = [ScheduleSpec(ScheduleKind.WSD, n, 3) for n in steps]
    return [
        dataclasses.replace(base, schedule=schedule, cell=CellSpec(budget=1e9 * n, size="1x16"))
        for n, schedule in zip(steps, schedules, strict=True)
    ]


def trunk(shop: Workshop, family: Family, *steps: int) -> list[RunSpec]:
    """Segment and branch, segment and branch, …; checkpoints at even steps, cooldowns of a quarter."""
    return list(with_trunks(cells(shop, family, *steps), 0.25))


def alone(run: RunSpec) -> RunSpec:
    return dataclasses.replace(run, cell=dataclasses.replace(run.cell, parent_run_id="", parent_steps=0))


@dataclass(frozen=True)
class Trained:
    """A trunk's runs in `folder`, and the longest branch trained alone in `whole`."""

    folder: Path
    whole: Path
    runs: list[RunSpec]


def train(shop: Workshop, run: RunSpec, folder: Path) -> None:
    """Trains the run to its end, from its parent's last step if it has a parent."""
    end = shop.run(run, folder / "plans" / run.run_id, "--runs", str(folder))
    assert end.code == 0, end.said
    if run.cell.parent_run_id:
        assert f"begun at step {run.cell.parent_steps} of {run.cell.parent_run_id}" in end.said


@pytest.fixture(scope="module")
def trained(shop) -> Callable[[Family], Trained]:
    """A trunk of each family, trained once in a session: the ARM's with one branch, the MDM's with two."""

    def make(family: Family) -> Trained:
        root = shop.root / f"trunk-{family.value}"
        made = Trained(root / "runs", root / "whole", trunk(shop, family, *STEPS[family]))
        with locked(shop.root / f"{root.name}.lock"):
            if not root.exists():
                train(shop, alone(made.runs[-1]), made.whole)
                for run in made.runs:
                    train(shop, run, made.folder)
        return made

    return make


def assert_as_alone(folder: Path, branch: RunSpec, whole: Path) -> None:
    """The branch ended as the run that was trained alone, whose metrics it has from its parent's end on."""
    ours, theirs = outcome(folder, branch), outcome(whole, alone(branch))
    assert ours["result"].pop("parent_run_id") == branch.cell.parent_run_id
    assert theirs["result"].pop("parent_run_id") == ""
    theirs["rows"] = [row for row in theirs["rows"] if row["step"] > branch.cell.parent_steps]
    assert_same(ours, theirs)
    assert ours["arrays"]["step"]
    assert any("opt_state" in name for name in ours["arrays"])


@pytest.mark.parametrize("family", [Family.ARM, pytest.param(Family.MDM, marks=pytest.mark.slow)])
def test_a_branch_ends_with_the_bits_of_the_run_trained_alone(trained, family) -> None:
    made = trained(family)
    folder, last = made.folder, made.runs[-1]
    assert [run.cell.parent_steps for run in made.runs][-2:] == [6 if family is Family.MDM else 0, 15]
    assert_as_alone(folder, last, made.whole)
    segment = result(folder, made.runs[-2])
    assert (segment.status, segment.excluded_reason) == (Status.OK, TRUNK_SEGMENT)
    assert segment.loss is not None
    assert checkpoints(folder, last)[-1] == 20
    curve = rows(folder, last)
    assert [row["step"] for row in curve] == list(range(16, 21))
    peak, floor = last.optim.lr_peak, 0.1 * last.optim.lr_peak
    cooldown = [floor + (peak - floor) * left for left in (0.8, 0.6, 0.4, 0.2, 0.0)]
    assert [row["lr"] for row in curve] == pytest.approx(cooldown)


@pytest.mark.slow
def test_a_branch_needs_its_parent_only_until_its_own_checkpoint(shop, trained, tmp_path) -> None:
    folder, branch = trained(Family.ARM).folder, trained(Family.ARM).runs[-1]
    killed_at(folder, tmp_path, branch, 18)  # without its parent beside it
    end = shop.run(branch, tmp_path)
    assert end.code == 0, end.said
    assert "resumed at step 18" in end.said
    assert_same(outcome(tmp_path, branch), outcome(folder, branch))


@pytest.mark.slow
def test_a_branch_whose_checkpoints_are_damaged_begins_again_from_its_parent(shop, trained, tmp_path) -> None:
    folder, branch = trained(Family.ARM).folder, trained(Family.ARM).runs[-1]
    shutil.copytree(folder / branch.cell.parent_run_id, tmp_path / branch.cell.parent_run_id)
    for saved in killed_at(folder, tmp_path, branch, 18).iterdir():
        (saved / "sha256.json").unlink()
    end = shop.run(branch, tmp_path)
    assert end.code == 0, end.said
    assert "no checkpoint is whole: starting over" in end.said
    assert f"begun at step 15 of {branch.cell.parent_run_id}" in end.said
    assert_same(outcome(tmp_path, branch), outcome(folder, branch))


@pytest.fixture
def say(capfd, tmp_path, trained, sigterm_handler) -> Callable[..., str]:
    """What the command line says of a branch whose parent was changed: one line, and that exit code."""

    def start(change: Callable[[Path, RunSpec], object], code: int) -> str:
        folder, (segment, branch) = trained(Family.ARM).folder, trained(Family.ARM).runs
        parent = tmp_path / "runs" / segment.run_id
        shutil.copytree(folder / segment.run_id, parent)
        change(parent, segment)
        (tmp_path / "plan.jsonl").write_text(to_json(branch) + "\n")
        capfd.readouterr()
        assert main(["--plan", str(tmp_path / "plan.jsonl"), "--run-id", branch.run_id]) == code
        said = capfd.readouterr().err
        assert (said.startswith("mdm_jax: "), said.count("\n")) == (True, 1), said
        row = result(tmp_path / "runs", branch)
        assert row.status is (Status.RUNNING if code == RETRY else Status.FAILED)
        assert not checkpoints_begun(tmp_path / "runs" / branch.run_id)
        return said

    return start


def checkpoints_begun(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob("*")) if (folder / "checkpoints").is_dir() else []


def test_a_parent_that_is_not_ready_is_worth_a_retry(say) -> None:
    def absent(parent: Path, _: RunSpec) -> None:
        shutil.rmtree(parent)

    assert "has no result: train it first" in say(absent, RETRY)


def test_a_parent_that_runs_is_worth_a_retry(say) -> None:
    def running(parent: Path, run: RunSpec) -> None:
        write_result(parent / "result.json", result_of(run, Status.RUNNING))

    assert "is not finished: wait for it" in say(running, RETRY)


def test_a_parent_that_diverged_is_refused(say) -> None:
    def diverged(parent: Path, run: RunSpec) -> None:
        write_result(parent / "result.json", result_of(run, Status.DIVERGED))

    assert "'diverged': must be ok" in say(diverged, BAD)


def test_a_parent_that_was_edited_is_refused(say) -> None:
    def edited(parent: Path, _: RunSpec) -> None:
        tree = json.loads((parent / "spec.json").read_text())
        tree["optim"]["lr_peak"] = 0.5
        (parent / "spec.json").write_text(json.dumps(tree))

    assert "spec.json: sha256 is not that of the content: was it edited?" in say(edited, BAD)


@pytest.mark.slow
def test_another_run_in_the_parents_place_is_refused(say) -> None:
    def other(parent: Path, run: RunSpec) -> None:
        (parent / "spec.json").write_text(to_json(dataclasses.replace(run, seed=7)))

    assert "spec.json: run_id" in say(other, BAD)


def test_a_parent_trained_on_other_data_is_refused(say) -> None:
    def other(parent: Path, run: RunSpec) -> None:
        write_result(parent / "result.json", result_of(run, Status.OK, data_hash="ab" * 32))

    assert "data_hash" in say(other, BAD)


def test_a_parent_whose_last_checkpoint_is_damaged_is_refused(shop, trained, tmp_path) -> None:
    folder, (segment, branch) = trained(Family.ARM).folder, trained(Family.ARM).runs
    shutil.copytree(folder / segment.run_id, tmp_path / segment.run_id)
    file = max((tmp_path / segment.run_id / "checkpoints" / "15").rglob("*"), key=lambda p: p.stat().st_size)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    end = shop.run(branch, tmp_path)
    assert end.code == BAD
    (line,) = end.errors
    assert "has changed: remove that run's folder and train it again" in line
    assert checkpoints(tmp_path, segment)[-1] == 15  # it is not ours to clear away


@pytest.mark.slow
def test_the_training_curve_of_a_branch_is_that_of_the_whole_run(trained) -> None:
    runs = trained(Family.MDM).runs
    curves = read_curves(trained(Family.MDM).folder)
    for branch in (runs[1], runs[3]):
        own = curves[curves["run_id"] == branch.run_id]
        assert list(own["step"]) == list(range(1, branch.schedule.steps + 1))
        assert [*own["tokens"]][-1] == branch.train_tokens
    assert set(curves["run_id"]) == {runs[1].run_id, runs[3].run_id}
    first, second = ([*curves[curves["run_id"] == run.run_id]["loss"]] for run in (runs[1], runs[3]))
    assert first[:6] == second[:6]
    assert first[6:] != second[6:8]


def sweep(shop: Workshop, directory: Path) -> subprocess.Popen:
    """The started runner of a planned directory."""
    command = [sys.executable, "-m", "isoflop.run", str(directory), "--jobs", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=shop.root, env=shop.environment(RunSpec()), start_new_session=True, **pipes)


def finished(directory: Path) -> int:
    found = (directory / "runs").glob("*/result.json")
    return sum(json.loads(path.read_text())["status"] == "ok" for path in found)


def kill_all(runner: subprocess.Popen, directory: Path) -> int:
    """Kills the runner and its runs outright; how many runs there were."""
    runner.kill()
    runner.communicate()
    runs = json.loads((directory / SWEEP_LOCK).read_text())["runs"]
    for pid in runs:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return len(runs)


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_its_cells_trained_alone(tmp_path_factory, tmp_path) -> None:
    shop, draw = workshop(tmp_path_factory, as_for_users=True), random.Random(0)
    sizes = {Family.ARM: 16, Family.MDM: 20}
    grid = [cell for family in Family for cell in cells(shop, family, 16, 40, width=sizes[family])]
    runs = with_trunks(grid, 0.25)
    branches = [run for run in runs if not run.cell.segment]
    assert (len(runs), len(branches)) == (8, 4)
    trunks, whole = tmp_path / "trunks", tmp_path / "whole"
    write_plan(trunks, runs)
    write_plan(whole, [alone(run) for run in branches])
    killed = 0
    for done in (1, 3, 5):
        runner = sweep(shop, trunks)
        wait_until(lambda least=done: finished(trunks) >= least, runner)
        time.sleep(draw.uniform(0, 2))
        killed += kill_all(runner, trunks)
    assert killed >= 3
    for directory in (trunks, whole):
        runner = sweep(shop, directory)
        out, _ = runner.communicate(timeout=SECONDS)
        assert runner.returncode == 0, out
    rows = {row["run_id"]: row for row in csv.DictReader((trunks / "runs.csv").read_text().splitlines())}
    assert len(rows) == 8
    assert sum(row["excluded_reason"] == TRUNK_SEGMENT for row in rows.values()) == 4
    for branch in branches:
        assert_as_alone(trunks / "runs", branch, whole / "runs")
