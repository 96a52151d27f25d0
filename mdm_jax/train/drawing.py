"""The random draws of the train step. They depend on the seed, the step and the tokens, and not on the model's size.

A tiny model's draws are made for several steps together, by a program of their own. Its operations are so small that
the draws of ten steps take twice as long as one. Models of all sizes share the program, for which the compiler needs a
second.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from mdm_jax.devices.sharding import BATCH, reshard
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.loss import draw
from mdm_jax.spec import ObjectiveSpec, RowKind, RunSpec

NOISE_STREAM = 1
DROPOUT_STREAM = 2
MOST_KEPT = 64
"""Jitted functions that a process keeps."""


def noise_key(seed: int | UInt[Array, ""], step: Int[Array, ""]) -> Array:
    """The key of a step's masks, which depends on seed and step alone, and differs from the key of the weights."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), NOISE_STREAM), step)


def _dropout_seeds(seed: UInt[Array, ""], step: Array, rows: int) -> UInt[Array, "B"]:
    """A seed for each row of the step's batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), DROPOUT_STREAM), step)
    return reshard(jax.random.bits(key, (rows,), jnp.uint32), BATCH)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What decides the draws of a run's steps beside its seed and its tokens."""

    objective: ObjectiveSpec
    vocab_size: int
    rows: RowKind
    has_dropout: bool

    @classmethod
    def of_run(cls, spec: RunSpec) -> "Drawing":
        """The run's own."""
        return cls(spec.objective, spec.model.vocab_size, spec.data.rows, bool(spec.model.dropout))

    def of_step(self, tokens_BL: Int[Array, "B L"], step: Int[Array, ""], seed: UInt[Array, ""]) -> Draw:
        """The draw of the step that comes after `step` steps."""
        drawn = draw(noise_key(seed, step), tokens_BL, self.objective, self.vocab_size, self.rows)
        if self.has_dropout:
            drawn = dataclasses.replace(drawn, seed_B=_dropout_seeds(seed, step, tokens_BL.shape[0]))
        return drawn

    def of_steps(self, tokens_KBL: Int[Array, "K B L"], first: Int[Array, ""], seed: UInt[Array, ""]) -> Draw:
        """The draws of K steps, stacked on a leading axis. The first comes after `first` steps."""
        step_K = first + jnp.arange(tokens_KBL.shape[0])
        return jax.vmap(self.of_step, (0, 0, None))(tokens_KBL, step_K, seed)


@functools.lru_cache(maxsize=MOST_KEPT)
def draws_program(drawing: Drawing) -> jax.stages.Wrapped:
    """The jitted `Drawing.of_steps`."""
    return jax.jit(drawing.of_steps)
