"""A link inside a sweep's folder is refused with one line that names it, and what it leads to is not touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from saved_states import ME

from isoflop.planfile import write_plan
from isoflop.run.__main__ import run_sweep
from isoflop.run.process import LOG_FILE, Processes, ProcessPerRun
from isoflop.run.workers import Workers
from mdm_jax.data.prepare import main as prepare
from mdm_jax.files.lock import SWEEP_LOCK, hold
from mdm_jax.files.storage import as_path, open_lock, open_no_link, write_atomic
from mdm_jax.main import main
from mdm_jax.run.execute import Record
from mdm_jax.spec import RunSpec, to_json
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.metrics import MetricsWriter


@pytest.fixture
def victim(tmp_path) -> Path:
    """A folder that somebody needs, with names in it that a run would write or delete."""
    folder = tmp_path / "victim"
    for name in ("5/default/d", "7.orbax-checkpoint-tmp/d", "0000000000.jsonl", "result.json", "spec.json", "thesis"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """The empty folder of a run, whose plan is `sweep/plan.jsonl`."""
    spec = RunSpec()
    folder = tmp_path / "sweep" / "runs" / spec.run_id
    folder.mkdir(parents=True)
    (tmp_path / "sweep" / "plan.jsonl").write_text(to_json(spec) + "\n")
    return folder


def refused(link: Path) -> str:
    return rf"^{link} is a link to {os.readlink(link)}: put a file or folder in its place"


def test_a_checkpoint_folder_that_is_a_link(run_folder, victim) -> None:
    before, link = contents(victim), run_folder / "checkpoints"
    link.symlink_to(victim)
    with pytest.raises(ValueError, match=refused(link)):
        Checkpoints(as_path(link), ME)
    assert contents(victim) == before


@pytest.mark.parametrize("name", ["5", "7.orbax-checkpoint-tmp"])
def test_a_step_that_is_a_link(run_folder, victim, name) -> None:
    before, link = contents(victim), run_folder / "checkpoints" / name
    checkpoints = Checkpoints(as_path(link.parent), ME)
    link.symlink_to(victim / name)
    with pytest.raises(ValueError, match=refused(link)):
        checkpoints.restore({"w": jnp.zeros(2)})
    assert contents(victim) == before
    assert link.is_symlink()


def test_a_link_inside_a_step_is_damage_and_nothing_behind_it_is_lost(tmp_path, victim) -> None:
    before, folder = contents(victim), tmp_path / "checkpoints"
    like = {"w": jnp.zeros(2)}
    checkpoints = Checkpoints(as_path(folder), ME)
    checkpoints.save(1, like)
    checkpoints.close()
    shutil.move(folder / "1" / "default", tmp_path / "moved")
    (folder / "1" / "default").symlink_to(tmp_path / "moved")
    checkpoints = Checkpoints(as_path(folder), ME)
    assert checkpoints.restore(like)[1] == 0
    for step in (2, 3, 4):
        checkpoints.save(step, like)
    checkpoints.close()
    assert (folder / "1.bad-1" / "default").is_symlink()
    assert (tmp_path / "moved" / "_METADATA").is_file()
    assert contents(victim) == before


def test_a_metrics_folder_or_part_that_is_a_link(run_folder, victim) -> None:
    before, link = contents(victim), run_folder / "metrics"
    link.symlink_to(victim)
    with pytest.raises(ValueError, match=refused(link)):
        MetricsWriter(as_path(link), 0)
    link.unlink()
    part = link / "0000000010.jsonl"
    MetricsWriter(as_path(link), 0)
    part.symlink_to(victim / "thesis")
    with pytest.raises(ValueError, match=refused(part)):
        MetricsWriter(as_path(link), 10)
    writer = MetricsWriter(as_path(link), 20)
    writer.next_part(10)
    with pytest.raises(ValueError, match=refused(part)):
        writer.write({"step": 11})
    assert contents(victim) == before


@pytest.mark.parametrize("name", ["result.json", "spec.json"])
def test_a_file_of_a_run_that_is_a_link(run_folder, victim, name) -> None:
    before, link = contents(victim), run_folder / name
    link.symlink_to(victim / name)
    with pytest.raises(ValueError, match=refused(link)):
        write_atomic(link, "new")
    assert contents(victim) == before
    assert link.is_symlink()
    assert os.listdir(run_folder) == [name]


def test_a_runs_folder_that_is_a_link_is_refused_by_the_run_and_the_sweep(tmp_path, run_folder, victim, capsys) -> None:
    before, sweep = contents(victim), tmp_path / "sweep"
    (victim / "result.json").unlink()
    before.pop("result.json")
    run_folder.rmdir()
    run_folder.symlink_to(victim)
    with pytest.raises(ValueError, match=refused(run_folder)):
        Record(RunSpec(), as_path(run_folder))
    assert main(["--plan", str(sweep / "plan.jsonl"), "--run-id", run_folder.name]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{run_folder} is a link to" in said
    with pytest.raises(ValueError, match=refused(run_folder)):
        run_sweep(sweep, command=lambda run: [sys.executable, "--version"])
    assert contents(victim) == before


def test_a_log_and_a_lock_that_are_links(tmp_path, run_folder, victim) -> None:
    before = contents(victim)
    log, lock = run_folder / LOG_FILE, tmp_path / "sweep" / SWEEP_LOCK
    for link in (log, lock):
        link.symlink_to(victim / "thesis")
    processes, command = Processes({}, 1, None), [sys.executable, "--version"]
    for launcher in (ProcessPerRun(processes, lambda run: command), Workers(processes, lambda run: command)):
        with pytest.raises(ValueError, match=refused(log)):
            launcher.start(RunSpec(), run_folder, 1, 0)
    with pytest.raises(ValueError, match=refused(lock)), hold(tmp_path / "sweep", SWEEP_LOCK, print):
        pass
    assert contents(victim) == before


def test_the_folders_above_may_be_links(tmp_path, victim) -> None:
    """A sweep on a scratch disk, behind a link or with its runs behind one, works as any other."""
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    for folder in (scratch / "sweep", scratch / "runs", home):
        folder.mkdir(parents=True)
    (home / "sweep").symlink_to(scratch / "sweep")
    (home / "sweep" / "runs").symlink_to(scratch / "runs")
    write_plan(home / "sweep", [RunSpec()])
    with hold(home / "sweep", SWEEP_LOCK, print):
        record = Record(RunSpec(), as_path(home / "sweep" / "runs" / RunSpec().run_id))
        write_atomic(home / "sweep" / "runs" / RunSpec().run_id / "result.json", "{}")
    assert record.data_hash_before == ""
    assert (scratch / "runs" / RunSpec().run_id / "result.json").read_text() == "{}"
    assert (scratch / "sweep" / SWEEP_LOCK).is_file()


def test_files_are_opened_without_following_or_emptying(tmp_path) -> None:
    (tmp_path / "lock").write_text("who holds it")
    os.close(open_lock(tmp_path / "lock"))
    assert (tmp_path / "lock").read_text() == "who holds it"
    (tmp_path / "away").symlink_to(tmp_path / "absent")
    for opener in (open_lock, lambda path: open_no_link(path, "w"), lambda path: open_no_link(path, "ab")):
        with pytest.raises(ValueError, match=refused(tmp_path / "away")):
            opener(tmp_path / "away")
    assert not (tmp_path / "absent").exists()
    with pytest.raises(FileNotFoundError):
        open_lock(tmp_path / "no" / "lock")


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    (tmp_path / "text.jsonl").write_text("".join(f'{{"text": "document {i} of this text"}}\n' for i in range(400)))
    return ["--corpus", "jsonl", "--path", str(tmp_path / "text.jsonl"), "--validation-fraction", "0.2"]


def test_the_lock_of_a_data_folder_that_is_a_link_empties_nothing(tmp_path, victim, corpus, capsys) -> None:
    before, link = contents(victim), tmp_path / ".data.lock"
    link.symlink_to(victim / "thesis")
    assert prepare([*corpus, "--out", str(tmp_path / "data")]) == 1
    assert f"mdm_jax: {link} is a link to {victim / 'thesis'}" in capsys.readouterr().err
    assert contents(victim) == before


@pytest.mark.parametrize("name", [".data.partial", ".data.replaced"])
def test_what_is_cleared_beside_a_data_folder_is_no_link(tmp_path, victim, corpus, name, capsys) -> None:
    before, link = contents(victim), tmp_path / name
    link.symlink_to(victim)
    assert prepare([*corpus, "--out", str(tmp_path / "data")]) == 1
    assert f"mdm_jax: {link} is a link to {victim}" in capsys.readouterr().err
    assert contents(victim) == before


def test_a_data_folder_behind_a_link_is_prepared_again_in_its_place(tmp_path, corpus) -> None:
    (tmp_path / "scratch" / "data").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    out = tmp_path / "home" / "data"
    out.symlink_to(tmp_path / "scratch" / "data")
    for _ in range(3):
        assert prepare([*corpus, "--out", str(out), "--force"]) == 0
        assert out.is_symlink()
        assert os.listdir(tmp_path / "home") == ["data"]
        assert (tmp_path / "scratch" / "data" / "manifest.json").is_file()


def test_two_processes_still_exclude_each_other_by_the_data_lock(tmp_path, corpus) -> None:
    command = [sys.executable, "-m", "mdm_jax.data.prepare", *corpus, "--out", str(tmp_path / "data")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=240)[0].splitlines()[0] for process in both)
    assert said == ["already prepared: left as it is", "prepared"]
