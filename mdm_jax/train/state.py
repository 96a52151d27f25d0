"""TrainState: everything that a step changes, a plain pytree that is sharded leaf by leaf."""

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
    """`step` steps are done. `average` is the parameters' moving average, or None where the run keeps none.

    As in every pytree of ours, leaves are arrays (`step` an int32 scalar), or what jax puts in their place when a
    program is compiled ahead of time: shapes, shardings, what it knows of an argument. Hence the loose types.
    """

    step: Any
    params: Transformer
    opt_state: Any
    average: Transformer | None

    @property
    def evaluated(self) -> Transformer:
        """The weights that evaluation and export use."""
        return self.params if self.average is None else self.average


def make_state(spec: RunSpec) -> TrainState:
    """The state before step 0, made of the seed alone; traceable."""
    model = place(Transformer(spec.model, jax.random.key(spec.seed), spec.hardware.mesh_model))
    average = jax.tree.map(jnp.copy, model) if spec.optim.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), model, place(adamw(spec.optim).init(model)), average)


def init_state(spec: RunSpec) -> TrainState:
    """The state before step 0 on the ambient mesh, each leaf in its stored layout.

    One `jit` makes all of it: leaves come out typed as the step returns them, so the step compiles once.
    """
    return jax.jit(lambda: make_state(spec))()
