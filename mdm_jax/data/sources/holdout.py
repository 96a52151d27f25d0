"""Chooses the validation text: by the hash of each document, or by whole groups of documents.

Documents of one package quote each other. With a split by document, 27% of the 50-byte windows of the validation text
were also in the training text, so the loss measured recall. Two rules reduce this to less than 0.1%: a whole group goes
into one split, and validation documents that still repeat training text are dropped.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

WINDOW_BYTES = 50
MOST_SHARED = 0.02
"""A validation document is dropped if the training text has a larger share of its windows."""
MOST_OF_GOAL = 1 / 8
"""Groups with more than this share of the goal are considered last."""
MOST_OVERSHOOT = 1.1
MULTIPLIER = 0x9E3779B97F4A7C15


class Grouped(NamedTuple):
    """A text and its group. A group is never divided between the splits."""

    group: str
    text: str


def in_validation(digest: bytes, fraction: float) -> bool:
    """Whether a document without a group is validation text; `digest` is the SHA-256 of its UTF-8 text."""
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def validation_groups(sizes: dict[str, int], fraction: float) -> set[str]:
    """Groups that together have about `fraction` of the bytes, taken in the order of a hash of their names.

    Groups of up to an eighth of the goal come first, so that the validation text is varied. Larger groups follow, if
    they do not exceed the goal by more than a tenth. If every group is too large, the smallest one is taken, so that
    two groups always give two splits.

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
    """Each text and whether it is validation text, in order. Validation texts that repeat training text are dropped."""
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
    """The share of each validation text's 50-byte windows that occur in a training text; 0 for a shorter text."""
    own = [windows(content) for content in validation]
    known = np.unique(np.concatenate([*own, np.zeros(0, np.uint64)]))
    found = np.zeros(len(known), bool)
    for content in training if len(known) else ():
        hashes = windows(content)
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        found[place[known[place] == hashes]] = True
    return [float(found[np.searchsorted(known, hashes)].mean()) if len(hashes) else 0.0 for hashes in own]


def windows(content: bytes) -> UInt64[np.ndarray, "windows"]:
    """A 64-bit hash of every 50-byte window: the sum of `byte * MULTIPLIER^i`, as a difference of running sums."""
    bytes_ = np.frombuffer(content, np.uint8).astype(np.uint64) + np.uint64(1)
    count = len(bytes_) - WINDOW_BYTES + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    powers = np.full(len(bytes_), MULTIPLIER, np.uint64).cumprod()
    sums = np.append(np.uint64(0), (bytes_ * powers).cumsum())
    inverses = np.full(count, pow(MULTIPLIER, -1, 1 << 64), np.uint64).cumprod()
    return (sums[WINDOW_BYTES:] - sums[:-WINDOW_BYTES]) * inverses
