"""Files on a disk or in a bucket: every path is an `etils.epath` path, so a plan or a run may lie at `gs://…`.

Two rules protect what others have stored. An error that may pass is never taken for an absent file: `exists` and
`is_dir` of most libraries answer no to both. And what a run or a sweep writes or deletes is never reached through a
link, because the link may lead to a folder that somebody needs.
"""

import contextlib
import enum
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

from etils import epath

Path = epath.Path
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of a file system, such as some network disks, that cannot sync a folder."""


class Kind(enum.Enum):
    """What lies at a path."""

    ABSENT = "absent"
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "neither file nor folder"


def as_path(path: str | os.PathLike[str]) -> epath.Path:
    """The path as an epath.Path, `~` expanded."""
    return epath.Path(path).expanduser()


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether the path lies on a disk (append, rename and fsync work) and not in an object store."""
    return "://" not in str(path)


def kind(path: str | os.PathLike[str], follow: bool = False) -> Kind:
    """What lies at the path.

    Args:
        path: of a file or folder that may be absent.
        follow: answers for what a link leads to. An object store has no links.

    Raises:
        OSError: the disk cannot say now. An object store may raise errors of its own.
    """
    try:
        if not is_local(path):
            return Kind.FOLDER if as_path(path).stat().is_directory else Kind.FILE
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Kind.ABSENT
    if stat.S_ISLNK(mode):
        return Kind.LINK
    return Kind.FOLDER if stat.S_ISDIR(mode) else Kind.FILE if stat.S_ISREG(mode) else Kind.OTHER


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file lies at the path, or a link to one.

    Raises:
        OSError: the disk cannot say now.
    """
    return kind(path, follow=True) is Kind.FILE


def entries(folder: Path) -> list[Path]:
    """What lies in the folder; nothing where there is none, as an object store has no empty folders.

    Raises:
        OSError: the disk cannot say now. An object store may raise errors of its own.
    """
    return list(folder.iterdir()) if kind(folder, follow=True) is Kind.FOLDER else []


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Returns if the path itself is no link; the folders above it may be links.

    Raises:
        ValueError: it is a link.
        OSError: the disk cannot say now.
    """
    if kind(path) is Kind.LINK:
        fix = "put a file or folder in its place (the sweep's folder and its `runs` may be links, what they hold not)"
        raise ValueError(f"{path} is a link to {os.readlink(path)}: {fix}")


def free_name(path: Path, word: str) -> Path:
    """The first of `PATH.word-1`, `PATH.word-2`, … at which nothing lies, not even a link.

    Raises:
        OSError: the disk cannot say now.
    """
    beside = (path.parent / f"{path.name}.{word}-{n}" for n in itertools.count(1))
    return next(name for name in beside if kind(name) is Kind.ABSENT)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Makes the folder and those above it, and has them survive a power cut.

    Raises:
        OSError: no room or no access.
    """
    path = as_path(folder)
    made = [new for new in (path, *path.parents) if is_local(path) and not os.path.lexists(new)]
    path.mkdir(parents=True, exist_ok=True)
    for new in made:
        sync_folder(new.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Has the names in a local folder survive a power cut, where its file system can do so.

    Raises:
        OSError: the disk failed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)


def open_no_link(path: str | os.PathLike[str], mode: str) -> IO:
    """The opened local file, as `open(path, mode)` gives it.

    Raises:
        ValueError: the path is a link.
        OSError: no room or no access.
    """
    return open(path, mode, opener=_without_following)


def open_lock(path: str | os.PathLike[str]) -> int:
    """The descriptor of a local lock file, open to read and write; its text is left as it is.

    Raises:
        ValueError: the path is a link.
        OSError: no access.
    """
    return _without_following(path, os.O_RDWR | os.O_CREAT)


def _without_following(path: str | os.PathLike[str], flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError:
        refuse_link(path)
        raise


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes the whole file or leaves what was there: a rename on a disk, one upload in an object store.

    When it returns, the new file survives a power cut. Its mode follows the umask.

    Raises:
        ValueError: the path is a link.
        OSError: the disk is full or not writable (the file is named); the old file, if any, is untouched.
    """
    target, raw = as_path(path), content.encode() if isinstance(content, str) else content
    with _naming(target):
        if is_local(target):
            refuse_link(target)
            make_folder(target.parent)
            _replace(target, raw)
            sync_folder(target.parent)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw)


def _replace(target: epath.Path, raw: bytes) -> None:
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _naming(path: epath.Path) -> Iterator[None]:
    """Says which file an error of the disk kept from being written; the system does not always."""
    try:
        yield
    except OSError as error:
        named = OSError(f"{path} not written: {error.strerror or error}")
        named.errno = error.errno
        raise named from error


def inside(root: str | os.PathLike[str], name: str) -> epath.Path:
    """`root / name`, for a file name that a stranger's file gives.

    Raises:
        ValueError: the name is empty, absolute, or climbs out of `root`.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith("/") or "://" in name or ".." in parts or "\0" in name:
        raise ValueError(f"file name {name!r}: must stay inside {root}")
    return as_path(root) / name
