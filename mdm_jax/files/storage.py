"""Files on a disk or in a bucket. Every path is an `etils.epath` path, so a plan or a run may lie at `gs://…`.

Two rules protect stored files:

- An error that may pass is never taken for an absent file, as `exists` and `is_dir` of most libraries do.
- A run or a sweep never writes or deletes through a link, because the link may lead to a folder that somebody needs.
"""

import contextlib
import enum
import errno
import hashlib
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
READ_BYTES = 16 << 20


class Kind(enum.Enum):
    """The kind of thing at a path."""

    ABSENT = "absent"
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "neither file nor folder"


def as_path(path: str | os.PathLike[str]) -> epath.Path:
    """The path as an epath.Path, `~` expanded."""
    return epath.Path(path).expanduser()


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether the path is on a disk, where append, rename and fsync work, and not in an object store."""
    return "://" not in str(path)


def kind(path: str | os.PathLike[str], follow: bool = False) -> Kind:
    """The kind of thing at the path, which may be absent.

    Args:
        path: path of a file or folder.
        follow: follow links. An object store has none.

    Raises:
        OSError: the disk does not answer now. An object store may raise other errors.
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
    """Whether the path is a file, or a link to a file.

    Raises:
        OSError: the disk does not answer now.
    """
    return kind(path, follow=True) is Kind.FILE


def entries(folder: Path) -> list[Path]:
    """The paths in the folder; none if the folder is absent, because an object store has no empty folders.

    Raises:
        OSError: the disk does not answer now. An object store may raise other errors.
    """
    return list(folder.iterdir()) if kind(folder, follow=True) is Kind.FOLDER else []


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Returns if the path itself is not a link. The folders above it may be links.

    Raises:
        ValueError: the path is a link.
        OSError: the disk does not answer now.
    """
    if kind(path) is Kind.LINK:
        fix = "put a file or folder in its place (only the sweep's folder and its `runs` may be links)"
        raise ValueError(f"{path} is a link to {os.readlink(path)}: {fix}")


def free_name(path: Path, word: str) -> Path:
    """The first of `PATH.word-1`, `PATH.word-2`, … that is absent.

    Raises:
        OSError: the disk does not answer now.
    """
    names = (path.parent / f"{path.name}.{word}-{n}" for n in itertools.count(1))
    return next(name for name in names if kind(name) is Kind.ABSENT)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Makes the folder and those above it. When it returns, they survive a power cut.

    Raises:
        OSError: no space or no access.
    """
    path = as_path(folder)
    made = [new for new in (path, *path.parents) if is_local(path) and not os.path.lexists(new)]
    path.mkdir(parents=True, exist_ok=True)
    for new in made:
        sync_folder(new.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Makes the names in a local folder survive a power cut, if its file system can sync a folder.

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
    """Like `open(path, mode)`, for a local file.

    Raises:
        ValueError: the path is a link.
        OSError: no space or no access.
    """
    return open(path, mode, opener=_open_no_follow)


def open_lock(path: str | os.PathLike[str]) -> int:
    """The descriptor of a local lock file, open for reading and writing; the text in the file is kept.

    Raises:
        ValueError: the path is a link.
        OSError: no access.
    """
    return _open_no_follow(path, os.O_RDWR | os.O_CREAT)


def _open_no_follow(path: str | os.PathLike[str], flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError:
        refuse_link(path)
        raise


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes the whole file, or leaves the old one: by a rename on a disk, by one upload in an object store.

    When it returns, the new file survives a power cut. Its mode follows the umask.

    Raises:
        ValueError: the path is a link.
        OSError: the disk is full or not writable (the file is named); the old file, if any, is untouched.
    """
    target, raw = as_path(path), content.encode() if isinstance(content, str) else content
    with _named_in_errors(target):
        if is_local(target):
            refuse_link(target)
            make_folder(target.parent)
            _replace(target, raw)
            sync_folder(target.parent)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Returns if `write_atomic` can write a file at the path. It makes the file's folder, and leaves no file.

    Call it before long work whose result goes there. Object stores are not asked.

    Raises:
        ValueError: the path is a link or a folder.
        OSError: the folder cannot be made or written.
    """
    if not is_local(path):
        return
    target = as_path(path)
    if kind(target) is Kind.FOLDER:
        raise ValueError(f"{target}: is a folder: give the path of a file")
    with _named_in_errors(target):
        refuse_link(target)
        make_folder(target.parent)
        temporary = _temporary(target)
        open(temporary, "xb").close()
        os.unlink(temporary)


def _temporary(target: epath.Path) -> epath.Path:
    """A new name beside the file, which is hidden."""
    return target.parent / f".{target.name}.{secrets.token_hex(4)}"


def _replace(target: epath.Path, raw: bytes) -> None:
    temporary = _temporary(target)
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


def sha256_of(path: epath.Path) -> str:
    """The SHA-256 (hex) of a file's content.

    Raises:
        OSError: the file is absent, or cannot be read now.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _named_in_errors(path: epath.Path) -> Iterator[None]:
    """Adds the file's name to an error of the disk, because the system does not always name the file."""
    try:
        yield
    except OSError as error:
        named = OSError(f"{path} not written: {error.strerror or error}")
        named.errno = error.errno
        raise named from error


def inside(root: str | os.PathLike[str], name: str) -> epath.Path:
    """`root / name`, for a name from a file that is not trusted.

    Raises:
        ValueError: the name is empty, absolute, or leads out of `root`.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith("/") or "://" in name or ".." in parts or "\0" in name:
        raise ValueError(f"file name {name!r}: must stay inside {root}")
    return as_path(root) / name
