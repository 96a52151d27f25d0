"""AdamW as in SMDM, and the learning rate: linear warm-up, then cosine decay, or constant with a cooldown (WSD).

The schedule's numbers are arguments of the compiled step, so runs of equal shape and different length share a program.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from mdm_jax.spec import OptimSpec, ScheduleKind, ScheduleSpec


@struct.dataclass
class LearningRate:
    """A schedule's numbers as float32 scalars, or their shapes. The kind is a constant of the compiled step."""

    peak: Any
    final: Any
    warmup_steps: Any
    decay_start: Any
    steps: Any
    kind: ScheduleKind = struct.field(pytree_node=False)

    def at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Learning rate of the 0-based `step`: up to the peak over `warmup_steps`, and `final` at the last step."""
        done = (step + 1).astype(jnp.float32)
        warm = jnp.minimum(done / jnp.maximum(self.warmup_steps, 1), 1.0)
        share = ((done - self.decay_start) / jnp.maximum(self.steps - self.decay_start, 1)).clip(0, 1)
        left = 0.5 * (1 + jnp.cos(jnp.pi * share)) if self.kind is ScheduleKind.COSINE else 1 - share
        return jnp.where(done <= self.warmup_steps, self.peak * warm, self.final + (self.peak - self.final) * left)


def learning_rate(optim: OptimSpec, schedule: ScheduleSpec) -> LearningRate:
    """The run's schedule. A cosine decays from the end of the warm-up, WSD over the last `cooldown_steps`."""
    cosine = schedule.kind is ScheduleKind.COSINE
    decay_start = schedule.warmup_steps if cosine else schedule.steps - schedule.cooldown_steps
    numbers = (
        optim.lr_peak,
        optim.lr_peak * schedule.lr_final_fraction,
        schedule.warmup_steps,
        decay_start,
        schedule.steps,
    )
    return LearningRate(*(jnp.asarray(x, jnp.float32) for x in numbers), kind=schedule.kind)


def _clip(most: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` with one factor for all gradients, which XLA multiplies where it reads them.

    optax writes the scaled gradients to arrays of their own. This takes 2 of the 15 passes that its optimiser makes
    over memory of the model's size.
    """

    def clipped(grads: Any, _: Any) -> Any:
        factor = jnp.minimum(1.0, most / optax.tree.norm(grads))
        return jax.tree.map(lambda g: g * factor, grads)

    return optax.stateless(clipped)


def adamw(optim: OptimSpec) -> optax.GradientTransformation:
    """Global clip, Adam's direction, decoupled decay of every weight. The caller multiplies the result by `-lr`."""
    return optax.chain(
        _clip(optim.clip_norm),
        optax.scale_by_adam(optim.b1, optim.b2),
        optax.add_decayed_weights(optim.weight_decay),
    )
