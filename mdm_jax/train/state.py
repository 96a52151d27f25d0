"""TrainState: everything that a step changes, as one pytree."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mdm_jax.devices.sharding import place
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import RunSpec
from mdm_jax.train.optim import adamw


@struct.dataclass
class TrainState:
    """The state after `step` steps. `average` is the parameters' moving average, or None if the run keeps none.

    Leaves are arrays (`step` is an int32 scalar), or jax's shapes or shardings in their place. Hence `Any`.
    """

    step: Any
    params: Transformer
    opt_state: Any
    average: Transformer | None

    @property
    def evaluated(self) -> Transformer:
        """The weights for the evaluation: the average, if the run keeps one."""
        return self.params if self.average is None else self.average


def make_state(spec: RunSpec) -> TrainState:
    """The state before step 0, from the spec and its seed. It can be traced."""
    model = place(Transformer(spec.model, jax.random.key(spec.seed), spec.hardware.mesh_model))
    average = jax.tree.map(jnp.copy, model) if spec.optim.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), model, place(adamw(spec.optim).init(model)), average)


def init_state(spec: RunSpec) -> TrainState:
    """The state before step 0 on the ambient mesh, each leaf in its stored layout.

    One `jit` makes all leaves, so that they have the same types as the step's results, and the step compiles once.
    """
    return jax.jit(lambda: make_state(spec))()
