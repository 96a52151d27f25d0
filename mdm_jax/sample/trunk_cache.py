"""Kept keys and values for an MDM that is sampled block by block (Fast-dLLM, Wu et al. 2025, arXiv 2505.22618).

When a row begins a block, one pass over the whole row fills its cache. Each step of the block then reads a window of
positions:

| cache | window | kept |
|---|---|---|
| dual | the block's generated positions | all other positions |
| prefix | everything from the block's first generated position on | what is before it |

In holes that are filled, a block's positions may lie apart. Given tokens between them are kept by the dual cache, and
are read again with the prefix cache.

The kept keys and values belong to the row as it was at the begin of the block. So a text differs from that of full
forward passes, except where nothing has changed: in the first step of each block, with one step or one token a block,
and in a model of one layer that is not conditioned on time. A row has a cache of its own and fills it at its own
begins of blocks, so that its result does not depend on its batch.
"""

import enum
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.devices.sharding import BATCH, BATCH_HLK, by_row, over_shards
from mdm_jax.model.cached import Cache, empty_cache, fill_cache
from mdm_jax.model.guidance import guided
from mdm_jax.model.transformer import Block, Transformer
from mdm_jax.model.window import read_window
from mdm_jax.sample.draw import Predicted
from mdm_jax.spec import ModelSpec

PARTS = 4
"""Lengths of the prefix cache's window. The shortest one that has room for all rows of the batch is read."""


class TrunkCache(enum.StrEnum):
    """The positions whose keys and values are kept within a block of an MDM."""

    NONE = "none"
    PREFIX = "prefix"
    DUAL = "dual"


class Kept(NamedTuple):
    """The cache of each row, and the block at whose begin it was filled; -1 before the first one.

    Attributes:
        present: keys and values of the row.
        hidden: keys and values of the row without its given tokens; None without guidance.
        block_B: the block.
    """

    present: Cache
    hidden: Cache | None
    block_B: Array


class Trunk(NamedTuple):
    """The model, and what stays the same about the rows.

    Attributes:
        params: the MDM's weights.
        layers: its layers, from `split_layers`.
        spec: shape of the model.
        given_BL: the tokens that guidance hides.
        length_B: tokens of each row.
        guidance_B: w; None reads each row once.
    """

    params: Transformer
    layers: tuple[Block, ...]
    spec: ModelSpec
    given_BL: Array
    length_B: Array
    guidance_B: Array | None

    def hide(self, ids_BL: Array) -> Array:
        """The rows with MASK in place of every given token."""
        return jnp.where(self.given_BL, self.spec.vocab_size, ids_BL)


def nothing_kept(trunk: Trunk) -> Kept:
    """Caches that no block has filled."""
    empty = empty_cache(trunk.spec, *trunk.given_BL.shape)
    block_B = by_row(lambda length: jnp.full_like(length, -1), trunk.length_B)
    return Kept(empty, None if trunk.guidance_B is None else empty, block_B)


def refilled(trunk: Trunk, kept: Kept, ids_BL: Int[Array, "B L"], block_B: Int[Array, "B"]) -> Kept:
    """The caches after a pass over all rows, which changes those of the rows that have begun another block."""
    changed_B = kept.block_B != block_B

    def update(tokens_BL: Array, old: Cache) -> Cache:
        new = fill_cache(trunk.params, trunk.layers, tokens_BL, trunk.spec, trunk.length_B)
        choose = over_shards(jax.vmap(jnp.where), (BATCH, BATCH_HLK, BATCH_HLK), BATCH_HLK)
        return jax.tree.map(lambda fresh, present: choose(changed_B, fresh, present), new, old)

    hidden = None if kept.hidden is None else update(trunk.hide(ids_BL), kept.hidden)
    return Kept(update(ids_BL, kept.present), hidden, block_B)


def block_positions(here_BL: Bool[Array, "B L"], window: int) -> Int[Array, "B W"]:
    """The positions of each row's block, from left to right; L is padding.

    Args:
        here_BL: whether a position belongs to the block. At most `window` of a row do.
        window: W.
    """
    length = here_BL.shape[1]
    return by_row(lambda here_L: jnp.nonzero(here_L, size=window, fill_value=length)[0].astype(jnp.int32), here_BL)


def read_block(
    trunk: Trunk, kept: Kept, ids_BL: Int[Array, "B L"], position_BW: Int[Array, "B W"], cache: TrunkCache
) -> Float[Array, "B W D"]:
    """Hidden states at the positions of each row's block; they mean nothing at its padding.

    Args:
        trunk: the model and the rows.
        kept: the caches, filled at the begin of the blocks.
        ids_BL: the rows as they are now.
        position_BW: from `block_positions`.
        cache: which positions the caches serve.
    """
    if cache is TrunkCache.DUAL:
        return _read(trunk, kept, ids_BL, position_BW)
    length, window = ids_BL.shape[1], position_BW.shape[1]
    sizes = sorted({max(window, -(-length * part // PARTS)) for part in range(1, PARTS + 1)})
    first_B = position_BW[:, 0]  # L in a row that has ended
    needed = jnp.where(first_B < length, trunk.length_B - first_B, 0).max()

    def suffix(size: int, ids_BL: Array) -> Array:
        at_BS = by_row(functools.partial(_following, size, length), first_B, trunk.length_B)
        h_BSD = _read(trunk, kept, ids_BL, at_BS, suffix=True)
        place_BW = jnp.clip(position_BW - first_B[:, None], 0, size - 1)
        return by_row(lambda h_SD, place_W: h_SD[place_W], h_BSD, place_BW)

    choices: list[Callable[[Array], Array]] = [functools.partial(suffix, size) for size in sizes]
    return jax.lax.switch(jnp.searchsorted(jnp.array(sizes), needed), choices, ids_BL)


def _following(size: int, length: int, first: Array, tokens: Array) -> Array:
    """The positions from the first one up to the row's last token, and L after it."""
    at_S = first + jnp.arange(size, dtype=jnp.int32)
    return jnp.where(at_S < tokens, at_S, length)


def _read(trunk: Trunk, kept: Kept, ids_BL: Array, position_BW: Array, suffix: bool = False) -> Array:
    def read(tokens_BL: Array, cache: Cache) -> Array:
        rows = (tokens_BL, position_BW, cache, trunk.spec, trunk.length_B)
        return read_window(trunk.params, trunk.layers, *rows, suffix=suffix)

    h_BWD = read(ids_BL, kept.present)
    if trunk.guidance_B is None or kept.hidden is None:
        return h_BWD
    return guided(h_BWD, read(trunk.hide(ids_BL), kept.hidden), trunk.guidance_B)


def spread(predicted: Predicted, position_BW: Int[Array, "B W"], length: int) -> Predicted:
    """Predictions of a block at their positions in whole rows; 0 elsewhere."""

    def row(found_W: Array, at_W: Array) -> Array:
        return jnp.zeros(length, found_W.dtype).at[at_W].set(found_W, mode="drop")

    return jax.tree.map(lambda found_BW: by_row(row, found_BW, position_BW), predicted)
