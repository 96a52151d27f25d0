"""Ancestral sampling of an ARM, from left to right, with a cache of keys and values or without."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import at_position, by_row, replicate, split_over_data
from mdm_jax.model.cached import Cache, fill_cache, read_next, split_layers
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives.arm import shifted
from mdm_jax.sample.canvas import TOKENS, Canvas, Filled, step_key
from mdm_jax.sample.draw import Predicted, predict
from mdm_jax.spec import HardwareSpec, ModelSpec


class _State(NamedTuple):
    """`at_B` is the position of the token that is drawn next."""

    ids_BL: Array
    nats_BL: Array
    at_B: Array
    total_B: Array
    done_B: Array


@functools.partial(jax.jit, static_argnames=("model", "cached"))
def continue_rows(params: Transformer, canvas: Canvas, model: ModelSpec, cached: bool = True) -> Filled:
    """The rows with a token in place of every V, from left to right.

    Args:
        params: the ARM's weights; row V of the embedding is the start token.
        canvas: the rows. In each, V stands at all positions after the given tokens, at least one. Steps, blocks, bound
            and guidance are not read.
        model: shape of the model.
        cached: whether keys and values are kept. Without the cache, each token takes a pass over the whole row.
    """
    canvas, head_DV = split_over_data(canvas), params.head[...]

    def inputs(ids_BL: Array) -> Array:
        return shifted(ids_BL, model.vocab_size)

    def uncached(state: _State) -> Array:
        h_BLD = hidden(params, inputs(state.ids_BL), model, HardwareSpec())
        return at_position(h_BLD, state.at_B)[:, None]

    def drawn(h_B1D: Array, canvas: Canvas, state: _State) -> _State:
        predicted = predict(h_B1D, head_DV, by_row(_uniform, canvas, state), model.vocab_size, canvas.filters)
        return by_row(_advance, canvas, state, predicted)

    def step(carry: tuple[_State, Cache]) -> tuple[_State, Cache]:
        state, cache = carry
        if not cached:
            return drawn(uncached(state), canvas, state), cache
        token_B = at_position(inputs(state.ids_BL), state.at_B)
        h_B1D, cache = read_next(params, layers, token_B, state.at_B, cache, model)
        return drawn(h_B1D, canvas, state), cache

    with product_precision(model):
        begin = by_row(functools.partial(_begin, start=model.vocab_size), canvas)
        layers = split_layers(params, model) if cached else ()
        cache = fill_cache(params, layers, inputs(begin.ids_BL), model) if cached else ()
        end, _ = jax.lax.while_loop(lambda carry: ~carry[0].done_B.all(), step, (begin, cache))
        ids_BL = by_row(_result, canvas, end)
        return Filled(replicate(ids_BL), replicate(end.nats_BL), replicate(end.total_B))


def _begin(canvas: Canvas, start: int) -> _State:
    """The state of one row before its first token."""
    ids_L = jnp.asarray(canvas.ids_BL)
    first = jnp.argmax(ids_L == start).astype(jnp.int32)
    return _State(ids_L, jnp.zeros(ids_L.shape), first, jnp.int32(0), jnp.bool(False))


def _uniform(canvas: Canvas, state: _State) -> Array:
    return jax.random.uniform(step_key(jnp.asarray(canvas.seed_B), state.total_B, TOKENS), (1,))


def _advance(canvas: Canvas, state: _State, predicted: Predicted) -> _State:
    """The state of one row after a token; a row that has ended stays as it is."""
    token, at = predicted.token[0], state.at_B
    ids_L = state.ids_BL.at[at].set(jnp.where(state.done_B, state.ids_BL[at], token))
    nats_L = state.nats_BL.at[at].set(jnp.where(state.done_B, state.nats_BL[at], predicted.nats[0]))
    ends = (at + 1 >= jnp.asarray(canvas.length_B)) | (token == jnp.asarray(canvas.eos_B))
    following = jnp.where(ends | state.done_B, at, at + 1)
    return _State(ids_L, nats_L, following, state.total_B + ~state.done_B, state.done_B | ends)


def _result(canvas: Canvas, state: _State) -> Array:
    """The tokens of one row; what an EOS ended is filled with EOS."""
    at_L = jnp.arange(state.ids_BL.shape[0])
    left_L = (at_L > state.at_B) & (at_L < jnp.asarray(canvas.length_B))
    return jnp.where(left_L, jnp.asarray(canvas.eos_B), state.ids_BL)
