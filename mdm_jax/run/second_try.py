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

from mdm_jax.evaluate.partial_losses import PARTIAL_FILE
from mdm_jax.files.faults import may_pass
from mdm_jax.files.storage import Path, is_file, is_local, open_no_link
from mdm_jax.layout import CHECKPOINTS_FOLDER, steps_in
from mdm_jax.run.program_cache import program_cache
from mdm_jax.train.loop import Diverged
from mdm_jax.train.step_folders import set_aside

T = TypeVar("T")
CRASH_FILE = "crash.txt"
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def retried_without_cache(attempt: Callable[[], T], folder: Path, attempts: int, say: Callable[[str], None]) -> T:
    """What the attempt returns; if it fails with programs from the cache, what it returns or raises without them.

    Checkpoints that the failed attempt has saved are renamed, because the same programs have computed them.

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
            _forget_losses_before_crash(folder)
        before = set(steps_in(folder / CHECKPOINTS_FOLDER))
        try:
            return attempt()
        except (Diverged, jax.errors.JaxRuntimeError) as error:
            if programs is None or not programs.read or may_pass(error) or OUT_OF_MEMORY in str(error):
                raise
            reason = str(error).partition("\n")[0]
        say(f"{reason}; {programs.read} programs came from the cache: once more, with all of them compiled anew")
        programs.compile_anew()
        _distrust(folder, set(steps_in(folder / CHECKPOINTS_FOLDER)) - before, say)
        return attempt()


def _distrust(folder: Path, steps: set[int], say: Callable[[str], None]) -> None:
    """Sets aside what doubtful programs have computed: checkpoints, and the kept losses of an evaluation."""
    if jax.process_index() != 0:
        return
    for step in sorted(steps):
        aside = set_aside(folder / CHECKPOINTS_FOLDER / str(step))
        say(f"checkpoint {step} was computed by the same programs: it is {aside.name} now")
    (folder / PARTIAL_FILE).unlink(missing_ok=True)


def _forget_losses_before_crash(folder: Path) -> None:
    """Removes kept losses that are older than the crash; a bucket has no `crash.txt` to compare them with."""
    kept, crash = folder / PARTIAL_FILE, folder / CRASH_FILE
    if is_local(folder) and is_file(kept) and kept.stat().mtime <= crash.stat().mtime:
        kept.unlink()


@contextmanager
def crash_file(folder: Path, attempts: int) -> Iterator[bool]:
    """Whether an earlier attempt crashed; if this one does, its Python stack is added to `crash.txt`.

    A crash is SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT. SIGKILL leaves no trace and is no crash. A run in a bucket
    has no such file, so that every attempt after the first counts as one after a crash.

    Args:
        folder: the run's.
        attempts: see `retried_without_cache`.
    """
    if not is_local(folder) or jax.process_count() > 1:
        yield attempts > 1
        return
    path = folder / CRASH_FILE
    try:
        with open_no_link(path, "a") as file:
            # jax has its devices by now: libtpu has set handlers of its own, which get the signal after this one.
            faulthandler.enable(file)
            try:
                yield file.tell() > 0
            finally:
                faulthandler.disable()
    finally:
        if path.is_file() and not path.stat().length:
            path.unlink()
