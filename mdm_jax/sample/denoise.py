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
from jax.typing import ArrayLike
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


Denoising = tuple[_State, Kept | None]
"""Rows that are being filled, with the keys and values that are kept within their blocks."""
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
    loop = _Loop(params, split_over_data(canvas), model, rule, skip_idle, cache, window)
    return loop.filled(loop.after(loop.begin(), None))


@functools.partial(jax.jit, static_argnames=("model", "rule", "cache", "window"))
def begin_denoising(
    params: Transformer, canvas: Canvas, model: ModelSpec, rule: Rule, cache: TrunkCache, window: int
) -> Denoising:
    """The rows before their first step, for `denoise_on`; the arguments are those of `denoise`."""
    return _Loop(params, split_over_data(canvas), model, rule, True, cache, window).begin()


@functools.partial(jax.jit, static_argnames=("model", "rule", "cache", "window"))
def denoise_on(
    params: Transformer,
    canvas: Canvas,
    state: Denoising,
    steps: ArrayLike,
    model: ModelSpec,
    rule: Rule,
    cache: TrunkCache,
    window: int,
) -> tuple[Denoising, Filled]:
    """The rows some steps later, for a reader of what is between; all steps together give what `denoise` gives.

    Args:
        params: the MDM's weights.
        canvas: the rows, as in `denoise`.
        state: from `begin_denoising`, or from this function. Once all rows are done it stays as it is.
        steps: steps to make, at least 1.
        model: shape of the model.
        rule: the sampler.
        cache: which keys and values are kept within a block.
        window: tokens of the longest block; only a cache needs it.
    """
    loop = _Loop(params, split_over_data(canvas), model, rule, True, cache, window)
    after = loop.after(state, state[0].total_B.max() + steps)
    return after, loop.filled(after)


class _Loop:
    """The loop over steps, made under `jit`. Its arguments are those of `denoise`; the rows are split over devices."""

    def __init__(
        self,
        params: Transformer,
        canvas: Canvas,
        model: ModelSpec,
        rule: Rule,
        skip_idle: bool,
        cache: TrunkCache,
        window: int,
    ) -> None:
        self.canvas, self.model, self.rule, self.skip_idle, self.cache = canvas, model, rule, skip_idle, cache
        self.fixed: _Fixed = by_row(functools.partial(_plan, mask=model.vocab_size), canvas)
        self.window = min(window, jnp.shape(canvas.ids_BL)[1])
        length_B = jnp.asarray(canvas.length_B)
        w_B = None if canvas.guidance_B is None else jnp.asarray(canvas.guidance_B)
        layers = () if cache is TrunkCache.NONE else split_layers(params, model)
        self.trunk = Trunk(params, layers, model, ~self.fixed.open_L, length_B, w_B)

    def begin(self) -> Denoising:
        """The state before the first step."""
        state = by_row(_begin, jnp.asarray(self.canvas.ids_BL))
        return state, None if self.cache is TrunkCache.NONE else nothing_kept(self.trunk)

    def after(self, begin: Denoising, until: Array | None) -> Denoising:
        """The state when all rows are done, or after `until` steps since the first one."""

        def goes_on(state: _State) -> Array:
            unfinished = ~state.done_B.all()
            return unfinished if until is None else unfinished & (state.total_B.max() < until)

        with product_precision(self.model):
            state, kept = begin
            if kept is None:
                return jax.lax.while_loop(goes_on, functools.partial(self._step, self._forward), state), None
            return self._block_by_block(state, kept, goes_on)

    def filled(self, state: Denoising) -> Filled:
        """The rows of a state."""
        rows, passes = state[0], 1 if self.canvas.guidance_B is None else 2
        return Filled(replicate(rows.ids_BL), replicate(rows.nats_BL), replicate(passes * rows.forwards_B))

    def _step(self, forward: Forward, state: _State) -> _State:
        rule, change = self.rule, functools.partial(_change, self.rule, self.model)
        if rule.sees:
            predicted = forward(state)
            changed = by_row(change, self.canvas, self.fixed, state, predicted)
        else:
            changed = by_row(change, self.canvas, self.fixed, state, None)
            needed = changed.reveal_L.any() if self.skip_idle else jnp.bool(True)
            predicted = jax.lax.cond(needed, forward, lambda state: by_row(_nothing, state.ids_BL), state)
        advance = functools.partial(_advance, rule, self.model.vocab_size)
        return by_row(advance, self.canvas, self.fixed, state, predicted, changed)

    def _forward(self, state: _State) -> Predicted:
        """The predictions of whole rows."""
        trunk = self.trunk
        w_B = trunk.guidance_B
        h_BLD = guided_hidden(trunk.params, state.ids_BL, trunk.given_BL, trunk.length_B, self.model, w_B)
        return self._predict(h_BLD, by_row(_uniforms, self.canvas, state))

    def _forward_of_blocks(self, kept: Kept, state: _State) -> Predicted:
        """The predictions of the present block of each row; 0 elsewhere."""
        fixed, length = self.fixed, state.ids_BL.shape[1]
        at_BW = block_positions((fixed.block_L == state.block_B[:, None]) & fixed.open_L, self.window)
        h_BWD = read_block(self.trunk, kept, state.ids_BL, at_BW, self.cache)
        uniform_BL = by_row(_uniforms, self.canvas, state)
        uniform_BW = by_row(lambda u_L, at_W: u_L[at_W.clip(max=length - 1)], uniform_BL, at_BW)
        return spread(self._predict(h_BWD, uniform_BW), at_BW, length)

    def _predict(self, h_BXD: Array, uniform_BX: Array) -> Predicted:
        head_DV, filters = self.trunk.params.head[...], self.canvas.filters
        return predict(h_BXD, head_DV, uniform_BX, self.model.vocab_size, filters)

    def _block_by_block(self, state: _State, kept: Kept, goes_on: Callable[[_State], Array]) -> Denoising:
        """The last state. The inner loop lasts until a row begins a block, so that the caches stay as they are."""

        def block(carry: tuple[_State, Kept]) -> tuple[_State, Kept]:
            kept = refilled(self.trunk, carry[1], carry[0].ids_BL, carry[0].block_B)

            def within(state: _State) -> Array:
                return goes_on(state) & ~((state.block_B != kept.block_B) & ~state.done_B).any()

            step = functools.partial(self._step, functools.partial(self._forward_of_blocks, kept))
            return jax.lax.while_loop(within, step, carry[0]), kept

        return jax.lax.while_loop(lambda carry: goes_on(carry[0]), block, (state, kept))


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
