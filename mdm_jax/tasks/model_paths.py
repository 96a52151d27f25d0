"""The models that a user names: their paths, where a sweep's folder stands for its runs, and their names."""

import os
from collections.abc import Sequence

from mdm_jax.evaluate.likelihood.__main__ import run_folders
from mdm_jax.files.layout import PLAN_FILE, RUNS_FOLDER, SPEC_FILE
from mdm_jax.files.storage import Path, as_path, is_file, is_local
from mdm_jax.spec.validation import require


def runs_of_sweep(path: str) -> list[Path] | None:
    """The folders of a sweep's runs, by name; None for a path that is no sweep's folder.

    Raises:
        ValueError: the sweep has no runs.
    """
    folder = as_path(path)
    if is_file(folder / SPEC_FILE) or not (is_file(folder / PLAN_FILE) or (folder / RUNS_FOLDER).is_dir()):
        return None
    return run_folders(path)


def model_paths(paths: Sequence[str]) -> list[str]:
    """The paths of all models, each once.

    Raises:
        ValueError: a sweep has no runs.
    """
    found = dict[str, None]()
    for path in paths:
        runs = runs_of_sweep(path)
        found |= dict.fromkeys([path] if runs is None else map(str, runs))
    return list(found)


def name_of(path: str) -> str:
    """What a model is called in tables and files: the last part of its path, without `.safetensors`."""
    whole = os.path.abspath(path) if is_local(path) else path
    return as_path(whole).name.removesuffix(".safetensors")


def check_names(paths: Sequence[str]) -> None:
    """Refuses two models that would share a file.

    Raises:
        ValueError: two paths have one name.
    """
    names: dict[str, str] = {}
    for path in paths:
        other = names.setdefault(name_of(path), path)
        require(other == path, f"{path}: name", name_of(path), f"another name than that of {other}")
