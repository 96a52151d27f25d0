"""Sealed JSON: an object that holds the SHA-256 of its own content, so that a changed file is refused.

The seal covers the canonical JSON (sorted keys, no blanks) of all other keys. It protects against bad disks, cut files
and edits by hand, but not against an attacker who computes it again. Later schema versions must keep the key and its
meaning.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


class Damaged(ValueError):
    """The text is not a JSON object, or its seal is absent or does not match the content."""


class Newer(ValueError):
    """A newer version of mdm-jax wrote the object. It is not damaged, but this version would lose part of it."""


def seal(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its seal as the last key.

    Raises:
        ValueError: the object has a number that JSON does not have (nan, inf).
    """
    return {**tree, SEAL: _digest(tree)}


def unseal(text: str | bytes, since: int) -> dict[str, Any]:
    """The object of a JSON text, without its seal.

    Args:
        text: the text of a file or line; bytes are UTF-8.
        since: the first `schema_version` whose objects must have a seal. If an older object has one, it is checked too.

    Raises:
        Damaged: the text is not a JSON object, a key occurs twice, or the seal is absent or wrong.
    """
    try:
        tree = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and a number of 5000 digits are ValueErrors too
        raise Damaged(f"not a JSON object ({error})") from None
    if not isinstance(tree, dict):
        raise Damaged("not a JSON object")
    sealed, given, version = SEAL in tree, tree.pop(SEAL, None), tree.get("schema_version")
    if not sealed and isinstance(version, int) and version >= since:
        raise Damaged(f"no {SEAL}, which all of schema_version {version} have: was it edited?")
    if sealed and given != _digest_or_none(tree):
        raise Damaged(f"{SEAL} is not that of the content: was it edited?")
    return tree


def numbered_lines(text: str | bytes) -> list[tuple[int, str]]:
    """Lines that are not blank, numbered from 1. Bytes that are not UTF-8 are replaced, which breaks a line's seal."""
    whole = text.decode(errors="replace") if isinstance(text, bytes) else text
    return [(number, line) for number, line in enumerate(whole.split("\n"), 1) if line.strip()]


def _digest(tree: Mapping[str, Any]) -> str:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_or_none(tree: Mapping[str, Any]) -> str | None:
    """The digest; None if the tree has nan or inf, which no sealed object has."""
    try:
        return _digest(tree)
    except ValueError:
        return None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return tree
