"""The training loop. It dispatches steps, writes metrics and checkpoints, and stops early if asked or if it diverges.

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

from mdm_jax.data.corpus import TrainingRows
from mdm_jax.devices.sharding import global_batch
from mdm_jax.spec import RunSpec
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.metrics import MetricsWriter
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import TrainState
from mdm_jax.train.step import compile_step
from mdm_jax.train.stop import Phase

Row = dict[str, float | int]

AGREEMENT_SECONDS = 2.0
"""Processes ask each other whether to stop about this often, and at least every `log_every` steps."""


class Diverged(Exception):
    """The loss or the gradient, or the final loss, is no longer finite."""

    def __init__(self, step: int, quantity: str = "loss or gradient"):
        super().__init__(f"diverged: {quantity} not finite at step {step}")
        self.step = step


class Preempted(Exception):
    """The run was asked to stop, and has saved its state."""

    def __init__(self, place: str):
        super().__init__(f"stopped at {place}, which is saved: the same command goes on from there")


@dataclass
class Watch:
    """Callbacks of the loop for its reports and for stopping it, and the state that it shows to other threads."""

    report: Callable[[Row], None] = lambda row: None
    say: Callable[[str], None] = lambda line: None
    asked_to_stop: Callable[[], bool] = lambda: False
    saved: Callable[[], None] = lambda: None
    """Called after each checkpoint."""
    restore_terminal: Callable[[], object] = lambda: None
    """Called before the process ends at once."""
    phase: Phase = Phase.NOTHING_NEW
    seconds_in_steps: float = 0.0
    """Seconds in steps until the last checkpoint, without the first step, which compiles."""
    steps_timed: int = 0
    """The number of those steps."""


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
        state: the state after `state.step` steps.
        rows: the rows of the batches of all steps.
        metrics: None on processes that write no metrics.

    Raises:
        Diverged: the loss or the gradient is not finite; found when metrics are read, at most `log_every` steps late.
        Preempted: `watch.asked_to_stop()` was true at the end of a step, which is saved.
    """
    step_fn, rate = compile_step(spec), learning_rate(spec.optim, spec.schedule)
    first, last = int(state.step), spec.schedule.steps
    clock, agreement = _Clock(spec, first), _Agreement(spec.hardware.log_every, first)
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
            watch.phase = Phase.TRAINING
        stop = agreement.anyone(watch.asked_to_stop(), step)
        if step % spec.hardware.checkpoint_every == 0 or step == last or stop:
            if pending is not None:
                _record(*pending, clock, metrics, watch)
                pending = None
            jax.block_until_ready(state)
            watch.seconds_in_steps, watch.steps_timed = clock.pause(), step - first - 1
            if metrics is not None:
                metrics.next_part(step)
            checkpoints.save(step, state)
            watch.saved()
            clock.resume()
        if stop and step < last:
            raise Preempted(f"step {step}")
    watch.phase = Phase.NOTHING_NEW
    return state


class _Clock:
    """Seconds in steps, without compilation and checkpoints, and the rate since the start."""

    def __init__(self, spec: RunSpec, first: int):
        self._tokens_per_step = spec.optim.global_batch * spec.data.seq_len
        self._first = first
        self.restart()

    def restart(self) -> None:
        self._spent, self._since = 0.0, time.monotonic()

    def pause(self) -> float:
        """Seconds in steps until now."""
        self._spent += time.monotonic() - self._since
        return self._spent

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


class _Agreement:
    """Whether any process was asked to stop. The processes ask each other only every few steps, to save time."""

    def __init__(self, log_every: int, first: int):
        self._most, self._next, self._last = log_every, first, (first, time.monotonic())

    def anyone(self, asked: bool, step: int) -> bool:
        """The answer at this step, the same on every process; False at a step without an exchange."""
        if jax.process_count() == 1:
            return asked
        if step < self._next:
            return False
        last_step, last_time = self._last
        seconds_a_step = (time.monotonic() - last_time) / (step - last_step)
        answers_P2 = multihost_utils.process_allgather(np.asarray([float(asked), seconds_a_step], np.float32))
        self._last = step, time.monotonic()
        slowest = max(float(answers_P2[:, 1].max()), 1e-6)
        self._next = step + max(1, min(self._most, int(AGREEMENT_SECONDS / slowest)))
        return bool(answers_P2[:, 0].any())
