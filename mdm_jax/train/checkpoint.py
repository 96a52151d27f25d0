"""Checkpoints that are proven before they are trusted: the only file that imports orbax.

Orbax does not notice a flipped byte, and takes a half-written folder for a step. So every finished step is sealed (see
`seal.py`), and restoring walks the steps downwards to the first that agrees with its seal.
"""

import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mdm_jax.files.faults import PASSING_STATUS
from mdm_jax.files.storage import Path, is_local, make_folder, refuse_link
from mdm_jax.spec.validation import require
from mdm_jax.train.seal import Identity, seal_step, step_fault
from mdm_jax.train.step_folders import NONE, newest_whole, remove_unfinished, set_aside

T = TypeVar("T")
KEEP = 2
UNREADABLE, REFUSED = -2, -3
"""What the first process sends the others in place of a number when it has failed."""
STATUS = re.compile(r"[A-Z_]+: ")
"""How an error of tensorstore, which writes and reads for orbax, begins; its Python type says little."""
MAY_PASS = re.compile(rf"{PASSING_STATUS}|os_error_code=")
"""What the text of a tensorstore error holds if the disk or the network failed: the same read may succeed later."""
PATTERN_SIGNS = set("*?[")
"""Signs in a path that orbax takes for a pattern."""


def _leaves(tree: Any) -> dict[str, Any]:
    """Arrays by a name that does not depend on the Python class that held them."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in named}


class Checkpoints:
    """The checkpoints of one run: the newest `KEEP` steps below `folder`."""

    def __init__(self, folder: Path, identity: Identity):
        """Makes the folder.

        Args:
            folder: the run's own.
            identity: the run and the data, which every seal names.

        Raises:
            ValueError: the folder is a link, or its path holds `*`, `?` or `[`. Orbax takes these for a pattern, finds
                nothing to merge, and leaves without a word a checkpoint that nobody can restore.
        """
        self._folder = Path(os.path.abspath(folder)) if is_local(folder) else folder
        self._identity, self._opened = identity, None
        fine = not PATTERN_SIGNS & set(str(self._folder))
        require(fine, "checkpoints' folder", str(self._folder), f"free of {' '.join(sorted(PATTERN_SIGNS))}")
        refuse_link(self._folder)
        make_folder(self._folder)

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's own view of the folder, taken once the bad steps are out of its way: it would trip over some."""
        if self._opened is None:
            options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, enable_async_checkpointing=False)
            self._opened = _manager(self._folder, options)
        return self._opened

    def save(self, step: int, state: Any) -> None:
        """Writes and seals a step; returns when it would survive a power cut.

        Raises:
            OSError: no room or no access; the steps saved before remain.
        """
        try:
            with _hushed():
                self._manager.save(step, args=ocp.args.StandardSave(_leaves(state)), force=True)
                self._manager.wait_until_finished()
            _first_decides(lambda: self._seal(step))
        except Exception as error:
            if _is_of_storage(error):
                raise OSError(f"checkpoint {self._folder / str(step)} not written: {_cause(error)}") from error
            raise

    def restore(self, like: T) -> tuple[T | None, int, list[str]]:
        """The newest whole state, its step, and a line for each bad step that was renamed.

        Args:
            like: a state of the same run, whose shapes and layouts the restored one takes.

        Raises:
            ValueError: a step belongs to another run or corpus, or the newest whole step holds other arrays, as of
                another mesh. Nothing has been changed, unless a bad step was renamed.
            OSError: something cannot be read or renamed now. No good step has been touched.
        """
        passed: list[str] = []
        step = _first_decides(lambda: self._clear_the_way(passed))
        if step == NONE:
            return None, 0, passed
        return _read(self._manager, self._folder, step, like), step, passed

    def close(self) -> None:
        """Ends orbax's threads; nothing is pending by then."""
        if self._opened is not None:
            self._opened.close()

    def _seal(self, step: int) -> int:
        seal_step(self._folder / str(step), step, self._identity)
        return step

    def _clear_the_way(self, passed: list[str]) -> int:
        """The newest whole step, after which steps can be written again; what was passed over is added to `passed`."""
        found, bad = newest_whole(self._folder, self._identity)
        for step, wrong in bad.items():
            aside = set_aside(self._folder / str(step))
            passed.append(f"checkpoint {self._folder / str(step)} passed over: {wrong}; it is {aside.name} now")
        remove_unfinished(self._folder)
        if bad and found == NONE:
            passed.append("no checkpoint is whole: starting over")
        return found


def read_step(folder: Path, step: int, like: T, identity: Identity) -> T:
    """The state at one step of another run, whose checkpoints lie in `folder` and are left as they are.

    Args:
        folder: the other run's.
        step: to read.
        like: a state whose shapes and layouts the one that is read takes.
        identity: the other run and its data.

    Raises:
        ValueError: the step is not there or not whole, it belongs to a run or data that is not `identity`, or it holds
            other arrays.
        OSError: it cannot be read now.
    """
    folder = Path(os.path.abspath(folder)) if is_local(folder) else folder
    _first_decides(lambda: _check_whole(folder, step, identity))
    with _hushed():  # orbax warns of what `read_only` means
        manager = _manager(folder, ocp.CheckpointManagerOptions(read_only=True))
    try:
        return _read(manager, folder, step, like)
    finally:
        manager.close()


def _check_whole(folder: Path, step: int, identity: Identity) -> int:
    wrong = step_fault(folder / str(step), step, identity)
    if wrong:
        fix = "remove that run's folder and train it again"
        raise ValueError(f"checkpoint {folder / str(step)} cannot be used: {wrong}: {fix}")
    return step


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    with _reading(f"checkpoints {folder}"):
        return ocp.CheckpointManager(folder, options=options, item_handlers=ocp.StandardCheckpointHandler())


def _read(manager: ocp.CheckpointManager, folder: Path, step: int, like: T) -> T:
    named = {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for n, x in _leaves(like).items()}
    where = f"checkpoint {folder / str(step)}"
    with _reading(where):
        held = dict(manager.item_metadata(step))
    _check_same_arrays(where, held, named)
    with _reading(where), _hushed():
        read = manager.restore(step, args=ocp.args.StandardRestore(named))
    return jax.tree.unflatten(jax.tree.structure(like), [read[name] for name in named])


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Raises OSError for what orbax raises while it reads a folder that has just been proven whole.

    Orbax takes a file for absent when the disk does not answer, and then ends with a ValueError, KeyError or TypeError.
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


def _is_of_storage(error: Exception) -> bool:
    """Whether the disk or the network failed, and not the program."""
    of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return isinstance(error, OSError) or (STATUS.match(str(error)) is not None and not of_jax)


def _cause(error: Exception) -> str:
    """The system's own words where the error has its number, and otherwise how the error begins."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(code[1]) if code else error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else re.split(r"\n| \[tensorstore_spec", str(error).strip())[0]


@contextmanager
def _hushed() -> Iterator[None]:
    """Leaves an error to be said once: orbax's threads log what is raised as well, and cancelled writes hundreds more.

    After an error it stays quiet, since they also complain late.
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


def _first_decides(decide: Callable[[], int]) -> int:
    """The number that the first process decides on, on all of them; they wait for it, and end with it if it fails.

    Raises:
        Exception: on the first process, what `decide` raised.
        ValueError: on the others, when it raised one.
        OSError: on the others, when it raised anything else.
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
        raise kind("the first process could not use the checkpoints, and says why")
    return number
