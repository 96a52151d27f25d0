"""Seals of checkpoints: the hashes of a step's files, and the run and data that the step belongs to.

A seal is the file `sha256.json` in the step's folder. It is written last, so a step without one was never finished.
Format 2, a JSON object, has the step, the hashes of the run's spec and data, the hash of every file, and a hash of all
these. Format 1, of an earlier version, has only the hashes of the files. Such a step is still used, although it does
not show whether it was copied from another run.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mdm_jax.files.layout import SEAL_FILE
from mdm_jax.files.storage import Kind, Path, inside, is_local, kind, sha256_of, sync_folder, write_atomic

FORMAT = 2
CHANGED = "files are missing or unexpected"


class BadStep(Exception):
    """A step is damaged or unfinished. The message says why, in a few words."""


@dataclass(frozen=True)
class Identity:
    """The run and the data that a checkpoint belongs to: SHA-256 (hex) of its spec and of its prepared corpus."""

    spec_hash: str
    data_hash: str


def seal_step(folder: Path, step: int, identity: Identity, known: Mapping[str, str] | None = None) -> None:
    """Writes the seal of a finished step. When it returns, the step survives a power cut.

    Args:
        folder: the step's folder.
        step: the step.
        identity: the run and the data that the seal names.
        known: hashes by name of files that `hashes_of` has hashed, and made to survive a power cut, on other hosts.

    Raises:
        OSError: no space or no access.
    """
    names, known = files_below(folder), known or {}
    hashes = hashes_of(folder, [name for name in names if name not in known])
    hashes |= {name: known[name] for name in names if name in known}
    if is_local(folder):
        _sync_folders(folder, names)
    content = {"format": FORMAT, "step": step, **dataclasses.asdict(identity), "files": hashes}
    write_atomic(folder / SEAL_FILE, json.dumps({**content, "sha256": _hash_of(content)}, indent=0))
    if is_local(folder):
        sync_folder(folder.parent)


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 (hex) of each of these files of a step, which then survive a power cut.

    Raises:
        OSError: a file is absent, or cannot be read or synced now.
    """
    hashes = {}
    for name in names:
        if is_local(folder):
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())
        hashes[name] = sha256_of(folder / name)
    return hashes


def step_fault(folder: Path, step: int, identity: Identity, check_files: bool = True) -> str:
    """The fault of a step's seal or files, in a few words; empty if the step is whole.

    Args:
        folder: the step's folder.
        step: the step that the seal must name.
        identity: the run and the data that the seal must name.
        check_files: False checks the seal alone.

    Raises:
        ValueError: the seal is whole, but belongs to another step, run or corpus.
        OSError: a file cannot be read now.
    """
    try:
        hashes = _sealed_hashes(folder, step, identity)
        if check_files:
            _check_files(folder, hashes)
    except BadStep as damage:
        return str(damage)
    return ""


def files_below(folder: Path) -> list[str]:
    """Relative names of all files below a step's folder, without the seal. Links are listed, but not followed.

    Raises:
        OSError: the folder cannot be read now.
    """
    found, pending = [], [folder]
    while pending:
        for entry in pending.pop().iterdir():
            if kind(entry) is Kind.FOLDER:
                pending.append(entry)
            elif entry != folder / SEAL_FILE:
                found.append(str(entry.relative_to(folder)))
    return sorted(found)


def _sealed_hashes(folder: Path, step: int, identity: Identity) -> dict[str, Any]:
    """The hashes of the step's files by name, from its seal. Raises BadStep if there is no whole seal."""
    lies_there = kind(folder)
    if lies_there is not Kind.FOLDER:
        raise BadStep(f"a {lies_there.value} and not a folder" if lies_there is not Kind.ABSENT else "absent")
    if kind(folder / SEAL_FILE) is not Kind.FILE:
        raise BadStep("never finished")
    raw = (folder / SEAL_FILE).read_bytes()
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadStep(f"unreadable ({error})") from None
    if not isinstance(tree, dict):
        raise BadStep(CHANGED)
    if "format" not in tree:
        return tree
    if tree.pop("sha256", None) != _hash_of(tree) or not isinstance(tree.get("files"), dict):
        raise BadStep("its seal has changed")
    _check_belongs(folder, tree, {"step": step, **dataclasses.asdict(identity)})
    return tree["files"]


def _check_belongs(folder: Path, tree: dict[str, Any], wanted: dict[str, Any]) -> None:
    if tree["format"] != FORMAT:
        raise ValueError(f"checkpoint {folder}: its seal has format {tree['format']}: made by a newer mdm-jax")
    fixes = {
        "step": "give the folder its name back, or remove it",
        "spec_hash": "another run wrote it: move it back, or remove it",
        "data_hash": "it was trained on other data: restore that data, or remove the run's folder",
    }
    for name, fix in fixes.items():
        there, here = tree.get(name), wanted[name]
        if there != here:
            raise ValueError(f"checkpoint {folder}: {name} is {there} there and {here} in this run: {fix}")


def _check_files(folder: Path, hashes: dict[str, Any]) -> None:
    names = files_below(folder)
    if sorted(hashes) != names or not names:
        raise BadStep(CHANGED)
    for name in names:
        file = inside(folder, name)
        if kind(file) is not Kind.FILE or sha256_of(file) != hashes[name]:
            raise BadStep(f"{name} has changed")


def _hash_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync_folders(folder: Path, names: list[str]) -> None:
    """Makes the names of a step's files and folders survive a power cut."""
    holders = {folder, *(parent for name in names for parent in (folder / name).parents if folder in parent.parents)}
    for holder in holders:
        sync_folder(holder)
