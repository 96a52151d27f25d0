"""Locks of folders by flock. The kernel frees a lock when the last process that has the file open ends, for any reason.

`isoflop.run` locks the folder of a sweep and passes the open file to its runs. If the runner is killed, its runs still
hold the lock, so that no second runner starts. `mdm_jax.main` locks the folder of the run that it trains, in process 0
alone. The text in the file (host and process ids) is only for messages.
"""

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from mdm_jax.files.storage import Path, as_path, is_local, make_folder, open_lock, refuse_link

SWEEP_LOCK = ".run.lock"
RUN_LOCK = ".lock"
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
"""Errors of flock on a file system without locks."""
RETRY_SECONDS = 0.05
PATIENCE_SECONDS = 1.0
"""A run waits this long for its lock, because `is_held` holds the lock for an instant."""


class Held(ValueError):
    """Another process holds the folder."""


class Lock:
    """The held lock. `handle` is the open file, which child processes may inherit; None if locks are impossible."""

    def __init__(self, handle: int | None) -> None:
        self.handle = handle

    def note_runs(self, pids: Iterable[int]) -> None:
        """Writes the ids of the processes that hold the folder into the file, for the message of `Held`."""
        if self.handle is None:
            return
        holder = {"host": platform.node(), "holder": os.getpid(), "runs": sorted(pids)}
        with suppress(OSError):  # on a full disk the lock works without this text
            os.ftruncate(self.handle, 0)
            os.pwrite(self.handle, json.dumps(holder).encode(), 0)


@contextmanager
def hold_run(folder: Path, say: Callable[[str], None]) -> Iterator[Lock]:
    """Holds a run's folder, and makes it if it is absent; see `hold`.

    Raises:
        ValueError: the folder is a link.
    """
    refuse_link(folder)
    make_folder(folder)
    with hold(folder, RUN_LOCK, say, PATIENCE_SECONDS) as lock:
        yield lock


@contextmanager
def hold(
    folder: str | os.PathLike[str], name: str, say: Callable[[str], None], patience_seconds: float = 0.0
) -> Iterator[Lock]:
    """Holds the folder. Where locks are impossible, it warns and goes on without a lock.

    Args:
        folder: an existing folder, or one in a bucket.
        name: name of the lock's file.
        say: called with one line if the folder cannot be locked.
        patience_seconds: how long to wait for another holder.

    Raises:
        Held: another process holds it; its process id is named.
        ValueError: the lock's file is a link.
        OSError: the lock's file cannot be opened.
    """
    if not is_local(as_path(folder)):
        say(f"{folder} lies in a bucket, which has no locks: take care that no second process works on it")
        yield Lock(None)
        return
    handle = open_lock(os.path.join(folder, name))
    try:
        try:
            _flock(handle, patience_seconds)
        except BlockingIOError:
            raise Held(f"{folder}: {_holder_message(os.pread(handle, 1 << 16, 0))}") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            fix = "take care that no second process works on it, or mount the file system with flock"
            say(f"{folder} cannot be locked ({error.strerror}): {fix}")
        lock = Lock(handle)
        lock.note_runs(())
        yield lock
    finally:
        os.close(handle)


def is_held(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether some process holds the folder at this moment."""
    try:
        with hold(folder, name, lambda line: None):
            return False
    except Held:
        return True
    except OSError:
        return False


def _flock(handle: int, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _holder_message(text: bytes) -> str:
    try:
        record = json.loads(text)
        host, holder, runs = str(record["host"]), int(record["holder"]), [int(pid) for pid in record["runs"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process holds it: wait for it to end"
    if host != platform.node():
        return f"process {holder} on {host} is running it: wait for it, or stop it there with kill {holder}"
    if _is_alive(holder):
        return f"process {holder} is running it: wait for it, or stop it with kill {holder}"
    alive = " ".join(str(pid) for pid in runs if _is_alive(pid))
    stop = f", or stop them with kill {alive}" if alive else ""
    return f"its runner was killed and its runs still train: wait for them{stop}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
