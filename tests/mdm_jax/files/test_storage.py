"""Files that survive: modes follow the umask, names are synced, and a disk that does not answer is no absent file."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from bucket import in_memory
from failing_disk import failing_bucket, failing_disk

from mdm_jax.files.storage import Kind, as_path, check_writable, is_file, kind, make_folder, refuse_link, write_atomic


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o027, 0o640)])
def test_a_written_file_has_the_mode_that_the_umask_leaves(tmp_path, umask, mode) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "new" / "result.json", "first")
        write_atomic(tmp_path / "new" / "result.json", "second")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "result.json").stat().st_mode) == mode
    assert (tmp_path / "new" / "result.json").read_text() == "second"
    assert os.listdir(tmp_path / "new") == ["result.json"]


def synced(monkeypatch, root: Path) -> list[str]:
    """Fills as files and folders below the root are synced for real."""
    paths: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        paths.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), root))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def test_a_written_file_and_its_name_are_synced(tmp_path, monkeypatch) -> None:
    paths = synced(monkeypatch, tmp_path)
    write_atomic(tmp_path / "result.json", "x")
    assert len(paths) == 2
    assert paths[0].startswith(".result.json.")
    assert paths[1] == "."


def test_the_names_of_new_folders_are_synced(tmp_path, monkeypatch) -> None:
    paths = synced(monkeypatch, tmp_path)
    make_folder(tmp_path / "a" / "b")
    assert sorted(paths) == [".", "a"]
    make_folder(tmp_path / "a" / "b")
    assert len(paths) == 2


@pytest.mark.parametrize("call", range(1, 8))
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path, call) -> None:
    write_atomic(tmp_path / "result.json", "old")
    possible = {"old", "new"}
    with failing_disk(tmp_path, call, lambda path: OSError(errno.ENOSPC, "full", path)), suppress(OSError):
        write_atomic(tmp_path / "result.json", "new")
        possible = {"new"}
    assert (tmp_path / "result.json").read_text() in possible
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_path_is_checked_before_long_work_and_nothing_is_written(tmp_path) -> None:
    write_atomic(tmp_path / "old.json", "old")
    check_writable(tmp_path / "old.json")
    check_writable(tmp_path / "new" / "result.json")
    check_writable("memory://bucket/result.json")
    assert (os.listdir(tmp_path / "new"), (tmp_path / "old.json").read_text()) == ([], "old")
    (tmp_path / "link").symlink_to(tmp_path / "old.json")
    for name, said in ((".", "is a folder: give the path of a file"), ("link", "link")):
        with pytest.raises(ValueError, match=said):
            check_writable(tmp_path / name)
    with pytest.raises(OSError, match=r"old\.json/x not written: "):
        check_writable(tmp_path / "old.json" / "x")


def test_what_lies_at_a_path(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    names = {"file": Kind.FILE, "link": Kind.LINK, "nowhere": Kind.LINK, "pipe": Kind.OTHER, "absent": Kind.ABSENT}
    assert {name: kind(tmp_path / name) for name in names} == names
    assert (kind(tmp_path), kind(tmp_path / "file" / "below")) == (Kind.FOLDER, Kind.ABSENT)
    assert [is_file(tmp_path / name) for name in ("file", "link", "nowhere", "pipe", "absent")] == [1, 1, 0, 0, 0]
    refuse_link(tmp_path / "file")
    with pytest.raises(ValueError, match=f"^{tmp_path}/nowhere is a link to {tmp_path}/absent: put a file or folder"):
        refuse_link(tmp_path / "nowhere")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ELOOP])
def test_a_disk_that_does_not_answer_is_no_absent_file(tmp_path, code) -> None:
    (tmp_path / "file").write_text("x")
    for ask in (kind, is_file, refuse_link):
        failing = failing_disk(tmp_path, 1, lambda path: OSError(code, os.strerror(code), path))
        with failing, pytest.raises(OSError, match=os.strerror(code)):
            ask(tmp_path / "file")


def test_an_object_store_that_does_not_answer_is_no_absent_file() -> None:
    with in_memory():
        file = as_path("s3://bucket/folder/file")
        write_atomic(file, "x")
        assert [kind(path) for path in (file, file.parent, file / "no")] == [Kind.FILE, Kind.FOLDER, Kind.ABSENT]
        with failing_bucket(1, ConnectionError), pytest.raises(ConnectionError):
            kind(file)
