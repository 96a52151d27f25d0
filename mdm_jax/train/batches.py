"""Batches of a run, read by a thread ahead of the training loop, so that no step waits for the disk or the network.

A batch is a function of the seed and the step. So the thread changes no number, and a resumed run needs no state of it.
"""

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import jax
import numpy as np
from jax.sharding import Mesh

from mdm_jax.data.corpus import TrainingRows
from mdm_jax.devices.sharding import global_batch, stack_batches

AHEAD = 4
"""Calls whose batches wait for the loop. They hide a read that takes as long as so many calls."""
LOOK_SECONDS = 0.1
"""Seconds after which a thread that waits for room looks whether it is closed."""


def calls(first: int, last: int, most: int = 1, ends: Callable[[int], bool] = lambda step: False) -> Iterator[range]:
    """The steps `first + 1 … last`, cut into the calls of the compiled program that make them.

    Args:
        first: the step before the first one.
        last: the last step.
        most: the most steps of a call. The first call makes one, because it also compiles.
        ends: whether a call must end with the step, because the loop does something after it.
    """
    begin = first + 1
    while begin <= last:
        end = begin
        while first + 1 < end < min(last, begin + most - 1) and not ends(end):
            end += 1
        yield range(begin, end + 1)
        begin = end + 1


class Batches:
    """The batches of the calls, in order. `close` ends its thread.

    Attributes:
        seconds_waited: seconds that `next` has waited for batches while the devices had no step to compute. This is an
            upper bound: if the devices finish a step during a wait, the whole wait counts. The first batch does not
            count.
        waits: the number of these waits.
    """

    def __init__(self, rows: TrainingRows, mesh: Mesh, of_calls: Iterable[range], most: int = 1) -> None:
        self.seconds_waited, self.waits = 0.0, 0
        self._taken = 0
        self._ready: queue.Queue[jax.Array | Exception] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._read, args=(rows, mesh, of_calls, most), name="batches", daemon=True
        )
        self._thread.start()

    def next(self, before: jax.Array) -> jax.Array:
        """The global batch of the next call, `[B, L]`.

        If a call may make several steps, it is `[most, B, L]`: a batch for each step of the call, and then zeros.

        Args:
            before: a result of the call before. While it is being computed, a wait holds no device up.

        Raises:
            ValueError: a block of the corpus is corrupt.
            OSError: a shard cannot be read now.
        """
        try:
            found = self._ready.get_nowait()
        except queue.Empty:
            begun = time.monotonic()
            found = self._ready.get()
            if self._taken and _is_computed(before):
                self.seconds_waited += time.monotonic() - begun
                self.waits += 1
        self._taken += 1
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Ends the thread. A read that is going on is waited for."""
        self._closed.set()
        with suppress(queue.Empty):
            while True:  # makes room, so that the thread sees at once that it is closed
                self._ready.get_nowait()
        self._thread.join()

    def _read(self, rows: TrainingRows, mesh: Mesh, of_calls: Iterable[range], most: int) -> None:
        try:
            for steps in of_calls:
                if self._closed.is_set():
                    return
                self._put(_batch(rows, mesh, steps[0]) if most == 1 else _stacked(rows, mesh, steps, most))
        except Exception as error:
            self._put(error)

    def _put(self, item: jax.Array | Exception) -> None:
        """Puts the item into the queue as soon as there is room. After `close` the item is dropped."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._ready.put(item, timeout=LOOK_SECONDS)
                return


def _batch(rows: TrainingRows, mesh: Mesh, step: int) -> jax.Array:
    return global_batch(mesh, rows.shape, functools.partial(rows.read, step - 1))


def _stacked(rows: TrainingRows, mesh: Mesh, steps: range, most: int) -> jax.Array:
    tokens_KBL = np.zeros((most, *rows.shape), np.int32)
    for index, step in enumerate(steps):
        tokens_KBL[index] = rows.read(step - 1, 0, rows.global_batch)
    return stack_batches(mesh, tokens_KBL)


def _is_computed(array: jax.Array) -> bool:
    """Whether its devices have computed `array`. `jax.Array` does not declare `is_ready`, which its arrays have."""
    is_ready = getattr(array, "is_ready", None)
    return is_ready is None or is_ready()
