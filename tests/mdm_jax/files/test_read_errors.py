"""An error that may pass is never taken for an absent or damaged checkpoint: nothing good is touched, and it is raised.

Every call to the disk or the object store fails in turn, so that no place in between is left out.
"""

import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from bucket import Bucket, in_memory
from failing_disk import failing_bucket, failing_disk
from running import assert_same, killed_at, on_failing_disk, outcome, result
from saved_states import ME, State, restored, same, state
from small_corpus import prepared

from isoflop.run.outcome import is_done, read_row
from mdm_jax.data.prepare import prepare
from mdm_jax.files.lock import RUN_LOCK
from mdm_jax.files.results import Status, result_of, write_result
from mdm_jax.files.storage import Path as AnyPath
from mdm_jax.files.storage import as_path, make_folder
from mdm_jax.main import main
from mdm_jax.run.record import Record
from mdm_jax.spec import Family, RunSpec, to_json
from mdm_jax.train.checkpoint import Checkpoints, read_step
from mdm_jax.train.metrics import MetricsWriter, read_metrics
from mdm_jax.train.seal import seal_step
from mdm_jax.train.step_folders import newest_whole, remove_unfinished, set_aside

TRANSIENT = (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE)


class HttpError(Exception):
    """The error that gcsfs raises for a 502; it is no OSError."""


def error_of(number: int) -> Callable[[str], Exception]:
    kind = TRANSIENT[number % len(TRANSIENT)]
    return lambda what: OSError(kind, os.strerror(kind), what)


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below the folder, by name; the lock's file names the process that had it last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RUN_LOCK)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def by_hand(folder: AnyPath, step: int) -> None:
    """A sealed step with a file in it and one in a folder below."""
    make_folder(folder / str(step) / "default")
    (folder / str(step) / "meta").write_bytes(b"meta %d" % step)
    (folder / str(step) / "default" / "d").write_bytes(b"data %d" % step)
    seal_step(folder / str(step), step, ME)


def damaged_newest(folder: AnyPath) -> None:
    """Steps 3 and 5 are whole, 7 has changed, and 9 is half-written."""
    for step in (3, 5, 7):
        by_hand(folder, step)
    (folder / "7" / "meta").write_bytes(b"meta 0")
    make_folder(folder / "9.orbax-checkpoint-tmp")
    (folder / "9.orbax-checkpoint-tmp" / "half").write_bytes(b"half")


def clear_the_way(folder: AnyPath) -> int:
    """What restoring does before it reads: the newest whole step."""
    found, bad = newest_whole(folder, ME)
    for step in bad:
        set_aside(folder / str(step))
    remove_unfinished(folder)
    return found


def test_no_failing_call_costs_a_step(tmp_path) -> None:
    damaged_newest(as_path(tmp_path / "made"))
    before = contents(tmp_path / "made")
    number = 0
    for number in itertools.count(1):
        folder = Path(shutil.copytree(tmp_path / "made", tmp_path / str(number)))
        found, said = -1, str(folder)
        with failing_disk(folder, number, error_of(number)) as fault:
            try:
                found = clear_the_way(as_path(folder))
            except OSError as error:
                said = str(error)
        if not fault.fired:
            break
        after = contents(folder)
        assert (found in (-1, 5), str(folder) in said) == (True, True), fault.fired
        assert {n: h for n, h in before.items() if n[0] in "35"}.items() <= after.items(), fault.fired
        assert sum(name.startswith("7") for name in after) == 3, fault.fired  # there, or renamed
        assert clear_the_way(as_path(folder)) == 5, fault.fired
        assert sorted(entry.name for entry in folder.iterdir()) == ["3", "5", "7.bad-1"]
        shutil.rmtree(folder)
    assert number > 50, "the calls were not counted"


def test_no_failing_call_of_an_object_store_costs_a_step() -> None:
    folder = as_path("s3://bucket/run/checkpoints")
    number = 0
    for number in itertools.count(1):
        with in_memory():
            damaged_newest(folder)
            good = {name: file.getvalue() for name, file in Bucket.store.items() if "/3/" in name or "/5/" in name}
            with failing_bucket(number, HttpError) as fault:
                try:
                    found = clear_the_way(folder)
                except (HttpError, OSError):
                    found = -1
            if not fault.fired:
                break
            kept = {name: file.getvalue() for name, file in Bucket.store.items() if name in good}
            assert found in (-1, 5), fault.fired
            assert kept == good, fault.fired
            assert sum(file.getvalue() == b"data 7" for file in Bucket.store.values()) >= 1, fault.fired
            assert clear_the_way(folder) == 5, fault.fired
    assert number > 20, "the calls were not counted"


def read_parent(folder: Path) -> tuple[State | None, int, list[str]]:
    return read_step(as_path(folder), 5, jax.tree.map(jnp.zeros_like, state(0)), ME), 5, []


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("read", [restored, read_parent])
def test_a_failing_call_of_orbax_is_an_error_of_the_disk(tmp_path, read, every) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(as_path(folder), ME)
    for step in (3, 5):
        checkpoints.save(step, state(step))
    checkpoints.close()
    before, raised, number = contents(folder), 0, 0
    for number in itertools.count(1, every):
        found = None
        with failing_disk(folder, number, error_of(number)) as fault:
            try:
                found = read(folder)
            except OSError:
                raised += 1
        assert contents(folder) == before, fault.fired
        if found is not None:  # orbax went another way
            assert found[1:] == (5, []), fault.fired
            assert same(found[0], state(5)), fault.fired
        if not fault.fired:
            break
    assert number > 100, "the calls were not counted"
    assert raised > 50 // every


def test_no_failing_call_costs_a_part_of_the_metrics_before_the_step(tmp_path) -> None:
    def write(folder: Path, first: int, last: int) -> None:
        writer = MetricsWriter(as_path(folder), first)
        for step in range(first + 1, last + 1):
            writer.write({"step": step})
            if step % 10 == 0:
                writer.next_part(step)
        writer.close()

    number = 0
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        write(folder, 0, 35)
        before = contents(folder)
        with failing_disk(folder, number, error_of(number)) as fault, suppress(OSError):
            MetricsWriter(as_path(folder), 20)
        if not fault.fired:
            break
        after = contents(folder)
        assert all(after[name] == before[name] for name in ("0000000000.jsonl", "0000000010.jsonl")), fault.fired
        write(folder, 20, 35)
        assert [row["step"] for row in read_metrics(as_path(folder))] == list(range(1, 36)), fault.fired
    assert number > 5, "the calls were not counted"


@pytest.mark.parametrize("reader", ["record", "runner", "main"])
def test_a_result_that_cannot_be_read_now_is_not_taken_for_none(tmp_path, capsys, reader) -> None:
    spec = RunSpec()
    folder = tmp_path / "runs" / spec.run_id
    write_result(folder / "result.json", result_of(spec, Status.OK, data_hash="d" * 64))
    (tmp_path / "plan.jsonl").write_text(to_json(spec) + "\n")
    command = ["--plan", str(tmp_path / "plan.jsonl"), "--run-id", spec.run_id]
    read = {
        "record": lambda: Record(spec, as_path(folder)).data_hash_before == "d" * 64,
        "runner": lambda: is_done(read_row(tmp_path, spec)),
        "main": lambda: main(command) == 0,
    }[reader]
    number, known = 0, False
    for number in itertools.count(1):
        with failing_disk(folder, number, error_of(number)) as fault:
            try:
                known = read()
            except OSError:
                known = False
        if not fault.fired:
            break
        assert not known, fault.fired
        if reader == "main":
            assert str(folder) in capsys.readouterr().err
            with failing_disk(folder, number, error_of(number)):
                assert main(command) == 42
    assert known
    assert number > 2, "the calls were not counted"


def test_prepared_data_that_cannot_be_read_now_are_not_taken_for_absent(tmp_path) -> None:
    data = prepared(tmp_path)
    before, number = contents(Path(data.directory)), 0
    for number in itertools.count(1):
        made = None
        with failing_disk(Path(data.directory), number, error_of(number)) as fault, suppress(OSError):
            made = prepare(data)[1]
        assert made in (None, False), fault.fired
        assert contents(Path(data.directory)) == before, fault.fired
        if not fault.fired:
            break
    assert number > 5, "the calls were not counted"


def test_a_run_whose_disk_fails_for_a_moment_goes_on_from_its_newest_checkpoint(shop, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    whole = shop.undisturbed(spec)
    folder = killed_at(whole, tmp_path, spec, 10)
    before = contents(tmp_path / spec.run_id)
    failed = shop.run(spec, tmp_path, environment=on_failing_disk(folder / "10/default/d"))
    assert failed.code == 42, failed.said
    assert "Traceback" not in failed.said
    assert "Input/output error" in failed.errors[0]
    after = contents(tmp_path / spec.run_id)
    assert {name: after.get(name) for name in before} == before
    assert result(tmp_path, spec).status is Status.RUNNING
    assert "resumed at step 10" in shop.run(spec, tmp_path).said
    assert_same(outcome(tmp_path, spec), outcome(whole, spec))
