"""The fingerprint of the trained weights that a run begins with, from their files and without jax.

For a run's folder it is the SHA-256 of the seal of its newest checkpoint, which has the hashes of all its files. For a
safetensors file it is the SHA-256 of the file. For a Hugging Face folder it covers `config.json` and the files of
weights, with their names. So a run that trained further, or a file that was exported anew, has another fingerprint.
"""

import dataclasses
import hashlib
import os

from mdm_jax.files.layout import CHECKPOINTS_FOLDER, SEAL_FILE, SPEC_FILE, steps_in
from mdm_jax.files.storage import Kind, Path, as_path, entries, is_file, kind, sha256_of
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import require

CONFIG_FILE = "config.json"
WEIGHTS = (".safetensors", ".safetensors.index.json")


def fingerprint_of(path: str | os.PathLike[str], step: int | None = None) -> str:
    """The fingerprint, SHA-256 (hex), of the weights at a path that `mdm_jax.load` takes.

    Args:
        path: a run's folder, a safetensors file, or a Hugging Face folder.
        step: the run's checkpoint; the newest sealed one by default.

    Raises:
        ValueError: there is nothing at the path, the run has no finished checkpoint, or the folder has no weights.
        OSError: a file cannot be read now.
    """
    place = as_path(path)
    there = kind(place, follow=True)
    if there is Kind.FILE:
        return sha256_of(place)
    require(
        there is Kind.FOLDER, "start.path", str(path), "a run's folder, a safetensors file or a Hugging Face folder"
    )
    if is_file(place / SPEC_FILE):
        return sha256_of(_seal(place / CHECKPOINTS_FOLDER, step))
    names = sorted(entry.name for entry in entries(place) if entry.name.endswith(WEIGHTS))
    whole = bool(names) and is_file(place / CONFIG_FILE)
    require(whole, "start.path", str(path), f"a folder with {SPEC_FILE} (a run's), or with {CONFIG_FILE} and weights")
    lines = [f"{name} {sha256_of(place / name)}\n" for name in (CONFIG_FILE, *names)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _seal(checkpoints: Path, step: int | None) -> Path:
    """The seal of a checkpoint, or of the newest one that has a seal."""
    sealed = [held for held in steps_in(checkpoints) if is_file(checkpoints / str(held) / SEAL_FILE)]
    wanted = sealed[:1] if step is None else [held for held in sealed if held == step]
    if not wanted:
        raise ValueError(f"{checkpoints}: no finished checkpoint: train the run first")
    return checkpoints / str(wanted[0]) / SEAL_FILE


def with_fingerprint(run: RunSpec) -> RunSpec:
    """The run with the fingerprint of the weights that it begins with; the run itself if it begins with random ones.

    Raises:
        ValueError: as for `fingerprint_of`, or the run has another fingerprint already.
    """
    if not run.start.path:
        return run
    found, planned = fingerprint_of(run.start.path), run.start.fingerprint
    bound = f"{found}, that of {run.start.path}, or left out"
    require(planned in ("", found), "start.fingerprint", planned, bound)
    return dataclasses.replace(run, start=dataclasses.replace(run.start, fingerprint=found))
