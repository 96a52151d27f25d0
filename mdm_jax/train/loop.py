"""The loop: batches in, steps dispatched, metrics read one step late, checkpoints, and two ways to stop early.

Metrics of a step are read after the next step has been dispatched, so that the device never waits for the host.
"""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mdm_jax.checkpoint import Checkpoints
from mdm_jax.data.pipeline import TrainingRows
from mdm_jax.metrics import MetricsWriter
from mdm_jax.optim import learning_rate
from mdm_jax.sharding import global_batch
from mdm_jax.spec import RunSpec
from mdm_jax.train.state import TrainState
from mdm_jax.train.step import compile_step

Row = dict[str, float | int]


class Diverged(Exception):
    """The loss or the gradient is no longer finite."""

    def __init__(self, step: int):
        super().__init__(f"diverged: loss or gradient not finite at step {step}")
        self.step = step


class Preempted(Exception):
    """Asked to stop; the state is saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}, which is saved: the same command goes on from there")
        self.step = step


@dataclass
class Watch:
    """What the loop tells the outside, and how the outside stops it."""

    report: Callable[[Row], None] = lambda row: None
    say: Callable[[str], None] = lambda line: None
    asked_to_stop: Callable[[], bool] = lambda: False
    seconds_in_steps: float = 0.0
    """Time spent in steps after the first, which compiles."""


def train(
    state: TrainState,
    spec: RunSpec,
    mesh: Mesh,
    rows: TrainingRows,
    checkpoints: Checkpoints,
    metrics: MetricsWriter | None,
    watch: Watch,
) -> TrainState:
    """The state after `schedule.steps` steps, which is also saved.

    Args:
        state: of `state.step` steps done.
        rows: of the batches of all steps.
        metrics: None on processes that write none.

    Raises:
        Diverged: found when metrics are read, at most `log_every` steps late.
        Preempted: `watch.asked_to_stop()` was true at a step's end; that step is saved.
    """
    step_fn, rate = compile_step(spec), learning_rate(spec.optim, spec.schedule)
    first, last = int(state.step), spec.schedule.steps
    clock = _Clock(spec, first)
    pending: tuple[int, dict[str, jax.Array]] | None = None
    for step in range(first + 1, last + 1):
        tokens_BL = global_batch(mesh, rows.shape, functools.partial(rows.read, step - 1))
        state, scalars = step_fn(state, tokens_BL, rate)
        if pending is not None:
            _record(*pending, clock, metrics, watch)
            pending = None
        if step % spec.hardware.log_every == 0 or step == last:
            pending = step, scalars
        if step == first + 1:
            jax.block_until_ready(state.step)
            clock.restart()
        stop = _anyone(watch.asked_to_stop, step, spec)
        if step % spec.hardware.checkpoint_every == 0 or step == last or stop:
            if pending is not None:
                _record(*pending, clock, metrics, watch)
                pending = None
            jax.block_until_ready(state)
            clock.pause()
            if metrics is not None:
                metrics.next_part(step)
            checkpoints.save(step, state)
            clock.resume()
        if stop and step < last:
            watch.seconds_in_steps = clock.elapsed()
            raise Preempted(step)
    watch.seconds_in_steps = clock.elapsed()
    return state


class _Clock:
    """Seconds in steps, without compilation and checkpoints, and the rate since the start."""

    def __init__(self, spec: RunSpec, first: int):
        self._tokens_per_step = spec.optim.global_batch * spec.data.seq_len
        self._first = first
        self.restart()

    def restart(self) -> None:
        self._spent, self._since = 0.0, time.monotonic()

    def pause(self) -> None:
        self._spent += time.monotonic() - self._since

    def resume(self) -> None:
        self._since = time.monotonic()

    def elapsed(self) -> float:
        return self._spent + time.monotonic() - self._since

    def tokens_per_second(self, step: int) -> float:
        return (step - self._first - 1) * self._tokens_per_step / max(self.elapsed(), 1e-9)


def _record(
    step: int, scalars: dict[str, jax.Array], clock: _Clock, metrics: MetricsWriter | None, watch: Watch
) -> None:
    row: Row = {"step": step, **{name: float(value) for name, value in scalars.items()}}
    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        raise Diverged(step)
    row["seconds"] = round(clock.elapsed(), 3)
    row["tokens_per_second"] = round(clock.tokens_per_second(step), 1)
    if metrics is not None:
        metrics.write(row)
    watch.report(row)


def _anyone(asked: Callable[[], bool], step: int, spec: RunSpec) -> bool:
    """Whether any process was asked to stop. Several processes agree on it at logging steps only: it costs time."""
    if jax.process_count() == 1:
        return asked()
    if step % spec.hardware.log_every:
        return False
    return bool(np.any(multihost_utils.process_allgather(np.asarray(asked()))))
