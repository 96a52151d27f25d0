"""One process trains a run at a time: a second one is turned away without harm, however the first one ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, assert_same, ended, outcome, result, start_two, wait_until

from mdm_jax.files.layout import CHECKPOINTS_FOLDER, SEAL_FILE
from mdm_jax.files.lock import RUN_LOCK, Held, hold, hold_run, is_held
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Family


def test_a_second_process_on_a_run_is_turned_away_and_the_lock_dies_with_the_first(shop, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    first, checkpoints = shop.start(spec, tmp_path), tmp_path / spec.run_id / CHECKPOINTS_FOLDER
    wait_until(lambda: any(checkpoints.glob(f"*/{SEAL_FILE}")), first, every=0.005)
    first.send_signal(signal.SIGSTOP)  # it holds the run, and takes no step until the second one has looked
    try:
        second = shop.run(spec, tmp_path)
        assert second.code == 42
        folder = tmp_path / spec.run_id
        reason = f"process {first.pid} is running it: wait for it, or stop it with kill {first.pid}"
        assert second.errors == [f"mdm_jax: {folder}: {reason}"]
        assert result(tmp_path, spec).attempts == 1
        assert is_held(folder, RUN_LOCK)
    finally:
        first.kill()
        ended(first)
    assert not is_held(folder, RUN_LOCK)
    last = shop.run(spec, tmp_path)
    assert last.code == 0, last.said
    assert "resumed at step" in last.said
    assert_same(outcome(tmp_path, spec), outcome(shop.undisturbed(spec), spec))


@pytest.mark.slow
def test_every_process_of_a_second_job_on_a_run_is_turned_away(shop, tmp_path) -> None:
    spec = shop.spec(Family.ARM, mesh_data=2)
    folder = as_path(tmp_path / spec.run_id)
    with hold_run(folder, print):
        ends = [ended(process) for process in start_two(shop, spec, tmp_path)]
    assert [end.code for end in ends] == [42, 42], [end.said for end in ends]
    reason = f"{folder}: process {os.getpid()} is running it: wait for it, or stop it with kill {os.getpid()}"
    assert ends[0].errors == [f"mdm_jax: {reason}"]
    assert ends[1].errors == [f"mdm_jax: process 0: {reason}"]
    assert sorted(entry.name for entry in folder.iterdir()) == [RUN_LOCK]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")
def test_a_file_system_without_locks_is_said_and_the_run_goes_on(shop, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    end = shop.run(spec, tmp_path, program=(str(ROOT / "tests/programs/without_flock.py"),))
    if end.said.startswith("no seccomp"):
        pytest.skip(end.said)
    assert end.code == 0, end.said
    folder = tmp_path / spec.run_id
    fix = "take care that no second process works on it, or mount the file system with flock"
    assert end.errors == [f"mdm_jax: {folder} cannot be locked (Function not implemented): {fix}"]
    assert_same(outcome(tmp_path, spec), outcome(shop.undisturbed(spec), spec))


def test_a_bucket_has_no_lock_and_says_so() -> None:
    said: list[str] = []
    with hold("s3://bucket/run", RUN_LOCK, said.append) as lock:
        assert lock.handle is None
    (line,) = said
    assert line.startswith("s3://bucket/run lies in a bucket, which has no locks: ")


def test_a_holder_on_another_machine_or_without_words_is_named_as_well_as_can_be(tmp_path) -> None:
    holder = subprocess.Popen(["flock", str(tmp_path / RUN_LOCK), "sleep", "600"], start_new_session=True)
    try:
        wait_until(lambda: is_held(tmp_path, RUN_LOCK), holder)
        texts = {
            '{"host": "elsewhere", "holder": 12, "runs": []}': "process 12 on elsewhere is running it",
            "[" * 60000: "another process holds it: wait for it to end",
            "": "another process holds it: wait for it to end",
        }
        for text, said in texts.items():
            (tmp_path / RUN_LOCK).write_text(text)
            with pytest.raises(Held, match=said), hold(tmp_path, RUN_LOCK, print):
                pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def test_a_link_is_not_followed(tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / RUN_LOCK).symlink_to(precious)
    with pytest.raises(ValueError, match="is a link to"), hold(Path(tmp_path), RUN_LOCK, print):
        pass
    assert precious.read_text() == "mine"
