"""JSON files that stand beside weights: read with a limit on their size, because nobody vouches for their content."""

import json
from collections.abc import Mapping
from typing import Any

from mdm_jax.files.storage import Path
from mdm_jax.spec.validation import require

MOST_BYTES = 1 << 20
MOST_INDEX_BYTES = 64 << 20
"""An index names each tensor of a folder, so it is longer than a config."""


def read_object(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file is longer than `most_bytes`, or no JSON object.
        OSError: the file cannot be read now.
    """
    size = path.stat().length
    require(size <= most_bytes, f"{path}: size", size, f"at most {most_bytes >> 20} MiB")
    return parse_object(str(path), path.read_bytes())


def parse_object(where: str, text: str | bytes) -> dict[str, Any]:
    """The JSON object of a text.

    Raises:
        ValueError: the text, which the message calls `where`, is no JSON object.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no JSON ({error})") from None
    require(isinstance(tree, dict), where, type(tree).__name__, "a JSON object")
    return tree


def require_size(where: str, tree: Mapping[str, Any], key: str) -> int:
    """The value of a key that counts something: an integer from 1 to 2^24.

    Raises:
        ValueError: the key is absent, or its value is no such number.
    """
    value: Any = tree.get(key)
    require(type(value) is int and 1 <= value <= 1 << 24, f"{where}: {key}", value, "an integer from 1 to 2^24")
    return value
