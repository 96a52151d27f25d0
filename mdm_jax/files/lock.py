"""One holder a folder: an flock, which the kernel frees when the last process that has it open dies, however it dies.

`isoflop.run` holds the folder of a sweep and hands the open file to its runs: after a runner is killed outright, its
orphans still hold the folder, so that no second runner starts beside them. `mdm_jax.main` holds the folder of the run
that it trains, in process 0 alone. The file's text (host and process ids) only explains; the lock is the kernel's.
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
"""What flock answers on a file system that has no locks."""
RETRY_SECONDS = 0.05
PATIENCE_SECONDS = 1.0
"""A run waits so long for its lock: a runner that looks whether somebody holds it has it for an instant."""


class Held(ValueError):
    """Somebody else holds the folder."""


class Lock:
    """The held lock; `handle` is the open file, which children may inherit, or None where there can be no lock."""

    def __init__(self, handle: int | None) -> None:
        self.handle = handle

    def note_runs(self, pids: Iterable[int]) -> None:
        """Writes down which processes hold the folder, for the message of the next one that comes."""
        if self.handle is None:
            return
        holder = {"host": platform.node(), "holder": os.getpid(), "runs": sorted(pids)}
        with suppress(OSError):  # a full disk takes no explanation, and the lock holds without it
            os.ftruncate(self.handle, 0)
            os.pwrite(self.handle, json.dumps(holder).encode(), 0)


@contextmanager
def hold_run(folder: Path, say: Callable[[str], None]) -> Iterator[Lock]:
    """Holds a run's folder, which is made if need be; see `hold`.

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
    """Holds the folder, or goes on without a lock where there can be none, and says so.

    Args:
        folder: an existing folder, or one in a bucket.
        name: of the lock's file.
        say: takes one line where the folder cannot be locked.
        patience_seconds: how long a holder is waited for.

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
            raise Held(f"{folder}: {_holder(os.pread(handle, 1 << 16, 0))}") from None
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


def _holder(text: bytes) -> str:
    try:
        said = json.loads(text)
        host, holder, runs = str(said["host"]), int(said["holder"]), [int(pid) for pid in said["runs"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process holds it: wait for it to end"
    if host != platform.node():
        return f"process {holder} on {host} is running it: wait for it, or stop it there with kill {holder}"
    if _alive(holder):
        return f"process {holder} is running it: wait for it, or stop it with kill {holder}"
    alive = " ".join(str(pid) for pid in runs if _alive(pid))
    stop = f", or stop them with kill {alive}" if alive else ""
    return f"its runner was killed and its runs still train: wait for them{stop}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
