"""The folders of a run's checkpoints: finds the newest whole step, and renames bad ones.

A step is bad only if a part of it is absent or a hash is wrong. An error that may pass, such as a disk or an object
store that does not answer, is raised. A bad step is renamed and never deleted. Files that neither this project nor
orbax has written are not touched.
"""

import os
import re
import shutil

from mdm_jax.files.layout import steps_in
from mdm_jax.files.storage import Path, entries, free_name, is_local, refuse_link, sync_folder
from mdm_jax.train.seal import Identity, step_fault

NONE = -1
UNFINISHED = re.compile(r"\d+\.orbax-checkpoint-tmp(-\d+)?", re.ASCII)
"""Orbax's name of a step that is being written."""


def newest_whole(folder: Path, identity: Identity) -> tuple[int, dict[int, str]]:
    """The newest whole step, or NONE, and the fault of each bad step.

    Steps older than the newest whole one have only their seals checked, not their files.

    Raises:
        ValueError: a step belongs to another run or corpus, or is a link.
        OSError: a file cannot be read now.
    """
    found, bad = NONE, {}
    for step in steps_in(folder):
        fault = step_fault(folder / str(step), step, identity, check_files=found == NONE)
        if fault:
            bad[step] = fault
        elif found == NONE:
            found = step
    return found, bad


def set_aside(path: Path) -> Path:
    """Renames a bad step to a free name such as `7.bad-1`, and returns the new path.

    Raises:
        OSError: it cannot be renamed now. A bucket copies before it deletes, so nothing is lost.
    """
    aside = free_name(path, "bad")
    if is_local(path):
        os.rename(path, aside)
        sync_folder(path.parent)
    else:
        path.rename(aside)
    return aside


def remove_unfinished(folder: Path) -> None:
    """Deletes the folders of interrupted saves, so that their steps can be written again.

    Raises:
        ValueError: such a folder is a link.
        OSError: it cannot be deleted now.
    """
    for entry in entries(folder):
        if UNFINISHED.fullmatch(entry.name):
            refuse_link(entry)
            shutil.rmtree(os.fspath(entry)) if is_local(entry) else entry.rmtree()
