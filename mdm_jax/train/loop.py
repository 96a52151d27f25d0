"""The training loop. It dispatches steps, writes metrics and checkpoints, and stops early if asked or if it diverges.

Metrics of a step are read after the next step has been dispatched. Threads read batches ahead and write checkpoints. So
the devices do not wait for the host, except at a checkpoint for the copy of the state.

A row of the metrics has the step, and the step's loss, gradient norm and learning rate. These columns are about all
steps of this attempt until then:

- `seconds`: seconds in steps, without the first step, which compiles, and without checkpoints;
- `tokens_per_second`: the tokens of these steps, divided by these seconds;
- `flops_per_second`: their FLOPs under the convention `exact`, of all devices together, divided by these seconds;
- `mfu`: `flops_per_second` as a share of the devices' published peak; absent if the peak is not known, as on a CPU;
- `seconds_waited`: the part of these seconds in which the devices had no step to compute, because there was no batch.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import Mesh

from mdm_jax.data.corpus import TrainingRows
from mdm_jax.devices.accelerators import peak_flops_per_second
from mdm_jax.devices.sharding import largest_of_processes
from mdm_jax.spec import FlopConvention, HardwareSpec, RunSpec
from mdm_jax.spec.counting import step_flops
from mdm_jax.train.batches import Batches, calls
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.cpu_tuning import steps_in_a_call
from mdm_jax.train.metrics import MetricsWriter
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.profiler import Profiler
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
    """Called when a checkpoint has been written."""
    restore_terminal: Callable[[], object] = lambda: None
    """Called before the process ends at once."""
    profiler: Profiler = field(default_factory=Profiler)
    phase: Phase = Phase.NOTHING_NEW
    seconds_in_steps: float = 0.0
    """Seconds in steps until the last written checkpoint, without the first step, which compiles."""
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
    first, last, most = int(state.step), spec.schedule.steps, steps_in_a_call(spec)
    planned = functools.partial(calls, first, last, most, functools.partial(_acts_after, spec.hardware, watch.profiler))
    clock = _Clock(spec, first, jax.devices()[0].device_kind)
    agreement = _Agreement(spec.hardware.log_every, first)
    watch.profiler.announce(first)
    pending: tuple[int, dict[str, jax.Array]] | None = None
    with closing(Batches(rows, mesh, planned(), most)) as batches:
        for steps in planned():
            if watch.profiler.begins_at(steps[0]):
                with clock.paused(state):
                    watch.profiler.before(steps[0])
            tokens, step = batches.next(state.step), steps[-1]
            if most == 1:
                if step == first + 1:
                    step_fn.compile(state, tokens, rate)
                state, scalars = step_fn(state, tokens, rate)
            else:
                state, scalars = step_fn.several(state, tokens, len(steps), rate)
            if pending is not None:
                _record(*pending, clock, batches, metrics, watch)
                pending = None
            if step % spec.hardware.log_every == 0 or step == last:
                pending = step, scalars
            if step == first + 1:
                jax.block_until_ready(state.step)
                clock.restart()
                watch.phase = Phase.TRAINING
            if watch.profiler.ends_at(step):
                with clock.paused(state):
                    watch.profiler.after(step)
            checkpoints.poll()
            stop = agreement.anyone(watch.asked_to_stop(), step)
            if step % spec.hardware.checkpoint_every == 0 or step == last or stop:
                if pending is not None:
                    _record(*pending, clock, batches, metrics, watch)
                    pending = None
                with clock.paused(state):
                    if metrics is not None:
                        metrics.next_part(step)
                    checkpoints.save(step, state, functools.partial(_note, watch, clock.spent, step - first - 1))
            if stop and step < last:
                checkpoints.wait()
                raise Preempted(f"step {step}")
        checkpoints.wait()
    watch.phase = Phase.NOTHING_NEW
    return state


def _acts_after(hardware: HardwareSpec, profiler: Profiler, step: int) -> bool:
    """Whether the loop must see the state after this step: for metrics, a checkpoint, or an end of the profile."""
    logs, saves = step % hardware.log_every == 0, step % hardware.checkpoint_every == 0
    return logs or saves or step + 1 == profiler.steps.start or step + 1 == profiler.steps.stop


def _note(watch: Watch, seconds_in_steps: float, steps_timed: int) -> None:
    """Tells the watch the cost until a checkpoint that has been written."""
    watch.seconds_in_steps, watch.steps_timed = seconds_in_steps, steps_timed
    watch.saved()


class _Clock:
    """Seconds in steps, without compilation and checkpoints, and the rates since the start."""

    def __init__(self, spec: RunSpec, first: int, device_kind: str):
        self._tokens_per_step = spec.optim.global_batch * spec.data.seq_len
        self._flops_per_step = step_flops(spec, FlopConvention.EXACT)
        peak = peak_flops_per_second(device_kind)
        self._peak = peak and peak * spec.hardware.devices
        self._first = first
        self.restart()

    def restart(self) -> None:
        self.spent, self._since = 0.0, time.monotonic()

    @contextmanager
    def paused(self, state: TrainState) -> Iterator[None]:
        """Does not count the time inside. It first waits until the state is computed."""
        jax.block_until_ready(state)
        self.spent = self._elapsed()
        yield
        self._since = time.monotonic()

    def _elapsed(self) -> float:
        return self.spent + time.monotonic() - self._since

    def columns(self, step: int) -> Row:
        """The columns of the time in a row of the metrics."""
        seconds = self._elapsed()
        a_second = (step - self._first - 1) / max(seconds, 1e-9)
        flops = a_second * self._flops_per_step
        row: Row = {
            "seconds": round(seconds, 3),
            "tokens_per_second": round(a_second * self._tokens_per_step, 1),
            "flops_per_second": float(f"{flops:.6g}"),
        }
        return row | {"mfu": round(flops / self._peak, 6)} if self._peak else row


def _record(
    step: int,
    scalars: dict[str, jax.Array],
    clock: _Clock,
    batches: Batches,
    metrics: MetricsWriter | None,
    watch: Watch,
) -> None:
    row: Row = {"step": step, **{name: float(value) for name, value in scalars.items()}}
    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        raise Diverged(step)
    row |= clock.columns(step) | {"seconds_waited": round(batches.seconds_waited, 3)}
    if metrics is not None:
        metrics.write(row)
    watch.report(row)


class _Agreement:
    """Whether any process was asked to stop. The processes ask each other only every few steps.

    The devices compare the answers after the step that is being dispatched. The result is read one step later, so that
    no device waits for a host.
    """

    def __init__(self, log_every: int, first: int):
        self._most, self._next, self._last = log_every, first, (first, time.monotonic())
        self._asked: jax.Array | None = None

    def anyone(self, asked: bool, step: int) -> bool:
        """The answer at this step, the same on every process; False at a step without an answer."""
        if jax.process_count() == 1:
            return asked
        if self._asked is not None:
            (anyone, slowest), self._asked = np.asarray(self._asked).tolist(), None
            self._next = step + max(1, min(self._most, int(AGREEMENT_SECONDS / max(slowest, 1e-6))))
            return bool(anyone)
        if step >= self._next:
            last_step, last_time = self._last
            seconds_a_step = (time.monotonic() - last_time) / (step - last_step)
            self._asked = largest_of_processes(np.asarray([float(asked), seconds_a_step], np.float32))
            self._last = step, time.monotonic()
        return False
