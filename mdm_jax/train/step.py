"""The train step of both families: draw masks, compute the loss and its gradient, update.

Seed and learning rate are arguments of the compiled step. So runs that differ in these, or in their length, share one
program: it is traced and compiled once in a process, and its entry in the cache on disk serves all of them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt

from mdm_jax.devices.free_memory import return_free_memory
from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import at_index, place, split_microbatches
from mdm_jax.model.transformer import Transformer, embedded, hidden
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.loss import loss, reconstruction
from mdm_jax.spec import RunSpec
from mdm_jax.spec.programs import step_program
from mdm_jax.train.cpu_tuning import tuned
from mdm_jax.train.drawing import Drawing, draws_program
from mdm_jax.train.optim import LearningRate, adamw
from mdm_jax.train.state import TrainState

MOST_STEPS_KEPT = 64
"""Jitted steps that a process keeps."""
SCALARS = ("loss", "grad_norm", "lr")
"""What a step returns beside the state, each a float32 scalar."""


def draw_loss(
    params: Transformer, drawn: Draw, spec: RunSpec, x_BLD: Float[Array, "B L D"] | None = None
) -> Float[Array, ""]:
    """The loss of the model on a draw, with its reconstruction term if the objective has one.

    `x_BLD` is the residual stream of the draw's inputs before the first layer, where the caller has it.
    """
    value = _scored(params, drawn, spec, x_BLD)
    return value + _scored(params, reconstruction(drawn), spec) if spec.objective.reconstructs else value


def _scored(params: Transformer, drawn: Draw, spec: RunSpec, x_BLD: Array | None = None) -> Float[Array, ""]:
    def run(tokens_BL: Array, position_PM: Array | None = None) -> Array:
        rows = drawn.length_B, drawn.level_B, drawn.seed_B
        return hidden(params, tokens_BL, spec.model, spec.hardware, *rows, x_BLD, position_PM)

    return loss(drawn, run, params.head[...], spec.objective, spec.model.vocab_size)


def loss_and_grads(params: Transformer, drawn: Draw, spec: RunSpec) -> tuple[Float[Array, ""], Any]:
    """Loss of the whole batch and its gradient: sums over microbatches, whose weights are those of the whole batch.

    The embedding's rows are looked up once for all microbatches. So its gradient is made once, from those of the rows:
    an array of the size of the table less in memory, and fewer passes over it.
    """
    if spec.hardware.microbatches == 1:
        return jax.value_and_grad(draw_loss)(params, drawn, spec)
    value_and_grads = jax.value_and_grad(draw_loss, argnums=(0, 3))

    def split(x: Array) -> Array:
        return split_microbatches(x, spec.hardware.microbatches)

    def look_up(params: Transformer) -> Array:
        return split(embedded(params, drawn.inputs_BL, spec.model))

    def add(total: Any, micro: tuple[Draw, Array]) -> tuple[Any, Array]:
        value, (grads, dx_BLD) = value_and_grads(params, micro[0], spec, micro[1])
        return jax.tree.map(jnp.add, total, (value, grads)), dx_BLD

    x_MBLD, through_look_up = jax.vjp(look_up, params)
    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    (value, grads), dx_MBLD = jax.lax.scan(add, zero, (jax.tree.map(split, drawn), x_MBLD))
    return value, jax.tree.map(jnp.add, grads, through_look_up(dx_MBLD)[0])


def train_step(
    state: TrainState, tokens_BL: Int[Array, "B L"], rate: LearningRate, seed: UInt[Array, ""], spec: RunSpec
) -> tuple[TrainState, dict[str, Array]]:
    """One optimiser step on a global batch. Returns the new state, and the scalars loss, grad_norm and lr.

    Args:
        state: the state before the step.
        tokens_BL: the batch.
        rate: the run's learning rate.
        seed: the run's seed.
        spec: the run, of which the fields that `step_program` resets are not read.
    """
    return update(state, Drawing.of_run(spec).of_step(tokens_BL, state.step, seed), rate, spec)


def update(state: TrainState, drawn: Draw, rate: LearningRate, spec: RunSpec) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` from the draw of its batch."""
    spec = tuned(spec)
    with product_precision(spec.model):
        value, grads = loss_and_grads(state.params, drawn, spec)
    direction, opt_state = adamw(spec.optim).update(grads, state.opt_state, state.params)  # type: ignore[arg-type]  # a pytree
    lr = rate.at(state.step)
    params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
    average = state.average
    if average is not None:
        decay = spec.optim.ema_decay
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
    new = TrainState(state.step + 1, place(params), place(opt_state), average)
    return new, {"loss": value, "grad_norm": optax.tree.norm(grads), "lr": lr}


def updates(
    state: TrainState, drawn_K: Draw, count: Int[Array, ""], rate: LearningRate, spec: RunSpec
) -> tuple[TrainState, dict[str, Array]]:
    """`count` steps with the first `count` of K draws. Returns the new state, and the scalars of the last step."""

    def one(index: Array, before: tuple[TrainState, dict[str, Array]]) -> tuple[TrainState, dict[str, Array]]:
        return update(before[0], at_index(drawn_K, index), rate, spec)

    return jax.lax.fori_loop(0, count, one, (state, {name: jnp.zeros(()) for name in SCALARS}))


@dataclasses.dataclass(frozen=True)
class Step:
    """A run's jitted step `(state, tokens_BL, rate) -> (state, scalars)`. It reuses the memory of the old state.

    Attributes:
        program: the jitted function, which runs of equal shape share. Its last argument is the seed.
        several_program: the same for several steps in one call. It consists of two jitted functions.
        seed: the run's seed.
    """

    program: jax.stages.Wrapped
    several_program: Callable[..., tuple[TrainState, dict[str, Array]]]
    seed: np.uint32

    def __call__(self, state: TrainState, tokens_BL: Array, rate: LearningRate) -> tuple[TrainState, dict[str, Array]]:
        """One step."""
        return self.program(state, tokens_BL, rate, self._seed)

    def compile(self, state: TrainState, tokens_BL: Array, rate: LearningRate) -> None:
        """Compiles the program of one step, so that the compiler's memory is free before the step takes its own."""
        self.program.lower(state, tokens_BL, rate, self._seed).compile()
        return_free_memory()

    def several(
        self, state: TrainState, tokens_KBL: Array, count: int, rate: LearningRate
    ) -> tuple[TrainState, dict[str, Array]]:
        """`count` steps on the first `count` of K batches. Returns the new state, and the scalars of the last step.

        Calls with another `count` and the same K share a program.
        """
        return self.several_program(state, tokens_KBL, np.int32(count), rate, self._seed)

    @functools.cached_property
    def _seed(self) -> Array:
        """The seed on the device, once for all steps."""
        return jnp.asarray(self.seed)

    def trace(self, state: TrainState, tokens_BL: Any, rate: LearningRate) -> jax.stages.Traced:
        """The traced step; shapes may take the place of arrays."""
        return self.program.trace(state, tokens_BL, rate, self.seed)

    def lower(self, state: TrainState, tokens_BL: Any, rate: LearningRate) -> jax.stages.Lowered:
        """The lowered step; shapes may take the place of arrays."""
        return self.trace(state, tokens_BL, rate).lower()


def compile_step(spec: RunSpec) -> Step:
    """The run's step; its first call compiles it, unless a run of equal shape has called it in this process."""
    return Step(*_programs(step_program(spec)), np.uint32(spec.seed))


@functools.lru_cache(maxsize=MOST_STEPS_KEPT)
def _programs(spec: RunSpec) -> tuple[jax.stages.Wrapped, Callable[..., tuple[TrainState, dict[str, Array]]]]:
    """The functions of one step and of several steps. Each is compiled when it is first called.

    Several steps are drawn by a program of their own; see `drawing.py`.
    """
    draw_all = draws_program(Drawing.of_run(spec))
    steps = jax.jit(functools.partial(updates, spec=spec), donate_argnums=0)

    def several(state: TrainState, tokens_KBL: Array, count: Any, rate: LearningRate, seed: Array):
        return steps(state, draw_all(tokens_KBL, state.step, seed), count, rate)

    return jax.jit(functools.partial(train_step, spec=spec), donate_argnums=0), several
