"""Files on a disk or in a bucket: every path is an `etils.epath` path, so a plan or a run may lie at `gs://…`."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from etils import epath

Path = epath.Path


def as_path(path: str | os.PathLike[str]) -> epath.Path:
    """The path as an epath.Path, `~` expanded."""
    return epath.Path(path).expanduser()


def is_local(path: epath.Path) -> bool:
    """Whether the path lies on a disk (append, rename and fsync work) and not in an object store."""
    return "://" not in str(path)


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes the whole file or leaves what was there: a rename on a disk, one upload in an object store.

    Raises:
        OSError: the disk is full or not writable (the file is named); the old file, if any, is untouched.
    """
    target, raw = as_path(path), content.encode() if isinstance(content, str) else content
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(target):
        target.write_bytes(raw)
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with named(target), os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def named(path: epath.Path) -> Iterator[None]:
    """Puts the file's name into an error of writing, such as a full disk; the system names only files that it opens."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def inside(root: str | os.PathLike[str], name: str) -> epath.Path:
    """`root / name`, for a file name that a stranger's file gives.

    Raises:
        ValueError: the name is empty, absolute, or climbs out of `root`.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith("/") or "://" in name or ".." in parts or "\0" in name:
        raise ValueError(f"file name {name!r}: must stay inside {root}")
    return as_path(root) / name
