"""Decides which documents are validation text: each by its own hash, or whole groups of documents.

Documents of one package quote each other. A split by document then measures recall: 27% of the 50-byte windows of the
validation text stood in the training text. Whole groups in one split, without the validation documents that still
repeat training text, bring that below .1%.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

WINDOW_BYTES = 50
MOST_SHARED = 0.02
"""A validation document with a larger share of its windows in the training text is dropped."""
MOST_OF_GOAL = 1 / 8
MOST_OVERSHOOT = 1.1
MULTIPLIER = 0x9E3779B97F4A7C15


class Grouped(NamedTuple):
    """A text and the group that must not be divided between the splits."""

    group: str
    text: str


def in_validation(digest: bytes, fraction: float) -> bool:
    """Whether a document whose UTF-8 text has this SHA-256, and which is its own group, is validation text."""
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def validation_groups(sizes: dict[str, int], fraction: float) -> set[str]:
    """Groups that together hold about `fraction` of the bytes, taken in the order of a hash of their names.

    Groups of up to an eighth of the goal come first, so that the validation text is of many kinds; then larger ones, if
    they do not exceed the goal by more than a tenth. The smallest group is taken where every other choice is too large,
    so two groups always give two splits.

    Args:
        sizes: bytes of text of each group.
        fraction: share of all bytes that the validation split should have.
    """
    goal, held, chosen = fraction * sum(sizes.values()), 0, set[str]()

    def order(name: str) -> tuple[bool, bytes]:
        return sizes[name] > MOST_OF_GOAL * goal, hashlib.sha256(name.encode()).digest()

    for name in sorted(sizes, key=order):
        if held < goal and held + sizes[name] <= MOST_OVERSHOOT * goal:
            chosen.add(name)
            held += sizes[name]
    if not chosen and len(sizes) > 1:
        chosen.add(min(sizes, key=lambda name: (sizes[name], name)))
    return chosen


def hold_out(documents: Sequence[Grouped], fraction: float) -> list[tuple[str, bool]]:
    """Each text with whether it is validation text, in order, without validation texts that repeat training text."""
    sizes = Counter[str]()
    for group, text in documents:
        sizes[group] += len(text.encode())
    chosen = validation_groups(sizes, fraction)
    validation = [text.encode() for group, text in documents if group in chosen]
    training = [text.encode() for group, text in documents if group not in chosen]
    shared = iter(shared_windows(validation, training))
    kept = []
    for group, text in documents:
        if group not in chosen:
            kept.append((text, False))
        elif next(shared) <= MOST_SHARED:
            kept.append((text, True))
    return kept


def shared_windows(validation: Sequence[bytes], training: Sequence[bytes]) -> list[float]:
    """The share of each validation text's 50-byte windows that some training text has; 0 for a shorter text."""
    own = [windows(content) for content in validation]
    known = np.unique(np.concatenate([*own, np.zeros(0, np.uint64)]))
    found = np.zeros(len(known), bool)
    for content in training if len(known) else ():
        hashes = windows(content)
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        found[place[known[place] == hashes]] = True
    return [float(found[np.searchsorted(known, hashes)].mean()) if len(hashes) else 0.0 for hashes in own]


def windows(content: bytes) -> UInt64[np.ndarray, "windows"]:
    """A 64-bit polynomial hash of every 50-byte window: differences of one running sum, each shifted to power 0."""
    bytes_ = np.frombuffer(content, np.uint8).astype(np.uint64) + np.uint64(1)
    count = len(bytes_) - WINDOW_BYTES + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    powers = np.full(len(bytes_), MULTIPLIER, np.uint64).cumprod()
    sums = np.append(np.uint64(0), (bytes_ * powers).cumsum())
    inverses = np.full(count, pow(MULTIPLIER, -1, 1 << 64), np.uint64).cumprod()
    return (sums[WINDOW_BYTES:] - sums[:-WINDOW_BYTES]) * inverses
