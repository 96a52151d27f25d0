"""TrainState: everything that a step changes, as one pytree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from mdm_jax.devices.sharding import abstract_arrays, place
from mdm_jax.model.initial import initial_weights, is_drawn_here
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import RunSpec
from mdm_jax.spec.programs import state_program
from mdm_jax.train.optim import adamw

MOST_KEPT = 64
"""Jitted functions that a process keeps."""


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


def make_state(spec: RunSpec, seed: Any = None) -> TrainState:
    """The state before step 0. It can be traced.

    Args:
        spec: the run.
        seed: a uint32 scalar in the place of the run's own seed, so that runs of several seeds share a program.
    """
    key = jax.random.key(spec.seed if seed is None else seed)
    model = place(Transformer(spec.model, key, spec.hardware.mesh_model))
    average = jax.tree.map(jnp.copy, model) if spec.optim.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), model, place(adamw(spec.optim).init(model)), average)


def init_state(spec: RunSpec) -> TrainState:
    """The state before step 0 on the ambient mesh, each leaf in its stored layout.

    Small models on one CPU are drawn on the host with the same bits, because their program takes seconds to compile.
    For all others one `jit` makes all leaves. Runs whose weights have equal shapes share it. Either way the leaves have
    the same types as the step's results, so that the step compiles once.
    """
    mesh = jax.sharding.get_mesh()
    if is_drawn_here(spec.model, mesh):
        return _drawn_on_host(spec, mesh)
    return _program(state_program(spec))(np.uint32(spec.seed))


@functools.lru_cache(maxsize=MOST_KEPT)
def _program(spec: RunSpec) -> jax.stages.Wrapped:
    return jax.jit(lambda seed: make_state(spec, seed))


def _drawn_on_host(spec: RunSpec, mesh: Mesh) -> TrainState:
    """`init_state` of a model for which `is_drawn_here`."""
    weights = initial_weights(spec.model, spec.seed)

    def leaf(path: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
        """A weight if the path ends in one's name and is not the optimiser's; a zero otherwise."""
        names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        of_model = names[0] in ("params", "average")
        value = weights[names[-2]] if of_model else np.zeros(like.shape, like.dtype)
        return jax.device_put(value, like.sharding, may_alias=False)  # the step will reuse its memory

    return jax.tree_util.tree_map_with_path(leaf, abstract_arrays(mesh, lambda: make_state(spec)))
