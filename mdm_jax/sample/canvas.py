"""Rows to fill, with the settings of each row; and filled rows.

Every setting is an array over the rows. So a row's result does not depend on the rows beside it, and rows with
different settings share a compiled program.
"""

from typing import NamedTuple

import jax
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

WHOLE_ROW = np.iinfo(np.int32).max
"""A block that is longer than any row."""
NO_EOS = -1
POSITIONS, TOKENS = 0, 1
"""Uses of a row's random keys."""


@struct.dataclass
class Filters:
    """What changes the predictions before a token is drawn. Each is an array over the rows, `[B]`.

    Attributes:
        temperature_B: divides the logits; 0 takes the likeliest token.
        top_k_B: only the k likeliest tokens are drawn; None leaves all, and sorts nothing.
        top_p_B: only the likeliest tokens that together have this probability are drawn; None leaves all.
    """

    temperature_B: ArrayLike
    top_k_B: ArrayLike | None = None
    top_p_B: ArrayLike | None = None


@struct.dataclass
class Canvas:
    """Rows to fill.

    Attributes:
        ids_BL: tokens; V stands at the positions that are generated, and anything after `length_B` tokens.
        length_B: tokens of each row, given or generated.
        seed_B: seed of each row, uint32.
        steps_B: steps of each row, over all of its blocks. Only rules that count steps read it.
        block_B: tokens of a block; blocks are filled from left to right.
        bound_B: the number that a rule depends on, such as a threshold.
        eos_B: a row ends at this token, and the same token fills the rest; NO_EOS if no token ends it.
        filters: see `Filters`.
        guidance_B: w of unsupervised classifier-free guidance; None reads each row once.
    """

    ids_BL: ArrayLike
    length_B: ArrayLike
    seed_B: ArrayLike
    steps_B: ArrayLike
    block_B: ArrayLike
    bound_B: ArrayLike
    eos_B: ArrayLike
    filters: Filters
    guidance_B: ArrayLike | None = None


class Filled(NamedTuple):
    """Filled rows.

    Attributes:
        ids_BL: the tokens; there is no MASK left within a row's length.
        nats_BL: nats of each generated token when it was drawn, by the model without temperature, top-k and top-p.
        forwards_B: forward passes that each row needed; with guidance a step takes two. With a cache most of them read
            only a window, and the pass that fills the cache counts as one with the first reading of the block.
    """

    ids_BL: Int[Array, "B L"]
    nats_BL: Float[Array, "B L"]
    forwards_B: Int[Array, "B"]


def step_key(seed: Array, step: Array, use: int) -> Key[Array, ""]:
    """The random key of one use in one step of a row."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), use)
