"""Batches that are read ahead are those of the corpus, in order; an error of the corpus reaches the loop."""

import threading
import time
from dataclasses import dataclass, field

import jax
import numpy as np
import pytest
from running import Workshop

from mdm_jax.data.corpus import TrainingRows, open_corpus
from mdm_jax.devices.sharding import make_mesh
from mdm_jax.train.batches import AHEAD, Batches, calls

DONE = jax.block_until_ready(jax.numpy.zeros(()))
"""The result of a step that is computed."""


@pytest.fixture
def rows(shop: Workshop) -> TrainingRows:
    return open_corpus(shop.data).training_rows(4, seed=3)


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_the_batches_are_those_of_the_steps_in_order(rows) -> None:
    batches = Batches(rows, make_mesh(1, 1, jax.devices()[:1]), calls(5, 5 + 3 * AHEAD))
    for step in range(5, 5 + 3 * AHEAD):
        np.testing.assert_array_equal(batches.next(DONE), rows.read(step, 0, 4))
    batches.close()
    assert reading() == []


def test_a_run_that_stops_early_leaves_no_thread(rows) -> None:
    batches = Batches(rows, make_mesh(1, 1, jax.devices()[:1]), calls(0, 10**9))
    batches.next(DONE)
    batches.close()
    assert reading() == []


@dataclass(frozen=True)
class CountedRows(TrainingRows):
    """Rows that list the steps which are read."""

    steps: list[int] = field(default_factory=list)

    def read(self, step: int, first: int, last: int) -> np.ndarray:
        self.steps.append(step)
        return super().read(step, first, last)


def test_no_batch_is_read_after_the_end(rows) -> None:
    """The thread waits for room with one batch in its hand; the room that `close` makes must not begin a read."""
    counted = CountedRows(rows.rows, rows.global_batch, rows.seed)
    batches = Batches(counted, make_mesh(1, 1, jax.devices()[:1]), calls(0, 10**9))
    while len(counted.steps) <= AHEAD:
        time.sleep(0.01)
    time.sleep(0.05)
    batches.close()
    assert counted.steps == list(range(AHEAD + 1))


@dataclass(frozen=True)
class BadRows(TrainingRows):
    """Rows of which those of step 1 cannot be read."""

    gate: threading.Event = field(default_factory=threading.Event)

    def read(self, step: int, first: int, last: int) -> np.ndarray:
        if step == 1:
            assert self.gate.wait(60)
            raise OSError("not read now")
        return super().read(step, first, last)


def test_an_error_is_raised_at_its_step_and_the_wait_is_counted(rows) -> None:
    gate = threading.Event()
    bad = BadRows(rows.rows, rows.global_batch, rows.seed, gate=gate)
    batches = Batches(bad, make_mesh(1, 1, jax.devices()[:1]), calls(0, 5))
    np.testing.assert_array_equal(batches.next(DONE), rows.read(0, 0, 4))
    assert (batches.waits, batches.seconds_waited) == (0, 0.0)  # the first batch does not count
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(OSError, match="not read now"):
        batches.next(DONE)
    assert batches.waits == 1
    assert 0.1 < batches.seconds_waited < 60
    batches.close()
