"""The answers of a model in a sealed file, so that the same command goes on after an interruption."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mdm_jax.files.sealed_json import Damaged, seal, unseal
from mdm_jax.files.storage import Path, is_file, write_atomic

SCHEMA = 1


def read_answers(file: Path, key: str) -> list[dict[str, Any]] | None:
    """The answers in a file; None if it is absent or damaged, or has another key.

    Args:
        file: path of the file.
        key: a hash of all that decides the answers: the model, the questions and the settings.

    Raises:
        OSError: the file cannot be read now.
    """
    try:
        tree = unseal(file.read_bytes(), SCHEMA) if is_file(file) else {}
    except Damaged:
        return None
    return tree["answers"] if tree.get("key") == key else None


def write_answers(file: Path, key: str, answers: Sequence[Mapping[str, Any]]) -> None:
    """Writes the answers, which `read_answers` gives for the same key.

    Raises:
        OSError: the disk is full or not writable.
    """
    tree = {"schema_version": SCHEMA, "key": key, "answers": list(answers)}
    write_atomic(file, json.dumps(seal(tree), ensure_ascii=False) + "\n")
