"""Ancestral sampling of an ARM, from left to right, with a cache of keys and values or without."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import at_position, by_row, replicate, split_over_data
from mdm_jax.model.cached import Cache, fill_cache, read_next, split_layers
from mdm_jax.model.transformer import Block, Transformer, hidden
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


Continuing = tuple[_State, Cache]
"""Rows that are being written, with the keys and values of their tokens."""


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
    canvas = split_over_data(canvas)
    with product_precision(model):
        layers = split_layers(params, model) if cached else ()
        begin = _before(params, canvas, layers, model)
        return _filled(canvas, _after(params, canvas, layers, begin, None, model)[0])


@functools.partial(jax.jit, static_argnames=("model",))
def begin_continuing(params: Transformer, canvas: Canvas, model: ModelSpec) -> Continuing:
    """The rows before their first token, with their cache, for `continue_on`."""
    canvas = split_over_data(canvas)
    with product_precision(model):
        return _before(params, canvas, split_layers(params, model), model)


@functools.partial(jax.jit, static_argnames=("model",))
def continue_on(
    params: Transformer, canvas: Canvas, state: Continuing, steps: ArrayLike, model: ModelSpec
) -> tuple[Continuing, Filled]:
    """The rows some tokens later; V stands where no token is yet. In the end they are those of `continue_rows`.

    Args:
        params: the ARM's weights.
        canvas: the rows, as in `continue_rows`.
        state: from `begin_continuing`, or from this function. Once all rows are done it stays as it is.
        steps: tokens to write, at least 1.
        model: shape of the model.
    """
    canvas = split_over_data(canvas)
    with product_precision(model):
        until = state[0].total_B.max() + steps
        after = _after(params, canvas, split_layers(params, model), state, until, model)
        return after, _filled(canvas, after[0])


def _before(params: Transformer, canvas: Canvas, layers: tuple[Block, ...], model: ModelSpec) -> Continuing:
    """The state before the first token. Without layers there is no cache."""
    begin = by_row(functools.partial(_begin, start=model.vocab_size), canvas)
    return begin, fill_cache(params, layers, shifted(begin.ids_BL, model.vocab_size), model)


def _after(
    params: Transformer,
    canvas: Canvas,
    layers: tuple[Block, ...],
    begin: Continuing,
    until: Array | None,
    model: ModelSpec,
) -> Continuing:
    """The state when all rows are done, or when the longest one has `until` generated tokens.

    Without layers there is no cache, and each token takes a pass over the whole row.
    """
    head_DV = params.head[...]

    def inputs(ids_BL: Array) -> Array:
        return shifted(ids_BL, model.vocab_size)

    def uncached(state: _State) -> Array:
        h_BLD = hidden(params, inputs(state.ids_BL), model, HardwareSpec())
        return at_position(h_BLD, state.at_B)[:, None]

    def drawn(h_B1D: Array, canvas: Canvas, state: _State) -> _State:
        predicted = predict(h_B1D, head_DV, by_row(_uniform, canvas, state), model.vocab_size, canvas.filters)
        return by_row(_advance, canvas, state, predicted)

    def step(carry: Continuing) -> Continuing:
        state, cache = carry
        if not layers:
            return drawn(uncached(state), canvas, state), cache
        token_B = at_position(inputs(state.ids_BL), state.at_B)
        h_B1D, cache = read_next(params, layers, token_B, state.at_B, cache, model)
        return drawn(h_B1D, canvas, state), cache

    def goes_on(carry: Continuing) -> Array:
        unfinished = ~carry[0].done_B.all()
        return unfinished if until is None else unfinished & (carry[0].total_B.max() < until)

    return jax.lax.while_loop(goes_on, step, begin)


def _filled(canvas: Canvas, state: _State) -> Filled:
    ids_BL = by_row(_result, canvas, state)
    return Filled(replicate(ids_BL), replicate(state.nats_BL), replicate(state.total_B))


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
    left_L = state.done_B & (at_L > state.at_B) & (at_L < jnp.asarray(canvas.length_B))
    return jnp.where(left_L, jnp.asarray(canvas.eos_B), state.ids_BL)
