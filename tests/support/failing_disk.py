"""Storage whose n-th call fails: the real calls below a folder or in a bucket, one of which raises an error instead.

A Python program has no hook for all its system calls, so the functions of `os` are wrapped, and `open` gives files
whose reads count as calls too. Everything but the chosen call does what it always does.
"""

import builtins
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from bucket import Bucket

CALLS = ("stat", "lstat", "listdir", "scandir", "open", "rename", "replace", "unlink", "rmdir", "mkdir", "fsync")
BUCKET_CALLS = ("info", "ls", "_open", "cp_file", "_rm", "rmdir", "mkdir", "makedirs", "pipe_file")


class Fault:
    """Counts the calls that touch `folder`, and raises the error at the n-th; `fired` names that call, once it came."""

    def __init__(self, folder: str, number: int, error: Callable[[str], Exception]) -> None:
        self._folder, self._left, self._error = folder, number, error
        self._lock = threading.Lock()
        self.fired = ""

    def note(self, call: str, path: str) -> None:
        if not path.startswith(self._folder):
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.fired = f"{call} {path.removeprefix(self._folder)}"
                raise self._error(path)


class _CountedReads(io.FileIO):
    def __init__(self, path: str, fault: Fault) -> None:
        super().__init__(path, "r")
        self._path, self._fault = path, fault

    def readinto(self, buffer: Any) -> int | None:
        self._fault.note("read", self._path)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._fault.note("read", self._path)
        return super().readall()


@contextmanager
def failing_disk(folder: Path, number: int, error: Callable[[str], Exception]) -> Iterator[Fault]:
    """The n-th call that touches something below the folder raises the error."""
    fault = Fault(str(folder), number, error)
    before = {name: getattr(os, name) for name in CALLS}
    open_before = builtins.open

    def counted(name: str) -> Callable[..., Any]:
        def call(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            fault.note(name, _as_text(named["dir_fd"] if named.get("dir_fd") is not None else path))
            return before[name](path, *arguments, **named)

        return call

    def open_counted(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        fault.note("open", _as_text(path))
        if mode not in ("r", "rb") or isinstance(path, int) or arguments:
            return open_before(path, mode, *arguments, **named)
        raw = io.BufferedReader(_CountedReads(os.fspath(path), fault))
        return raw if mode == "rb" else io.TextIOWrapper(raw, encoding=named.get("encoding"))

    for name in CALLS:
        setattr(os, name, counted(name))
    builtins.open = io.open = open_counted
    try:
        yield fault
    finally:
        for name, function in before.items():
            setattr(os, name, function)
        builtins.open = io.open = open_before


def _as_text(where: Any) -> str:
    """The path that a call is about: one it was given, or that of an open file."""
    return os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.fsdecode(where)


@contextmanager
def failing_bucket(number: int, error: Callable[[str], Exception]) -> Iterator[Fault]:
    """The n-th call to the in-memory object store raises the error."""
    fault = Fault("", number, error)
    before = {name: getattr(Bucket, name) for name in BUCKET_CALLS}

    def counted(name: str) -> Callable[..., Any]:
        def call(self: Bucket, path: Any, *arguments: Any, **named: Any) -> Any:
            fault.note(name, str(path))
            return before[name](self, path, *arguments, **named)

        return call

    for name in BUCKET_CALLS:
        setattr(Bucket, name, counted(name))
    try:
        yield fault
    finally:
        for name in BUCKET_CALLS:
            delattr(Bucket, name)  # the inherited one is seen again


def fail_once() -> AbstractContextManager[Fault]:
    """The first call about something below `$FAILING` fails."""
    return failing_disk(Path(os.environ["FAILING"]), 1, lambda what: OSError(errno.EIO, os.strerror(errno.EIO), what))
