"""Failures that cached programs may have caused: they are tried once more, with every program compiled anew.

The seal of `program_cache` finds what a disk has changed. It cannot find a program that was wrong when it was sealed,
or one that does not suit this machine. Such a program may end the process, which then leaves `crash.txt` for the next
attempt to see, or it may only look like a divergence, which would be final.
"""

import faulthandler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax

from mdm_jax.program_cache import program_cache
from mdm_jax.step_folders import steps_in
from mdm_jax.storage import Path, is_local
from mdm_jax.train.loop import Diverged

T = TypeVar("T")
CRASH_FILE = "crash.txt"


def confirmed(attempt: Callable[[], T], folder: Path, attempts: int, say: Callable[[str], None]) -> T:
    """What the attempt returns; if it fails with programs from the cache, what it returns or raises without them.

    Checkpoints that the failed attempt has saved are removed, for the same programs have computed them.

    Args:
        attempt: may be called twice.
        folder: the run's.
        attempts: processes that have tried the run so far, with this one.
        say: tells the user in one line.

    Raises:
        Diverged, jax.errors.JaxRuntimeError: the attempt failed, and no program of it came from the cache.
    """
    with crash_file(folder, attempts) as crashed, program_cache(say) as programs:
        if crashed and programs is not None:
            say("an earlier attempt crashed: all programs are compiled anew")
            programs.compile_anew()
        before = set(steps_in(folder / "checkpoints"))
        try:
            return attempt()
        except (Diverged, jax.errors.JaxRuntimeError) as error:
            if programs is None or not programs.read:
                raise
            reason = str(error).partition("\n")[0]
        say(f"{reason}; {programs.read} programs came from the cache: once more, with all of them compiled anew")
        programs.compile_anew()
        for step in set(steps_in(folder / "checkpoints")) - before:
            (folder / "checkpoints" / str(step)).rmtree()
        return attempt()


@contextmanager
def crash_file(folder: Path, attempts: int) -> Iterator[bool]:
    """Whether an earlier attempt crashed; if this one does, its Python stack is added to `crash.txt`.

    A crash is SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT. SIGKILL leaves no trace and is no crash. A run in a bucket
    has no such file, so that every attempt after the first counts as one after a crash.

    Args:
        folder: the run's.
        attempts: see `confirmed`.
    """
    if not is_local(folder) or jax.process_count() > 1:
        yield attempts > 1
        return
    path = folder / CRASH_FILE
    try:
        with path.open("a") as file:
            # jax has its devices by now: libtpu has set handlers of its own, which get the signal after this one.
            faulthandler.enable(file)
            try:
                yield file.tell() > 0
            finally:
                faulthandler.disable()
    finally:
        if path.is_file() and not path.stat().length:
            path.unlink()
