"""One runner a directory: an flock, which goes with its processes however they die.

The runs inherit the lock: after a runner is killed outright, its orphans still hold the directory, so that no second
process trains into theirs. The file's text (pids) only explains; the lock itself is the kernel's.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mdm_jax.storage import open_lock

LOCK_FILE = ".run.lock"


class Lock:
    """The held lock; `handle` is the open file that the runs inherit."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def note_runs(self, pids: Iterable[int]) -> None:
        """Writes down which processes hold the directory, for the message of the next one that comes."""
        text = json.dumps({"runner": os.getpid(), "runs": sorted(pids)}).encode()
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, text, 0)


@contextmanager
def hold(directory: Path) -> Iterator[Lock]:
    """Holds the directory.

    Raises:
        ValueError: another runner, or the runs of a killed one, hold it; their pids are named. Or the lock is a link.
    """
    handle = open_lock(directory / LOCK_FILE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{directory}: {_holder(os.pread(handle, 1 << 16, 0))}") from None
        lock = Lock(handle)
        lock.note_runs(())
        yield lock
    finally:
        os.close(handle)


def _holder(text: bytes) -> str:
    try:
        said = json.loads(text)
        runner, runs = int(said["runner"]), [int(pid) for pid in said["runs"]]
    except (ValueError, KeyError, TypeError):
        return "another runner holds it: wait for it to end"
    if _alive(runner):
        return f"process {runner} is running it: wait for it, or stop it with kill {runner}"
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
