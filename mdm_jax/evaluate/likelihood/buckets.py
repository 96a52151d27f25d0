"""Work cut into batches of few shapes, so that requests of any lengths compile at most six programs.

A row is padded to one of at most six lengths, which halve from the longest. The batches of a length have one size: a
power of two, of about BATCH_TOKENS tokens, and smaller if there is less work. The last item fills the last batch.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

BATCH_TOKENS = 1 << 14
"""Tokens that the device reads at a time."""
LENGTHS, SHORTEST = 6, 16
"""Most lengths to which rows are padded, and the shortest of them."""
AHEAD = 2
"""Batches that the device has before the host waits for a result."""


def padded_length(length: int, seq_len: int) -> int:
    """The length to which a row of 1 to `seq_len` tokens is padded."""
    halves = (-(-seq_len // 2**k) for k in reversed(range(LENGTHS)))
    return next(half for half in halves if half >= max(length, min(SHORTEST, seq_len)))


def power_of_two(number: int) -> int:
    """The least power of two that is not below the number."""
    return 1 << (number - 1).bit_length()


class Batches:
    """Cuts items of work into batches. All calls of `cut` use the same batch size for a length.

    Args:
        seq_len: the longest row.
        shards: parts into which the mesh splits a batch.
        rows: rows of each item, which stay together.
    """

    def __init__(self, seq_len: int, shards: int, rows: int = 1) -> None:
        self._seq_len, self._shards, self._rows = seq_len, shards, rows
        self._sizes: dict[int, int] = {}

    def cut(
        self, length_I: Int[np.ndarray, "I"], steps_I: Int[np.ndarray, "I"] | None = None
    ) -> Iterator[tuple[int, Int[np.ndarray, "B"]]]:
        """The padded length and the items of each batch; the last items may be repeated.

        Args:
            length_I: tokens of each item's rows.
            steps_I: steps of each item. Items with similar steps come into one batch.
        """
        padded_I = np.array([padded_length(int(length), self._seq_len) for length in length_I], np.int64)
        order_I = np.lexsort((length_I if steps_I is None else steps_I, padded_I))
        for length in np.unique(padded_I):
            items = order_I[padded_I[order_I] == length]
            size = self._sizes.setdefault(int(length), self._size(int(length), len(items)))
            for first in range(0, len(items), size):
                yield int(length), items[np.arange(first, first + size).clip(max=len(items) - 1)]

    def _size(self, length: int, items: int) -> int:
        most = max(1, BATCH_TOKENS // (length * self._rows))
        return -(-min(power_of_two(items), most) // self._shards) * self._shards


def results(dispatched: Iterable[tuple[np.ndarray, Any]]) -> Iterator[tuple[np.ndarray, Any]]:
    """The items and the results of each dispatch on the host, while the device already has the next batches."""
    waiting: deque[tuple[np.ndarray, Any]] = deque()
    for dispatch in dispatched:
        waiting.append(dispatch)
        if len(waiting) > AHEAD:
            items, found = waiting.popleft()
            yield items, jax.device_get(found)
    for items, found in waiting:
        yield items, jax.device_get(found)
