"""The user's cache folder, for copies of remote shards and compiled programs. All of it may be deleted.

`MDM_JAX_CACHE` names the folder. Without it, the folder is `mdm-jax` in `$XDG_CACHE_HOME`, or in `~/.cache`.
"""

import os
import pathlib
import stat

from mdm_jax.files.storage import Path, as_path

CACHE_VARIABLE = "MDM_JAX_CACHE"


def cache_folder() -> Path:
    """The path of the cache folder, which may not exist yet."""
    named = os.environ.get(CACHE_VARIABLE)
    return as_path(named) if named else as_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mdm-jax"


def private_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """The local folder at `path`, to which only this user can write; it is made with mode 0700 if it is absent.

    Raises:
        ValueError: the path is a link or not a folder, another user owns it, or others may write to it.
        OSError: the folder cannot be made or inspected.
    """
    folder = pathlib.Path(path)
    if not os.path.lexists(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    refused = f"cache folder = {str(folder)!r}: must be"
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{refused} a folder, and no link: remove the link")
    if found.st_uid != os.getuid():
        raise ValueError(f"{refused} your own: set the variable that names it to another folder")
    if others_write:
        raise ValueError(f"{refused} closed to other users: chmod go-w it")
    return folder
