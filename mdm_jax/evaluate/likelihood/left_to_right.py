"""The chain rule from left to right: `sum_i log p(x_i | prompt, x_<i)`, an exact likelihood of either family.

An MDM reads the row once for each target token, with MASK in place of that token and those after it. An ARM reads the
row once.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import at_position, replicate, split_over_data
from mdm_jax.evaluate.likelihood.reading import Rows, predictions, read
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives import arm
from mdm_jax.objectives.vocab_loss import token_nats
from mdm_jax.spec import HardwareSpec, ModelSpec


def _nats_at(
    params: Transformer, rows: Rows, seen_B: Array, model: ModelSpec, guidance: Array | None
) -> Float[Array, "B"]:
    ids_BL = jnp.asarray(rows.ids_BL)
    later_BL = jnp.arange(ids_BL.shape[1]) >= seen_B[:, None]
    h_BLD = read(params, jnp.where(later_BL, model.vocab_size, ids_BL), rows, model, guidance)
    return token_nats(at_position(h_BLD, seen_B), at_position(ids_BL, seen_B), params.head[...], model.vocab_size)


@functools.partial(jax.jit, static_argnames="model")
def next_token_nats(
    params: Transformer, rows: Rows, seen_B: Int[Array, "B"], model: ModelSpec, guidance: Array | None = None
) -> Float[Array, "B"]:
    """Nats of the token at position `seen_B` of each row under an MDM that sees the tokens before it.

    Args:
        params: the MDM's weights.
        rows: the rows.
        seen_B: tokens that the model sees, from the row's prompt on; less than the row's length.
        model: shape of the model.
        guidance: w, or None for the model itself.
    """
    with product_precision(model):
        return replicate(_nats_at(params, *split_over_data((rows, seen_B)), model, guidance))


@functools.partial(jax.jit, static_argnames="model")
def add_prefix_nats(
    params: Transformer, rows: Rows, nats_B: Array, start: Array, stop: Array, model: ModelSpec
) -> Float[Array, "B"]:
    """`nats_B` and the nats of the tokens at positions `start … stop - 1` under an MDM, each seeing those before it."""
    rows, nats_B = split_over_data((rows, nats_B))

    def add(i: Array, nats_B: Array) -> Array:
        return nats_B + _nats_at(params, rows, jnp.full_like(rows.prompt_B, i), model, None)

    with product_precision(model):
        return replicate(jax.lax.fori_loop(start, stop, add, nats_B))


@functools.partial(jax.jit, static_argnames="model")
def causal_nats(params: Transformer, rows: Rows, model: ModelSpec) -> tuple[Float[Array, "B L"], Bool[Array, "B L"]]:
    """Nats of every token under an ARM, and whether the token is the likeliest one; padding gives numbers too."""
    with product_precision(model):
        rows = split_over_data(rows)
        ids_BL, length_B = jnp.asarray(rows.ids_BL), jnp.asarray(rows.length_B)
        h_BLD = hidden(params, arm.shifted(ids_BL, model.vocab_size), model, HardwareSpec(), length_B)
        nats_BL, _, likeliest_BL = predictions(h_BLD, ids_BL, params.head[...], model)
        return replicate(nats_BL), replicate(likeliest_BL == ids_BL)
