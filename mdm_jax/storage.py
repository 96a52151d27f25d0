"""Files on a disk or in a bucket: every path is an `etils.epath` path, so a plan or a run may lie at `gs://…`."""

import os
import tempfile

from etils import epath

Path = epath.Path


def as_path(path: epath.PathLike) -> epath.Path:
    """The path as an epath.Path, `~` expanded."""
    return epath.Path(path).expanduser()


def is_local(path: epath.Path) -> bool:
    """Whether the path lies on a disk (append, rename and fsync work) and not in an object store."""
    return "://" not in str(path)


def write_atomic(path: epath.PathLike, content: str | bytes) -> None:
    """Writes the whole file or leaves what was there: a rename on a disk, one upload in an object store.

    Raises:
        OSError: the disk is full or not writable; the old file, if any, is untouched.
    """
    path, raw = as_path(path), content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(path):
        path.write_bytes(raw)
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def inside(root: epath.PathLike, name: str) -> epath.Path:
    """`root / name`, for a file name that a stranger's file gives.

    Raises:
        ValueError: the name is empty, absolute, or climbs out of `root`.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith("/") or "://" in name or ".." in parts or "\0" in name:
        raise ValueError(f"file name {name!r}: must stay inside {root}")
    return as_path(root) / name
