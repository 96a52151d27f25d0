"""Rows of any lengths, sampled in batches of few shapes."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32

from mdm_jax.model.transformer import Transformer
from mdm_jax.sample.canvas import NO_EOS, WHOLE_ROW, Canvas, Filters
from mdm_jax.sample.causal import continue_rows
from mdm_jax.sample.denoise import denoise
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.trunk_cache import TrunkCache
from mdm_jax.spec import Attention, ModelSpec

MOST_SEED = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Row:
    """A row to fill.

    Attributes:
        ids: tokens; V stands at the positions that are generated, at least one.
        seed: the row's seed, from 0 to MOST_SEED.
        steps: the row's steps.
    """

    ids: Int32[np.ndarray, "tokens"]
    seed: int
    steps: int


@dataclass(frozen=True, eq=False)
class FilledRow:
    """A filled row.

    Attributes:
        ids: the tokens.
        nats: nats of each generated token when it was drawn; 0 for given tokens.
        forwards: forward passes that the row needed.
        seconds: time of the batch in which the row was filled, with compilation if it was the first of its shape.
        batch: rows of that batch.
    """

    ids: Int32[np.ndarray, "tokens"]
    nats: Float32[np.ndarray, "tokens"]
    forwards: int
    seconds: float
    batch: int


def fill_rows(
    params: Transformer,
    model: ModelSpec,
    rows: Sequence[Row],
    options: SamplingOptions,
    batches: Iterable[tuple[int, Int[np.ndarray, "B"]]],
    eos_id: int | None = None,
) -> list[FilledRow]:
    """The filled rows, in their order.

    Args:
        params: weights of an MDM, or of an ARM whose last embedding row is the start token.
        model: shape of the model; its attention is causal for an ARM.
        rows: the rows.
        options: the sampler and its settings, which the family has.
        batches: the padded length and the rows of each batch. A row may be repeated to fill a batch.
        eos_id: the token that ends a row; None if no token ends it.
    """
    found: dict[int, FilledRow] = {}
    for length, items in batches:
        canvas = canvas_of([rows[i] for i in items], length, model.vocab_size, options, eos_id)
        begun = time.perf_counter()
        if model.attention is Attention.CAUSAL:
            filled = continue_rows(params, canvas, model)
        else:
            cache, window = options.trunk_cache, cache_window(options)
            filled = denoise(params, canvas, model, options.kind.rule, cache=cache, window=window)
        filled = jax.device_get(filled)
        seconds, distinct = time.perf_counter() - begun, len(set(items.tolist()))
        for b, i in enumerate(items.tolist()):
            kept, forwards = len(rows[i].ids), int(filled.forwards_B[b])
            found[i] = FilledRow(filled.ids_BL[b, :kept], filled.nats_BL[b, :kept], forwards, seconds, distinct)
    return [found[i] for i in range(len(rows))]


def cache_window(options: SamplingOptions) -> int:
    """Tokens of the longest block, which a cache needs to know; 0 without a cache."""
    return 0 if options.trunk_cache is TrunkCache.NONE else options.block or 0


def canvas_of(rows: Sequence[Row], length: int, mask: int, options: SamplingOptions, eos_id: int | None) -> Canvas:
    """The rows as arrays of one padded length, each with the settings of `options`; see `fill_rows`."""
    ids_BL = np.full((len(rows), length), mask, np.int32)
    for ids_L, row in zip(ids_BL, rows, strict=True):
        ids_L[: len(row.ids)] = row.ids

    def each(value: float | int, dtype: type) -> np.ndarray:
        return np.full(len(rows), value, dtype)

    top_k_B = each(options.top_k, np.int32) if options.top_k else None
    top_p_B = each(options.top_p, np.float32) if options.top_p < 1 else None
    bound = options.bound if options.bound is not None else options.kind.bound
    return Canvas(
        ids_BL,
        np.array([len(row.ids) for row in rows], np.int32),
        np.array([row.seed for row in rows], np.uint32),
        np.array([row.steps for row in rows], np.int32),
        each(options.block or WHOLE_ROW, np.int32),
        each(bound or 0.0, np.float32),
        each(NO_EOS if eos_id is None else eos_id, np.int32),
        Filters(each(options.temperature, np.float32), top_k_B, top_p_B),
        each(options.guidance, np.float32) if options.guidance else None,
    )
