"""The loop of an MDM's samplers: rows that are partly MASK are filled, block by block, by a rule.

With blocks as long as the row, the rule acts on the whole row. With shorter ones a row is filled from left to right,
block by block: semi-autoregressive sampling within a row (LLaDA, Nie et al. 2025, arXiv 2502.09992). A cache of keys
and values then makes the steps of a block cheap; see `trunk_cache`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mdm_jax.devices.precision import product_precision, tolerance_nats
from mdm_jax.devices.sharding import by_row, replicate, split_over_data
from mdm_jax.model.cached import split_layers
from mdm_jax.model.guidance import guided_hidden
from mdm_jax.model.transformer import Transformer
from mdm_jax.sample.canvas import POSITIONS, TOKENS, Canvas, Filled, step_key
from mdm_jax.sample.draw import Predicted, predict
from mdm_jax.sample.rules.rule import Change, Rule, View
from mdm_jax.sample.trunk_cache import (
    Kept,
    Trunk,
    TrunkCache,
    block_positions,
    nothing_kept,
    read_block,
    refilled,
    spread,
)
from mdm_jax.spec import ModelSpec


class _State(NamedTuple):
    """What changes from step to step: `block_B` is the present block of each row, `step_B` the steps made in it."""

    ids_BL: Array
    nats_BL: Array
    block_B: Array
    step_B: Array
    total_B: Array
    forwards_B: Array
    done_B: Array


class _Fixed(NamedTuple):
    """The plan of one row: its generated positions, the block of each, and its number of blocks."""

    open_L: Array
    block_L: Array
    blocks: Array


Forward = Callable[[_State], Predicted]
"""A forward pass: from a state to the predictions at every position."""


@functools.partial(jax.jit, static_argnames=("model", "rule", "skip_idle", "cache", "window"))
def denoise(
    params: Transformer,
    canvas: Canvas,
    model: ModelSpec,
    rule: Rule,
    skip_idle: bool = True,
    cache: TrunkCache = TrunkCache.NONE,
    window: int = 0,
) -> Filled:
    """The rows with a token in place of every MASK.

    Args:
        params: the MDM's weights.
        canvas: the rows; each has at least one MASK.
        model: shape of the model.
        rule: the sampler.
        skip_idle: whether a step in which no row reveals anything passes without a forward pass. It changes the result
            in no bit.
        cache: which keys and values are kept within a block.
        window: tokens of the longest block; only a cache needs it.
    """
    canvas, mask = split_over_data(canvas), model.vocab_size
    fixed = by_row(functools.partial(_plan, mask=mask), canvas)
    ids_BL, length_B = jnp.asarray(canvas.ids_BL), jnp.asarray(canvas.length_B)
    w_B = None if canvas.guidance_B is None else jnp.asarray(canvas.guidance_B)

    def forward(state: _State) -> Predicted:
        h_BLD = guided_hidden(params, state.ids_BL, ~fixed.open_L, length_B, model, w_B)
        uniform_BL = by_row(_uniforms, canvas, state)
        return predict(h_BLD, params.head[...], uniform_BL, model.vocab_size, canvas.filters)

    def step(forward: Forward, state: _State) -> _State:
        if rule.sees:
            predicted = forward(state)
            change = by_row(functools.partial(_change, rule, model), canvas, fixed, state, predicted)
        else:
            change = by_row(functools.partial(_change, rule, model), canvas, fixed, state, None)
            needed = change.reveal_L.any() if skip_idle else jnp.bool(True)
            predicted = jax.lax.cond(needed, forward, lambda state: by_row(_nothing, state.ids_BL), state)
        return by_row(functools.partial(_advance, rule, mask), canvas, fixed, state, predicted, change)

    with product_precision(model):
        begin = by_row(_begin, ids_BL)
        if cache is TrunkCache.NONE:
            end = jax.lax.while_loop(_goes_on, functools.partial(step, forward), begin)
        else:
            trunk = Trunk(params, split_layers(params, model), model, ~fixed.open_L, length_B, w_B)
            end = _block_by_block(trunk, canvas, fixed, begin, step, cache, min(window, ids_BL.shape[1]))
        passes = 1 if w_B is None else 2
        return Filled(replicate(end.ids_BL), replicate(end.nats_BL), replicate(passes * end.forwards_B))


def _goes_on(state: _State) -> Array:
    return ~state.done_B.all()


def _block_by_block(
    trunk: Trunk,
    canvas: Canvas,
    fixed: _Fixed,
    begin: _State,
    step: Callable[[Forward, _State], _State],
    cache: TrunkCache,
    window: int,
) -> _State:
    """The last state of all rows, with a cache.

    The inner loop lasts until a row begins a block. The caches only change between two inner loops, so that no step
    copies them.

    Args:
        trunk: the model, and what stays the same about the rows.
        canvas: the rows.
        fixed: the plan of the rows.
        begin: the first state.
        step: the next state, from a forward pass and a state.
        cache: which keys and values are kept.
        window: tokens of the longest block.
    """
    length = begin.ids_BL.shape[1]

    def forward(kept: Kept, state: _State) -> Predicted:
        at_BW = block_positions((fixed.block_L == state.block_B[:, None]) & fixed.open_L, window)
        h_BWD = read_block(trunk, kept, state.ids_BL, at_BW, cache)
        uniform_BW = by_row(lambda u_L, at_W: u_L[at_W.clip(max=length - 1)], by_row(_uniforms, canvas, state), at_BW)
        predicted = predict(h_BWD, trunk.params.head[...], uniform_BW, trunk.spec.vocab_size, canvas.filters)
        return spread(predicted, at_BW, length)

    def block(carry: tuple[_State, Kept]) -> tuple[_State, Kept]:
        kept = refilled(trunk, carry[1], carry[0].ids_BL, carry[0].block_B)

        def within(state: _State) -> Array:
            return _goes_on(state) & ~((state.block_B != kept.block_B) & ~state.done_B).any()

        return jax.lax.while_loop(within, functools.partial(step, functools.partial(forward, kept)), carry[0]), kept

    return jax.lax.while_loop(lambda carry: _goes_on(carry[0]), block, (begin, nothing_kept(trunk)))[0]


def _plan(canvas: Canvas, mask: int) -> _Fixed:
    """The blocks of a row: its generated positions from left to right, `block_B` in each."""
    ids_L = jnp.asarray(canvas.ids_BL)
    open_L = (ids_L == mask) & (jnp.arange(len(ids_L)) < canvas.length_B)
    block_L = (jnp.cumsum(open_L) - 1) // jnp.asarray(canvas.block_B)
    return _Fixed(open_L, block_L, -(-open_L.sum() // jnp.asarray(canvas.block_B)))


def _begin(ids_L: Array) -> _State:
    zero = jnp.int32(0)
    return _State(ids_L, jnp.zeros(ids_L.shape), zero, zero, zero, zero, jnp.bool(False))


def _uniforms(canvas: Canvas, state: _State) -> Array:
    return jax.random.uniform(step_key(jnp.asarray(canvas.seed_B), state.total_B, TOKENS), state.ids_BL.shape)


def _nothing(ids_L: Array) -> Predicted:
    zero_L = jnp.zeros(ids_L.shape)
    return Predicted(ids_L, zero_L, zero_L, zero_L)


def _block_steps(canvas: Canvas, fixed: _Fixed, state: _State) -> Array:
    """Steps of the present block: the row's steps, shared equally, and the first blocks take the remainder."""
    steps = jnp.asarray(canvas.steps_B)
    return steps // fixed.blocks + (state.block_B < steps % fixed.blocks)


def _change(
    rule: Rule, model: ModelSpec, canvas: Canvas, fixed: _Fixed, state: _State, predicted: Predicted | None
) -> Change:
    here_L = fixed.open_L & (fixed.block_L == state.block_B) & ~state.done_B
    masked_L = state.ids_BL == model.vocab_size
    steps, bound = _block_steps(canvas, fixed, state), jnp.asarray(canvas.bound_B)
    shown_L, tolerance = here_L & ~masked_L, tolerance_nats(model)
    view = View(here_L & masked_L, shown_L, state.nats_BL, state.step_B, steps, bound, tolerance, predicted)
    return rule.choose(view, step_key(jnp.asarray(canvas.seed_B), state.total_B, POSITIONS))


def _advance(
    rule: Rule, mask: int, canvas: Canvas, fixed: _Fixed, state: _State, predicted: Predicted, change: Change
) -> _State:
    """The state of one row after a change, and whether its block or the row has ended."""
    ids_L = jnp.where(change.hide_L, mask, jnp.where(change.reveal_L, predicted.token, state.ids_BL))
    nats_L = jnp.where(change.reveal_L, predicted.nats, state.nats_BL)
    left_L = fixed.open_L & (ids_L == mask)
    step = state.step_B + 1
    last = step >= _block_steps(canvas, fixed, state)
    over = last if rule.timed else ~(left_L & (fixed.block_L == state.block_B)).any()
    block = state.block_B + over
    done = state.done_B | (block >= fixed.blocks)
    if not rule.timed:  # a token that may become MASK again does not end a row
        ids_L, done = _ended(ids_L, fixed.open_L, left_L, jnp.asarray(canvas.eos_B), done)
    read = change.reveal_L.any() if not rule.sees else ~state.done_B
    return _State(ids_L, nats_L, block, jnp.where(over, 0, step), state.total_B + 1, state.forwards_B + read, done)


def _ended(ids_L: Array, open_L: Array, left_L: Array, eos: Array, done: Array) -> tuple[Array, Array]:
    """A row ends early if no MASK stands before its first generated EOS. EOS fills the rest, which no text shows."""
    at_L = jnp.arange(len(ids_L))
    first = jnp.where(open_L & (ids_L == eos), at_L, len(ids_L)).min()
    ended = (first < len(ids_L)) & ~(left_L & (at_L < first)).any()
    return jnp.where(ended & open_L & (at_L > first), eos, ids_L), done | ended
