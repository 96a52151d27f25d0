"""Checkpoints: what was saved comes back bit by bit, and no damage of any file is ever restored."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from running import assert_same, killed_at, outcome, result
from saved_states import ME, restored, same, state

from mdm_jax.files.storage import as_path
from mdm_jax.spec import Family
from mdm_jax.train.checkpoint import Checkpoints, read_step
from mdm_jax.train.seal import SEAL_FILE, Identity, seal_step, step_fault


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with the steps 3 and 5 (and 1, which was let go)."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(as_path(folder), ME)
    for step in (1, 3, 5):
        checkpoints.save(step, state(step))
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def wrong(step: Path) -> str:
    return step_fault(as_path(step), int(step.name), ME)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_newest_step_comes_back_bit_by_bit_and_two_are_kept(folder) -> None:
    read, step, passed = restored(folder)
    assert (step, passed) == (5, [])
    assert read is not None
    assert same(read, state(5))
    assert sorted(entry.name for entry in folder.iterdir()) == ["3", "5"]
    assert [wrong(folder / name) for name in ("3", "5")] == ["", ""]


def test_a_flipped_bit_in_any_file_is_found(folder) -> None:
    draw = random.Random(0)
    for path in files(folder / "5"):
        whole = path.read_bytes()
        for _ in range(3 if whole else 0):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            assert wrong(folder / "5"), path
        path.write_bytes(whole)
    assert wrong(folder / "5") == ""


def test_a_file_cut_short_missing_or_too_many_is_found(folder) -> None:
    for path in files(folder / "5"):
        whole = path.read_bytes()
        if whole:
            path.write_bytes(whole[:-1])
            assert wrong(folder / "5"), path
        path.unlink()
        assert wrong(folder / "5"), path
        path.write_bytes(whole)
    (folder / "5" / "default" / "stranger").write_text("")
    assert wrong(folder / "5") == "files are missing or unexpected"


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def flip(step: Path) -> None:
    largest = max(files(step), key=lambda path: path.stat().st_size)
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 2] ^= 1
    largest.write_bytes(raw)


def cut(step: Path) -> None:
    largest = max(files(step), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (empty, "never finished"),
    "unsealed": (lambda step: (step / SEAL_FILE).unlink(), "never finished"),
    "flipped": (flip, "has changed"),
    "cut": (cut, "has changed"),
    "more": (lambda step: (step / "more").write_text("x"), "files are missing or unexpected"),
    "cut seal": (lambda step: (step / SEAL_FILE).write_text('{"a": '), "unreadable"),
    "empty seal": (lambda step: (step / SEAL_FILE).write_text(""), "unreadable"),
    "deep seal": (lambda step: (step / SEAL_FILE).write_text("[" * 100_000), "unreadable"),
    "binary seal": (lambda step: (step / SEAL_FILE).write_bytes(b"\xff\xfe"), "unreadable"),
    "seal of nothing": (lambda step: (empty(step), seal_step(as_path(step), 5, ME)), "files are missing or unexpected"),
    "seal that is no object": (lambda step: (step / SEAL_FILE).write_text("[]"), "files are missing or unexpected"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_passed_over_named_and_renamed(folder, damage) -> None:
    inflict, said = DAMAGES[damage]
    inflict(folder / "5")
    read, step, passed = restored(folder)
    assert step == 3
    assert read is not None
    assert same(read, state(3))
    assert len(passed) == 1
    assert passed[0].startswith(f"checkpoint {folder}/5 passed over: ")
    assert said in passed[0]
    assert passed[0].endswith("; it is 5.bad-1 now")
    assert names(folder) == ["3", "5.bad-1"]
    checkpoints = Checkpoints(as_path(folder), ME)  # the step can be written again
    checkpoints.save(5, state(5))
    checkpoints.close()
    assert restored(folder)[1] == 5
    assert names(folder) == ["3", "5", "5.bad-1"]


def test_nothing_whole_is_said_and_starts_from_zero(folder) -> None:
    flip(folder / "3")
    empty(folder / "5")
    read, step, passed = restored(folder)
    assert read is None
    assert step == 0
    assert [line.split("/")[-1] for line in passed[:1]] == ["5 passed over: never finished; it is 5.bad-1 now"]
    assert passed[-1] == "no checkpoint is whole: starting over"
    assert names(folder) == ["3.bad-1", "5.bad-1"]
    assert restored(folder) == (None, 0, [])


STRANGERS = (".DS_Store", "notes", "²", "007", "9.bad-1")


def test_what_an_interrupted_save_left_is_cleared_and_strangers_stay(folder) -> None:
    half = folder / "7.orbax-checkpoint-tmp" / "default"
    half.mkdir(parents=True)
    (half / "d").write_text("half")
    for name in STRANGERS[1:]:
        (folder / name).mkdir()
        (folder / name / "mine").write_text(name)
    (folder / STRANGERS[0]).write_text("")
    assert restored(folder)[1] == 5
    checkpoints = Checkpoints(as_path(folder), ME)
    for step in (7, 9, 11):
        checkpoints.save(step, state(step))
    checkpoints.close()
    assert names(folder) == sorted([*STRANGERS, "9", "11"])
    assert all((folder / name / "mine").read_text() == name for name in STRANGERS[1:])
    read, step, passed = restored(folder)
    assert read is not None
    assert (step, passed, same(read, state(11))) == (11, [], True)


def test_steps_of_format_1_come_back_and_are_replaced_by_newer_ones(folder) -> None:
    for step in folder.iterdir():
        (step / SEAL_FILE).write_text(json.dumps(json.loads((step / SEAL_FILE).read_text())["files"], indent=0))
    read, step, passed = restored(folder)
    assert read is not None
    assert (step, passed, same(read, state(5))) == (5, [], True)
    checkpoints = Checkpoints(as_path(folder), ME)
    checkpoints.save(7, state(7))
    checkpoints.close()
    assert names(folder) == ["5", "7"]
    assert restored(folder)[1] == 7


def test_an_older_step_of_another_run_is_refused_too(folder) -> None:
    """Otherwise it would be deleted at one of the next steps."""
    seal_step(as_path(folder / "3"), 3, Identity("6" * 64, ME.data_hash))
    with pytest.raises(ValueError, match=f"^checkpoint {folder}/3: spec_hash is 6+ there and 5+ in this run"):
        restored(folder)
    assert names(folder) == ["3", "5"]


def test_the_step_of_a_parent_must_be_whole_and_its_own(folder) -> None:
    like = jax.tree.map(jnp.zeros_like, state(0))
    assert same(read_step(as_path(folder), 5, like, ME), state(5))
    for other, name in (
        (Identity("6" * 64, ME.data_hash), "spec_hash"),
        (Identity(ME.spec_hash, "e" * 64), "data_hash"),
    ):
        with pytest.raises(ValueError, match=f"^checkpoint {folder}/5: {name} is "):
            read_step(as_path(folder), 5, like, other)
    flip(folder / "5")
    for step, said in ((5, "has changed"), (7, "absent")):
        with pytest.raises(
            ValueError, match=rf"^checkpoint {folder}/{step} cannot be used: .*{said}: remove that run's"
        ):
            read_step(as_path(folder), step, like, ME)
    assert names(folder) == ["3", "5"]


def test_a_bad_step_older_than_the_newest_is_renamed_too(folder) -> None:
    """Otherwise orbax would delete it at one of the next steps, whatever it holds."""
    (folder / "1").mkdir()
    (folder / "1" / "mine").write_text("x")
    _, step, passed = restored(folder)
    assert (step, len(passed)) == (5, 1)
    assert (folder / "1.bad-1" / "mine").read_text() == "x"


def test_a_file_with_a_steps_name_is_no_step(folder) -> None:
    (folder / "7").write_text("mine")
    _, step, passed = restored(folder)
    assert (step, passed[0].split("/")[-1]) == (5, "7 passed over: a file and not a folder; it is 7.bad-1 now")
    assert (folder / "7.bad-1").read_text() == "mine"


def test_a_step_that_is_bad_again_gets_a_name_of_its_own(folder) -> None:
    for number in (1, 2):
        flip(folder / "5")
        assert restored(folder)[1] == 3
        assert (folder / f"5.bad-{number}" / SEAL_FILE).is_file()
        checkpoints = Checkpoints(as_path(folder), ME)
        checkpoints.save(5, state(5))
        checkpoints.close()


def test_orbaxs_own_files_may_be_damaged_in_any_way(folder) -> None:
    """A damaged step is out of orbax's way before orbax looks at the folder."""
    metadata = folder / "5" / "_CHECKPOINT_METADATA"
    for content in ('{"init_timestamp_nsecs": "soon"}', "[]", "{", "\0", '{"commit_timestamp_nsecs": 1e999}'):
        metadata.write_text(content)
        assert restored(folder)[1] == 3
        (folder / "5.bad-1").rename(folder / "5")


def test_a_seal_that_names_files_elsewhere_is_refused(folder) -> None:
    (folder / "secret").write_text("x")
    recorded = json.loads((folder / "5" / SEAL_FILE).read_text())["files"]  # format 1: no hash of its own
    for name in ("../secret", str(folder / "secret"), "default/../../secret", "C:\\secret"):
        (folder / "5" / SEAL_FILE).write_text(json.dumps({**recorded, name: "0" * 64}))
        assert wrong(folder / "5") == "files are missing or unexpected"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w": jnp.zeros((64, 52))}, r"w is float32 \[64, 48\] there and float32 \[64, 52\] in this run"),
        ({"w": jnp.zeros((64, 48), jnp.int32)}, r"w is float32 \[64, 48\] there and int32 \[64, 48\] in this run"),
        ({"more": jnp.zeros(2)}, r"more is absent there and float32 \[2\] in this run"),
    ],
)
def test_other_arrays_are_refused_with_one_line(folder, change, said) -> None:
    checkpoints = Checkpoints(as_path(folder), ME)
    with pytest.raises(ValueError, match=rf"^checkpoint {folder}/5: {said}: go on with the hardware.mesh_model"):
        checkpoints.restore(jax.tree.map(jnp.zeros_like, state(0)) | change)
    checkpoints.close()


def test_a_folder_that_orbax_takes_for_a_pattern_is_refused(tmp_path) -> None:
    for sign in "*?[":
        with pytest.raises(ValueError, match="must be free of"):
            Checkpoints(as_path(tmp_path / f"a{sign}b"), ME)
    assert list(tmp_path.iterdir()) == []


def test_a_run_falls_back_to_an_older_step_and_then_to_none_with_the_same_result(shop, whole, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    folder = killed_at(whole, tmp_path / "older", spec, 12)
    flip(folder / "12")
    end = shop.run(spec, tmp_path / "older")
    assert f"{folder / '12'} passed over: " in end.said
    assert "resumed at step 10" in end.said
    assert_same(outcome(tmp_path / "older", spec), outcome(whole, spec))
    folder = killed_at(whole, tmp_path / "none", spec, 12)
    cut(folder / "12")
    empty(folder / "10")
    (tmp_path / "none" / spec.run_id / "result.json").write_text("")  # as a crash of the machine may leave it
    end = shop.run(spec, tmp_path / "none")
    assert "no checkpoint is whole: starting over" in end.said
    assert result(tmp_path / "none", spec).attempts == 1
    assert_same(outcome(tmp_path / "none", spec), outcome(whole, spec))
