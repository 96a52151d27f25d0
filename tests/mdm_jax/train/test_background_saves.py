"""A checkpoint that is written while the run trains on: its bits, its errors, and what a failing call may cost."""

import errno
import itertools
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from failing_disk import failing_disk
from saved_states import ME, restored, same, state

from mdm_jax.files.storage import as_path
from mdm_jax.train import checkpoint
from mdm_jax.train.background import Background
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.seal import SEAL_FILE


def full(what: str) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)


def sealed(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if (entry / SEAL_FILE).is_file())


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """An event before which no step is sealed."""
    opened, seal = threading.Event(), checkpoint.seal_together

    def seal_later(*arguments) -> None:
        assert opened.wait(60)
        seal(*arguments)

    monkeypatch.setattr(checkpoint, "seal_together", seal_later)
    return opened


def test_the_state_may_be_donated_while_it_is_written(tmp_path, gate) -> None:
    saves, noted = Checkpoints(as_path(tmp_path), ME), list[int]()
    saved = state(5)
    expected = jax.tree.map(lambda x: x.copy(), saved)
    saves.save(5, saved, lambda: noted.append(5))
    spoil = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    spoilt = jax.block_until_ready(spoil(saved))
    assert saved["w"].is_deleted()
    saves.poll()
    assert (noted, sealed(tmp_path)) == ([], [])
    gate.set()
    saves.close()
    assert (noted, sealed(tmp_path)) == ([5], ["5"])
    read, step, _ = restored(tmp_path)
    assert read is not None
    assert (step, same(read, expected), same(read, spoilt)) == (5, True, False)


def test_one_step_at_a_time_is_written(tmp_path, gate) -> None:
    saves = Checkpoints(as_path(tmp_path), ME)
    saves.save(1, state(1))
    threading.Timer(0.2, gate.set).start()
    saves.save(2, state(2))
    assert sealed(tmp_path) == ["1"] or sealed(tmp_path) == ["1", "2"]
    saves.wait()
    assert sealed(tmp_path) == ["1", "2"]
    saves.close()


@pytest.mark.parametrize("ask", ["poll", "wait", "save", "close"])
def test_an_error_of_the_thread_is_raised_by_the_next_call(tmp_path, monkeypatch, ask) -> None:
    saves = Checkpoints(as_path(tmp_path), ME)
    saves.save(1, state(1))
    saves.wait()

    def fail(*_) -> None:
        raise full("seal")

    monkeypatch.setattr(checkpoint, "seal_together", fail)
    noted: list[int] = []
    saves.save(2, state(2), lambda: noted.append(2))
    while ask == "poll" and saves._writing._thread is not None and saves._writing._thread.is_alive():
        pass
    calls = {"poll": saves.poll, "wait": saves.wait, "save": lambda: saves.save(3, state(3)), "close": saves.close}
    with pytest.raises(OSError, match=f"^checkpoint {tmp_path}/2 not written: No space left on device$"):
        calls[ask]()
    saves.close()  # the error is raised once
    assert (noted, sealed(tmp_path)) == ([], ["1"])
    assert restored(tmp_path)[1] == 1


def at_rest(folder: Path) -> Path:
    """The folder, once no thread of a failed save writes into it any more; a new process finds it so."""
    seen, now = [-1], times_below(folder)
    while seen != now:
        time.sleep(0.05)
        seen, now = now, times_below(folder)
    return folder


def times_below(folder: Path) -> list[int]:
    """The times at which the entries below the folder were changed; the call begins again if one of them vanishes."""
    while True:
        with suppress(FileNotFoundError):
            return sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 23])
def test_no_failing_call_of_a_save_costs_the_step_before(tmp_path, every) -> None:
    """Every call about the folder fails in turn, in any of orbax's threads and in ours."""
    first = Checkpoints(as_path(tmp_path / "made"), ME)
    for step in (1, 2):
        first.save(step, state(step))
    first.close()
    raised, number = 0, 0
    for number in itertools.count(1, every):
        folder = Path(shutil.copytree(tmp_path / "made", tmp_path / str(number)))
        failed = False
        with failing_disk(folder, number, full) as fault:
            try:
                saves = Checkpoints(as_path(folder), ME)
                saves.save(3, state(3))
                saves.close()
            except OSError:
                failed, raised = True, raised + 1
        read, step, _ = restored(at_rest(folder) if failed else folder)
        assert step == 3 or (failed and step == 2), fault.fired
        assert read is not None
        assert same(read, state(step)), fault.fired
        shutil.rmtree(folder)
        if not fault.fired:
            break
    assert number > 150, "the calls were not counted"
    assert raised > 100 // every


def test_the_error_of_a_job_does_not_reach_the_next() -> None:
    jobs, done = Background(), list[str]()

    def fail() -> None:
        raise OSError("first")

    jobs.start(fail, lambda: done.append("first"))
    with pytest.raises(OSError, match="first"):
        jobs.start(lambda: None)
    jobs.start(lambda: None, lambda: done.append("second"))
    jobs.wait()
    jobs.poll()
    assert done == ["second"]


def test_a_step_without_all_arrays_is_not_taken_for_written(tmp_path) -> None:
    saves = Checkpoints(as_path(tmp_path), ME)
    saves.save(5, state(5))
    saves.wait()
    checkpoint._check_complete(saves._manager, 5, state(5))
    with pytest.raises(LookupError, match=r"^more missing$"):
        checkpoint._check_complete(saves._manager, 5, state(5) | {"more": jnp.zeros(2)})
    saves.close()
