"""Checkpoints that are verified before they are used. No other file imports orbax.

Orbax does not notice a flipped byte, and takes a half-written folder for a step. So every finished step gets a seal
(see `seal.py`), and a run resumes from the newest step that matches its seal.

A step is written and sealed by a thread while the run trains on. At most one is being written. Orbax deletes the oldest
step when the new one is written but not sealed yet, so `KEEP` = 2 leaves a whole step at every moment.
"""

import inspect
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mdm_jax.files.faults import PASSING_STATUS
from mdm_jax.files.storage import Path, is_local, make_folder, refuse_link
from mdm_jax.spec.validation import require
from mdm_jax.train.background import Background
from mdm_jax.train.seal import Identity, step_fault
from mdm_jax.train.shared_seal import seal_together
from mdm_jax.train.step_folders import NONE, newest_whole, remove_unfinished, set_aside

T = TypeVar("T")
KEEP = 2
UNREADABLE, REFUSED = -2, -3
"""Numbers that the first process sends to the others when it has failed."""
STATUS = re.compile(r"[A-Z_]+: ")
"""Beginning of an error of tensorstore, which reads and writes for orbax. The error's Python type says little."""
MAY_PASS = re.compile(rf"{PASSING_STATUS}|os_error_code=")
"""Text of a tensorstore error that means that the disk or the network failed: the same read may succeed later."""
PATTERN_SIGNS = set("*?[")
"""Characters that make orbax take a path for a pattern."""
SAVES = itertools.count()
"""Numbers of this process's saves. All processes of a run save the same steps, so the numbers are the same on each."""


def _named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by name. The names do not depend on the Python classes of the tree."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in named}


def _on_host(named: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Copies of the arrays in the host's memory, which no later step reuses. They are finished when it returns."""

    def copied(x: jax.Array) -> jax.Array:
        return jax.device_put(x, x.sharding.with_memory_kind("pinned_host"), may_alias=False)

    return jax.block_until_ready({name: copied(x) for name, x in named.items()})


def _check_complete(manager: ocp.CheckpointManager, step: int, kept: dict[str, jax.Array]) -> None:
    """Returns if the step has all arrays. Orbax may leave some out, without an error, if one of its reads fails.

    Raises:
        ValueError, LookupError: arrays are missing.
    """
    missing = kept.keys() - dict(manager.item_metadata(step)).keys()
    if missing:
        raise LookupError(f"{', '.join(sorted(missing))} missing")


def _in_a_thread() -> ocp.options.MultiprocessingOptions:
    """Options that let orbax save in a thread.

    If orbax is told the processes, they wait for each other through jax's coordination service. Otherwise they
    wait through the devices, where the thread's collective could meet one of a train step.
    """
    several = jax.process_count() > 1
    return ocp.options.MultiprocessingOptions(active_processes=set(range(jax.process_count())) if several else None)


class Checkpoints:
    """The checkpoints of one run: the newest `KEEP` steps below `folder`."""

    def __init__(self, folder: Path, identity: Identity):
        """Makes the folder.

        Args:
            folder: the run's folder of checkpoints.
            identity: the run and the data, which every seal names.

        Raises:
            ValueError: the folder is a link, or its path has `*`, `?` or `[`. Orbax takes these for a pattern, and
                silently writes a checkpoint that cannot be restored.
        """
        self._folder = _absolute(folder)
        self._identity, self._opened = identity, None
        self._writing, self._save_failed = Background(), False
        fine = not PATTERN_SIGNS & set(str(self._folder))
        require(fine, "checkpoints' folder", str(self._folder), f"free of {' '.join(sorted(PATTERN_SIGNS))}")
        refuse_link(self._folder)
        make_folder(self._folder)

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's manager of the folder. It is made late, because some bad steps would make it fail."""
        if self._opened is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEEP, enable_async_checkpointing=False, create=False, multiprocessing_options=_in_a_thread()
            )
            self._opened = _manager(self._folder, options)
        return self._opened

    def save(self, step: int, state: Any, then: Callable[[], None] = lambda: None) -> None:
        """Copies the state to the host's memory, and begins to write it. It first waits for the step before.

        When it returns, the state may be changed or donated. `then` is called when the step survives a power cut, by
        `poll`, `wait` or the next `save`.

        Raises:
            OSError: no space or no access, for this step or the one before; the steps saved before remain.
        """
        self.wait()
        with self._named_in_errors(step):
            kept, manager, number = _on_host(_named_leaves(state)), self._manager, next(SAVES)
        self._writing.start(lambda: self._write(manager, step, kept, number), then)

    def poll(self) -> None:
        """Does what `wait` does if the step is written; otherwise it returns at once."""
        self._writing.poll()

    def wait(self) -> None:
        """Returns when no step is being written. Then every saved step survives a power cut.

        Raises:
            OSError: the step was not written; the steps saved before remain.
        """
        self._writing.wait()

    def _write(self, manager: ocp.CheckpointManager, step: int, kept: dict[str, jax.Array], number: int) -> None:
        with self._named_in_errors(step):
            try:
                with _quiet_logs():
                    manager.save(step, args=ocp.args.StandardSave(kept), force=True)
                    if jax.process_index() == 0:
                        _check_complete(manager, step, kept)
            except (ValueError, LookupError, TypeError) as error:  # orbax took an unreadable file for an absent one
                raise OSError(_cause(error)) from error
            kept.clear()  # frees the memory before the hashing
            seal_together(self._folder / str(step), step, self._identity, number)

    @contextmanager
    def _named_in_errors(self, step: int) -> Iterator[None]:
        """Raises an error of the disk or the network as an OSError that names the checkpoint."""
        try:
            yield
        except Exception as error:
            self._save_failed = True
            if not _is_storage_error(error):
                raise
            raise OSError(f"checkpoint {self._folder / str(step)} not written: {_cause(error)}") from error

    def restore(self, like: T) -> tuple[T | None, int, list[str]]:
        """The newest whole state (None if there is none), its step, and a message for each bad step that was renamed.

        Args:
            like: a state of the same run with the wanted shapes and layouts.

        Raises:
            ValueError: a step belongs to another run or corpus, or the newest whole step has other arrays, for example
                because of another mesh. Only bad steps have been changed: they are renamed.
            OSError: a file cannot be read or renamed now. No good step has been changed.
        """
        self.wait()
        messages: list[str] = []
        step = _decided_by_first_process(lambda: self._set_aside_bad_steps(messages))
        if step == NONE:
            return None, 0, messages
        return _read(self._manager, self._folder, step, like), step, messages

    def close(self) -> None:
        """Waits for the step that is being written, and ends orbax's threads.

        Raises:
            OSError: see `wait`.
        """
        try:
            self.wait()
        finally:
            if self._opened is not None:
                with suppress(Exception) if self._save_failed else nullcontext():  # orbax would raise the error again
                    self._opened.close()

    def _set_aside_bad_steps(self, messages: list[str]) -> int:
        """Renames bad steps, adds a message about each to `messages`, and deletes the folders of interrupted saves.

        Returns:
            The newest whole step, or NONE.
        """
        found, bad = newest_whole(self._folder, self._identity)
        for step, fault in bad.items():
            aside = set_aside(self._folder / str(step))
            messages.append(f"checkpoint {self._folder / str(step)} passed over: {fault}; it is {aside.name} now")
        remove_unfinished(self._folder)
        if bad and found == NONE:
            messages.append("no checkpoint is whole: starting over")
        return found


def read_step(folder: Path, step: int, like: T, identity: Identity) -> T:
    """The state at one step of another run, whose checkpoints are not changed.

    Args:
        folder: the other run's folder of checkpoints.
        step: the step to read.
        like: a state with the wanted shapes and layouts.
        identity: the other run and its data.

    Raises:
        ValueError: the step is absent or damaged, its seal does not match `identity`, or it has other arrays.
        OSError: the step cannot be read now.
    """
    folder = _absolute(folder)
    _decided_by_first_process(lambda: _check_whole(folder, step, identity))
    return read_whole_step(folder, step, like)


def read_whole_step(folder: Path, step: int, like: T) -> T:
    """Like `read_step`, for a step that `newest_whole` has just verified.

    Raises:
        ValueError: the step has other arrays.
        OSError: the step cannot be read now.
    """
    folder = _absolute(folder)
    with _quiet_logs():  # orbax warns of what `read_only` means
        manager = _manager(folder, ocp.CheckpointManagerOptions(read_only=True))
    try:
        return _read(manager, folder, step, like)
    finally:
        manager.close()


def _absolute(folder: Path) -> Path:
    """The absolute path of a local folder, which orbax needs."""
    return Path(os.path.abspath(folder)) if is_local(folder) else folder


def _check_whole(folder: Path, step: int, identity: Identity) -> int:
    fault = step_fault(folder / str(step), step, identity)
    if fault:
        fix = "remove that run's folder and train it again"
        raise ValueError(f"checkpoint {folder / str(step)} cannot be used: {fault}: {fix}")
    return step


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    with _orbax_errors_as_oserror(f"checkpoints {folder}"):
        return ocp.CheckpointManager(folder, options=options, item_handlers=ocp.StandardCheckpointHandler())


def _read(manager: ocp.CheckpointManager, folder: Path, step: int, like: T) -> T:
    named = {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for n, x in _named_leaves(like).items()}
    where = f"checkpoint {folder / str(step)}"
    with _orbax_errors_as_oserror(where):
        held = dict(manager.item_metadata(step))
    _check_same_arrays(where, held, named)
    with _orbax_errors_as_oserror(where), _quiet_logs():
        read = manager.restore(step, args=ocp.args.StandardRestore(named))
    return jax.tree.unflatten(jax.tree.structure(like), [read[name] for name in named])


@contextmanager
def _orbax_errors_as_oserror(where: str) -> Iterator[None]:
    """Converts orbax's errors to OSError while it reads a folder that has just been verified.

    If the disk does not answer, orbax takes a file for absent, and raises a ValueError, KeyError or TypeError.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OSError(f"{where} not read: {_cause(error)}") from error
    except Exception as error:
        if MAY_PASS.search(str(error)):
            raise OSError(f"{where} not read: {_cause(error)}") from error
        raise


def _check_same_arrays(where: str, held: dict[str, Any], wanted: dict[str, jax.ShapeDtypeStruct]) -> None:
    for name in sorted(held.keys() | wanted.keys()):
        there, here = (f"{x[name].dtype} {list(x[name].shape)}" if name in x else "absent" for x in (held, wanted))
        if there != here:
            fix = "go on with the hardware.mesh_model it was written with, or remove the run's folder"
            raise ValueError(f"{where}: {name} is {there} there and {here} in this run: {fix}")


def _is_storage_error(error: Exception) -> bool:
    """Whether the disk or the network failed, and not the program."""
    of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return isinstance(error, OSError) or (STATUS.match(str(error)) is not None and not of_jax)


def _cause(error: Exception) -> str:
    """The system's message if the error has an error number, otherwise the beginning of the error."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(code[1]) if code else error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else re.split(r"\n| \[tensorstore_spec", str(error).strip())[0]


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Silences orbax's threads, which log an error that is raised anyway, and hundreds of cancelled writes.

    After an error they stay silent, because some of their messages come late.
    """
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("absl", "asyncio"))}
    report = sys.unraisablehook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda late: None if _is_of_cancelled_task(late) else report(late)
    yield
    sys.unraisablehook = report
    for logger, level in loggers.items():
        logger.setLevel(level)


def _is_of_cancelled_task(late: Any) -> bool:
    return inspect.iscoroutine(late.object) or "Event loop is closed" in str(late.exc_value)


def _decided_by_first_process(decide: Callable[[], int]) -> int:
    """The result of `decide` on the first process, returned on every process; they all wait for it.

    Raises:
        Exception: on the first process, what `decide` raised.
        ValueError: on the others, if `decide` raised a ValueError.
        OSError: on the others, if `decide` raised another error.
    """
    if jax.process_count() == 1:
        return decide()
    number, failure = UNREADABLE, None
    if jax.process_index() == 0:
        try:
            number = decide()
        except Exception as error:
            number, failure = REFUSED if isinstance(error, ValueError) else UNREADABLE, error
    number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    if failure is not None:
        raise failure
    if number in (REFUSED, UNREADABLE):
        kind = ValueError if number == REFUSED else OSError
        raise kind("the first process could not use the checkpoints: see its own message")
    return number
