"""Checkpoints that are proven before they are trusted: the only file that imports orbax.

Orbax does not notice a flipped byte, and takes a half-written folder for a step. So every file of a finished step is
hashed into `<step>/sha256.json`, and restoring walks the steps downwards to the first whose files all agree with it.
"""

import hashlib
import json
import os
import shutil
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mdm_jax.storage import Path, inside, is_local, write_atomic

T = TypeVar("T")
SEAL = "sha256.json"
KEEP = 2


def _leaves(tree: Any) -> dict[str, Any]:
    """Arrays by a name that does not depend on the Python class that held them."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in named}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        if is_local(path):
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return hashlib.sha256(file.read()).hexdigest()


def _files(folder: Path) -> list[str]:
    """Relative names of all files below `folder`, the seal itself apart."""
    found, pending = [], [folder]
    while pending:
        for entry in pending.pop().iterdir():
            if entry.is_dir():
                pending.append(entry)
            elif entry.name != SEAL:
                found.append(str(entry.relative_to(folder)))
    return sorted(found)


def seal(folder: Path) -> None:
    """Records the SHA-256 of every file of a finished step."""
    write_atomic(folder / SEAL, json.dumps({name: _digest(folder / name) for name in _files(folder)}, indent=0))


def fault(folder: Path) -> str:
    """What is wrong with a step's folder, in a few words; empty if it is whole."""
    try:
        recorded = json.loads((folder / SEAL).read_text())
        names = _files(folder)
        if not isinstance(recorded, dict) or sorted(recorded) != names or not names:
            return "files are missing or unexpected"
        changed = [name for name in names if _digest(inside(folder, name)) != recorded[name]]
    except FileNotFoundError:
        return "never finished"
    except (OSError, ValueError) as error:
        return f"unreadable ({error})"
    return f"{changed[0]} has changed" if changed else ""


class Checkpoints:
    """The checkpoints of one run: the newest `KEEP` steps below `folder`."""

    def __init__(self, folder: Path):
        self._folder = Path(os.path.abspath(folder)) if is_local(folder) else folder
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, state: Any) -> None:
        """Writes and seals a step; returns when it would survive a power cut.

        Raises:
            OSError: no room or no access; the steps saved before remain.
        """
        try:
            self._manager.save(step, args=ocp.args.StandardSave(_leaves(state)), force=True)
            self._manager.wait_until_finished()
        except Exception as error:
            if isinstance(error, OSError) or any(
                sign in str(error) for sign in ("RESOURCE_EXHAUSTED", "OS error", "No space")
            ):
                raise OSError(f"checkpoint at step {step} not written: {_first_line(error)}") from error
            raise
        if jax.process_index() == 0:
            seal(self._folder / str(step))
        _meet(f"sealed {step}")

    def restore(self, like: T) -> tuple[T | None, int, list[str]]:
        """The newest whole state, its step, and a line for each newer one that was passed over and removed.

        Args:
            like: a state of the same run, whose shapes and layouts the restored one takes.
        """
        passed = []
        for step in self._steps():
            wrong = fault(self._folder / str(step))
            if wrong:
                passed.append(f"checkpoint {self._folder / str(step)} passed over: {wrong}")
                continue
            _meet(f"checked {step}")
            self._remove_after(step)
            return self._read(step, like), step, passed
        _meet("none whole")
        self._remove_after(-1)
        return None, 0, passed

    def close(self) -> None:
        self._manager.close()

    def _read(self, step: int, like: T) -> T:
        named = {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for n, x in _leaves(like).items()}
        read = self._manager.restore(step, args=ocp.args.StandardRestore(named))
        return jax.tree.unflatten(jax.tree.structure(like), [read[name] for name in named])

    def _steps(self) -> list[int]:
        names = [entry.name for entry in self._folder.iterdir()]
        return sorted((int(name) for name in names if name.isascii() and name.isdigit()), reverse=True)

    def _remove_after(self, step: int) -> None:
        """Clears the steps after `step` and half-written folders, so that they can be written again."""
        if jax.process_index() == 0:
            for entry in self._folder.iterdir():
                if not entry.name.isdigit() or int(entry.name) > step:
                    shutil.rmtree(entry) if is_local(entry) else entry.rmtree()
        _meet(f"cleared after {step}")
        self._manager.reload()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _meet(name: str) -> None:
    """Waits until every process is here: none reads what another still writes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
