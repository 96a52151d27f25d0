"""The chain rule in the order of confidence, an exact likelihood of an MDM, and its greedy generation.

In each step the model predicts all tokens that are still MASK. The next position is the one whose *predicted*
distribution has the greatest probability. Its true token is scored and then revealed. The choice of the position
depends only on the tokens that the model sees, never on the true token, so the probabilities of all targets sum to 1. A
choice by the true token's probability would not give a likelihood.

The leftmost of equally certain positions is taken; see `lowest_up_to_rounding` for what is equal.

Greedy generation reveals the likeliest token at the most certain position. It gives the target exactly if each token is
the likeliest one where this chain scores it, because until the first other token both reveal the same tokens.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array

from mdm_jax.devices.precision import lowest_up_to_rounding, product_precision, tolerance_nats
from mdm_jax.devices.sharding import at_position, replicate, split_over_data
from mdm_jax.evaluate.likelihood.reading import Rows, predictions, read
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import ModelSpec


@struct.dataclass
class Reveal:
    """The state of the chain: `masked_BL` (bool), nats so far `nats_B`, and whether it is greedy so far `greedy_B`."""

    masked_BL: ArrayLike
    nats_B: ArrayLike
    greedy_B: ArrayLike


def nothing_revealed(rows: Rows) -> Reveal:
    """The state in which the model sees only the prompts."""
    ids_BL, length_B, prompt_B = (np.asarray(x) for x in (rows.ids_BL, rows.length_B, rows.prompt_B))
    at_L = np.arange(ids_BL.shape[1])
    masked_BL = (at_L >= prompt_B[:, None]) & (at_L < length_B[:, None])
    return Reveal(masked_BL, np.zeros(len(ids_BL), np.float32), np.ones(len(ids_BL), bool))


@functools.partial(jax.jit, static_argnames="model")
def reveal(
    params: Transformer, rows: Rows, state: Reveal, steps: Array, model: ModelSpec, guidance: Array | None = None
) -> Reveal:
    """The state after `steps` further tokens of each row; a row whose tokens are all revealed remains as it is."""
    rows, state = split_over_data((rows, state))
    ids_BL, head_DV = jnp.asarray(rows.ids_BL), params.head[...]

    def step(_: Array, state: Reveal) -> Reveal:
        masked_BL = jnp.asarray(state.masked_BL)
        h_BLD = read(params, jnp.where(masked_BL, model.vocab_size, ids_BL), rows, model, guidance)
        nats_BL, doubt_BL, likeliest_BL = predictions(h_BLD, ids_BL, head_DV, model)
        next_B = jnp.argmax(lowest_up_to_rounding(doubt_BL, masked_BL, tolerance_nats(model)), -1)
        here_B = at_position(masked_BL, next_B)
        added_B = jnp.where(here_B, at_position(nats_BL, next_B), 0.0)
        hit_B = ~here_B | (at_position(likeliest_BL, next_B) == at_position(ids_BL, next_B))
        left_BL = masked_BL & (jnp.arange(ids_BL.shape[1]) != next_B[:, None])
        return Reveal(left_BL, state.nats_B + added_B, state.greedy_B & hit_B)

    with product_precision(model):
        return jax.tree.map(replicate, jax.lax.fori_loop(0, steps, step, state))
