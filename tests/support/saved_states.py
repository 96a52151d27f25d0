"""States to save, the identity they are saved under, and what comes back of a folder of checkpoints."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mdm_jax.files.storage import as_path
from mdm_jax.train.checkpoint import Checkpoints
from mdm_jax.train.seal import Identity

State = dict[str, jax.Array]
ME = Identity("5" * 64, "d" * 64)


def state(step: int) -> State:
    """Different numbers at every step; a NaN's payload and a subnormal number are bits like others."""
    draw = np.random.default_rng(step)
    odd = np.array([0x7FC12345, 1, 0x80000000], np.uint32).view(np.float32)
    return {
        "w": jnp.asarray(draw.normal(size=(64, 48)).astype(np.float32)),
        "odd": jnp.asarray(odd),
        "half": jnp.asarray(draw.normal(size=(5,)), jnp.bfloat16),
        "step": jnp.asarray(step, jnp.int32),
    }


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        first[n].dtype == second[n].dtype and np.asarray(first[n]).tobytes() == np.asarray(second[n]).tobytes()
        for n in first
    )


def restored(folder: Path) -> tuple[State | None, int, list[str]]:
    checkpoints = Checkpoints(as_path(folder), ME)
    try:
        return checkpoints.restore(jax.tree.map(jnp.zeros_like, state(0)))
    finally:
        checkpoints.close()
