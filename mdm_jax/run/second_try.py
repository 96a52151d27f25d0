"""Repeats an attempt that cached programs may have made fail, with every program compiled again.

A seal of `program_cache` shows that the disk has changed a program. It does not show that a program was wrong when it
was sealed, or does not suit this machine. Such a program may crash the process: the next attempt sees this by the file
`crash.txt`. Or its failure may look like a divergence, which would be final.
"""

import faulthandler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax

from mdm_jax.evaluate.partial_losses import PARTIAL_FILES
from mdm_jax.files.faults import may_pass
from mdm_jax.files.layout import CHECKPOINTS_FOLDER, steps_in
from mdm_jax.files.storage import Path, is_file, is_local, open_no_link
from mdm_jax.run.program_cache import program_cache
from mdm_jax.train.loop import Diverged
from mdm_jax.train.step_folders import set_aside

T = TypeVar("T")
CRASH_FILE = "crash.txt"
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def retried_without_cache(attempt: Callable[[], T], folder: Path, attempts: int, say: Callable[[str], None]) -> T:
    """The result of the attempt. If it fails with programs from the cache, it is repeated once without the cache.

    The failed attempt's checkpoints are renamed, because the same programs have computed them.

    Args:
        attempt: a function that may be called twice.
        folder: the run's folder.
        attempts: the number of processes that have tried the run so far, including this one.
        say: prints one line for the user.

    Raises:
        Diverged, jax.errors.JaxRuntimeError: the attempt failed without programs from the cache.
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
            if programs is None or not programs.in_use or may_pass(error) or OUT_OF_MEMORY in str(error):
                raise
            reason = str(error).partition("\n")[0]
        say(f"{reason}; {programs.in_use} programs came from the cache: once more, with all of them compiled anew")
        programs.compile_anew()
        _set_aside_doubtful(folder, set(steps_in(folder / CHECKPOINTS_FOLDER)) - before, say)
        return attempt()


def _set_aside_doubtful(folder: Path, steps: set[int], say: Callable[[str], None]) -> None:
    """Renames the checkpoints of doubtful programs, and removes the partial losses of the evaluation."""
    if jax.process_index() != 0:
        return
    for step in sorted(steps):
        aside = set_aside(folder / CHECKPOINTS_FOLDER / str(step))
        say(f"checkpoint {step} was computed by the same programs: it is {aside.name} now")
    for name in PARTIAL_FILES:
        (folder / name).unlink(missing_ok=True)


def _forget_losses_before_crash(folder: Path) -> None:
    """Removes partial losses that are older than the crash; a bucket has no `crash.txt` to compare them with."""
    crash = folder / CRASH_FILE
    for partial in (folder / name for name in PARTIAL_FILES):
        if is_local(folder) and is_file(partial) and partial.stat().mtime <= crash.stat().mtime:
            partial.unlink()


@contextmanager
def crash_file(folder: Path, attempts: int) -> Iterator[bool]:
    """Yields whether an earlier attempt crashed. If the process crashes inside, its Python stack goes to `crash.txt`.

    A crash is SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT; SIGKILL is not. A run in a bucket or of several processes has
    no such file, so every attempt after the first counts as one after a crash.

    Args:
        folder: the run's folder.
        attempts: see `retried_without_cache`.
    """
    if not is_local(folder) or jax.process_count() > 1:
        yield attempts > 1
        return
    path = folder / CRASH_FILE
    try:
        with open_no_link(path, "a") as file:
            # jax has found its devices, so libtpu has set its own handlers. They get the signal after this one.
            faulthandler.enable(file)
            try:
                yield file.tell() > 0
            finally:
                faulthandler.disable()
    finally:
        if path.is_file() and not path.stat().length:
            path.unlink()
