"""A seal binds a step to its run, its data and its number, and no flipped bit of it goes unnoticed."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from jax._src import distributed
from running import killed_at
from saved_states import ME
from small_corpus import prepared
from tiny_runs import on_mesh, quick_compilation

from mdm_jax.data.manifest import read_manifest, write_manifest
from mdm_jax.files.storage import as_path
from mdm_jax.run.execute import _starting_state
from mdm_jax.spec import Family, RunSpec
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.loop import Watch
from mdm_jax.train.seal import SEAL_FILE, Identity, files_below, hashes_of, seal_step, step_fault
from mdm_jax.train.shared_seal import own_files, seal_together


@pytest.fixture
def step(tmp_path) -> Path:
    folder = tmp_path / "5"
    (folder / "default" / "deep").mkdir(parents=True)
    for name in ("meta", "default/d", "default/deep/e"):
        (folder / name).write_text(name)
    seal_step(as_path(folder), 5, ME)
    return folder


def hash_of(content: dict[str, object]) -> str:
    """The seal's own hash, written out from its definition."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def wrong(step: Path, identity: Identity = ME) -> str:
    return step_fault(as_path(step), int(step.name), identity)


def test_what_a_seal_says(step) -> None:
    said = json.loads((step / SEAL_FILE).read_text())
    assert {name: said[name] for name in ("format", "step")} == {"format": 2, "step": 5}
    assert (said["spec_hash"], said["data_hash"]) == (ME.spec_hash, ME.data_hash)
    assert sorted(said["files"]) == ["default/d", "default/deep/e", "meta"] == files_below(as_path(step))
    assert wrong(step) == ""


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (dataclasses.replace(ME, spec_hash="6" * 64), "spec_hash is 5{64} there and 6{64} in this run: another run"),
        (dataclasses.replace(ME, data_hash="e" * 64), "data_hash is d{64} there and e{64} in this run: it was trained"),
    ],
)
def test_a_step_of_another_run_or_corpus_is_refused(step, identity, said) -> None:
    with pytest.raises(ValueError, match=f"^checkpoint {step}: {said}"):
        wrong(step, identity)
    assert wrong(step) == ""


def test_a_renamed_step_is_refused(step) -> None:
    renamed = step.rename(step.parent / "7")
    with pytest.raises(ValueError, match=f"^checkpoint {renamed}: step is 5 there and 7 in this run: give the folder"):
        wrong(renamed)


def test_no_flipped_bit_of_a_seal_goes_unnoticed(step) -> None:
    """A flip is damage, never another run; in the white space between values it is harmless."""
    whole = (step / SEAL_FILE).read_bytes()
    harmless = 0
    for place in random.Random(0).sample(range(8 * len(whole)), 400):
        raw = bytearray(whole)
        raw[place // 8] ^= 1 << place % 8
        (step / SEAL_FILE).write_bytes(raw)
        if not wrong(step):
            assert json.loads(raw) == json.loads(whole)
            harmless += 1
    assert harmless < 20


def with_content(step: Path, change: dict[str, object]) -> None:
    content = json.loads((step / SEAL_FILE).read_text()) | change
    content.pop("sha256")
    (step / SEAL_FILE).write_text(json.dumps({**content, "sha256": hash_of(content)}))


@pytest.mark.parametrize("change", [{"format": 3}, {"format": 2.5}, {"step": None}])
def test_a_seal_with_other_content_is_refused(step, change) -> None:
    with_content(step, change)
    with pytest.raises(ValueError, match=f"^checkpoint {step}: "):
        wrong(step)


@pytest.mark.parametrize("files", [[], None, "default/d", {"default/d": 1}])
def test_a_seal_without_the_files_hashes_is_damaged(step, files) -> None:
    with_content(step, {"files": files})
    assert wrong(step) in ("its seal has changed", "files are missing or unexpected")


def test_hashes_of_other_hosts_are_taken_and_the_rest_is_hashed_here(step) -> None:
    """A name that other hosts report and that is absent is not sealed."""
    whole = json.loads((step / SEAL_FILE).read_text())
    for known in ({}, hashes_of(as_path(step), ["default/d"]), hashes_of(as_path(step), files_below(as_path(step)))):
        seal_step(as_path(step), 5, ME, {**known, "absent": "0" * 64})
        assert json.loads((step / SEAL_FILE).read_text()) == whole
    seal_step(as_path(step), 5, ME, {"meta": "0" * 64})
    assert wrong(step) == "meta has changed"


def test_a_process_hashes_the_files_in_orbaxs_folder_of_its_number(tmp_path) -> None:
    folder = as_path(tmp_path / "5")
    assert own_files(folder, 1) == []
    names = [f"default/ocdbt.process_{i}/d/x" for i in (0, 1, 11)]
    for name in ("default/_METADATA", *names):
        (tmp_path / "5" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "5" / name).write_text(name)
    assert own_files(folder, 1) == [names[1]]


class Service:
    """jax's coordination service, for the threads of one process. A read waits until the key is set."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key: str, value: str) -> None:
        with self._changed:
            self.values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: key in self.values, min(60, milliseconds / 1000))
            return self.values[key]

    def key_value_delete(self, key: str) -> None:
        with self._changed:
            del self.values[key]


def test_two_processes_seal_a_step_and_leave_no_hashes_in_the_service(step, monkeypatch) -> None:
    """Thousands of saves would otherwise fill the memory of the first process, which has the service."""
    service, first = Service(), threading.current_thread()
    monkeypatch.setattr(distributed.global_state, "client", service)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: int(threading.current_thread() is not first))
    (step / "ocdbt.process_1").mkdir()
    (step / "ocdbt.process_1" / "x").write_text("x")
    (step / SEAL_FILE).unlink()
    other = threading.Thread(target=seal_together, args=(as_path(step), 5, ME, 7))
    other.start()
    seal_together(as_path(step), 5, ME, 7)
    other.join()
    assert wrong(step) == ""
    assert service.values == {"mdm_jax/seal/7/outcome": "sealed"}


def as_format_1(step: Path) -> None:
    """The seal as earlier versions wrote it."""
    (step / SEAL_FILE).write_text(json.dumps(json.loads((step / SEAL_FILE).read_text())["files"], indent=0))


def test_a_seal_of_format_1_is_taken_and_still_finds_damage(step) -> None:
    as_format_1(step)
    assert wrong(step) == ""
    (step / "meta").write_text("meat")
    assert wrong(step) == "meta has changed"


def test_everything_is_on_the_disk_before_the_seal_and_its_name_after_it(step, monkeypatch) -> None:
    """The calls that a power cut would test: each is made for real, and its order is noted."""
    (step / SEAL_FILE).unlink()
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        order.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), step))
        fsync(handle)

    def noted_replace(source, target) -> None:
        replace(source, target)
        order.append("sealed")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    seal_step(as_path(step), 5, ME)
    sealed = order.index("sealed")
    assert {"meta", "default", "default/d", "default/deep", "default/deep/e", "."} <= set(order[: sealed - 1])
    assert order[sealed - 1].startswith(f".{SEAL_FILE}.")
    assert order[sealed + 1 :] == [".", ".."]


@pytest.fixture
def started(shop, tmp_path) -> Callable[[RunSpec], str]:
    """What a run says that finds the checkpoints 10 and 12 of `shop.spec(Family.ARM)` in its folder, and no result."""
    spec = shop.spec(Family.ARM)
    whole = shop.undisturbed(spec) / spec.run_id / "checkpoints"

    def start(run: RunSpec) -> str:
        folder = Path(shutil.copytree(whole, tmp_path / run.run_id / "checkpoints"))
        before = sorted(folder.rglob("*"))
        end = shop.run(run, tmp_path)
        assert (end.code, len(end.errors), "Traceback" in end.said) == (1, 1, False), end.said
        assert sorted(folder.rglob("*")) == before
        return end.errors[0]

    return start


def test_a_run_refuses_the_checkpoints_of_another(shop, started) -> None:
    theirs = shop.spec(Family.ARM)
    ours = dataclasses.replace(theirs, seed=7)
    said = started(ours)
    assert f"/12: spec_hash is {theirs.spec_hash} there and {ours.spec_hash} in this run: another run" in said


def test_a_run_refuses_its_checkpoints_when_the_text_is_another_and_the_result_lost(shop, started, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    other, spec = prepared(tmp_path / "other", count=299), shop.spec(Family.ARM)
    manifest = dataclasses.replace(read_manifest(other.directory), corpus=spec.data.corpus)
    write_manifest(other.directory, manifest)  # as if the text had changed since, and been prepared again
    data = dataclasses.replace(spec.data, directory=other.directory)
    said = started(dataclasses.replace(spec, data=data))
    before = read_manifest(spec.data.directory).data_hash
    assert f"/12: data_hash is {before} there and {manifest.data_hash} in this run: it was trained on other" in said


def test_a_renamed_step_of_format_1_is_refused_by_its_content(shop, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    folder = killed_at(shop.undisturbed(spec), tmp_path, spec, 10).parent
    as_format_1(folder / "checkpoints" / "10")
    (folder / "checkpoints" / "10").rename(folder / "checkpoints" / "11")
    checkpoints = Checkpoints(as_path(folder / "checkpoints"), ME)
    said = rf"^{folder}/checkpoints/11: the state's step = 10: must be 11: give the folder its name back"
    with quick_compilation(), on_mesh(), pytest.raises(ValueError, match=said):
        _starting_state(spec, as_path(folder), checkpoints, ME.data_hash, Watch(), None)
    assert (folder / "checkpoints" / "11").is_dir()
