"""The folders of a run's checkpoints: which step is the newest whole one, and what becomes of the others.

Only two things take a step out of the way: something of it is absent, or a hash is wrong. An error that may pass, such
as a disk or an object store that does not answer, is raised. A bad step is renamed and never deleted, and what neither
this project nor orbax has written stays where it is.
"""

import os
import re
import shutil

from mdm_jax.files.storage import Path, entries, free_name, is_local, refuse_link, sync_folder
from mdm_jax.layout import steps_in
from mdm_jax.train.seal import Identity, seal_fault, step_fault

NONE = -1
UNFINISHED = re.compile(r"\d+\.orbax-checkpoint-tmp(-\d+)?", re.ASCII)
"""What orbax names a step while it writes it."""


def newest_whole(folder: Path, identity: Identity) -> tuple[int, dict[int, str]]:
    """The newest whole step, or NONE, and what is wrong with each bad one.

    The files of steps older than the newest whole one are not hashed, but their seals are read.

    Raises:
        ValueError: a step belongs to another run or corpus, or it is a link.
        OSError: something cannot be read now.
    """
    found, bad = NONE, {}
    for step in steps_in(folder):
        judge = step_fault if found == NONE else seal_fault
        wrong = judge(folder / str(step), step, identity)
        if wrong:
            bad[step] = wrong
        elif found == NONE:
            found = step
    return found, bad


def set_aside(path: Path) -> Path:
    """Renames a bad step to a free name beside it, such as `7.bad-1`, which is returned.

    Raises:
        OSError: it cannot be renamed now. A bucket copies first and deletes then, so nothing is lost half-way.
    """
    aside = free_name(path, "bad")
    if is_local(path):
        os.rename(path, aside)
        sync_folder(path.parent)
    else:
        path.rename(aside)
    return aside


def remove_unfinished(folder: Path) -> None:
    """Deletes what a save that was interrupted has left, so that the step can be written again.

    Raises:
        ValueError: it is a link.
        OSError: it cannot be deleted now.
    """
    for entry in entries(folder):
        if UNFINISHED.fullmatch(entry.name):
            refuse_link(entry)
            shutil.rmtree(os.fspath(entry)) if is_local(entry) else entry.rmtree()
