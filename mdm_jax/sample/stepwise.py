"""One row after each of its steps, for somebody who watches it. Its last state is what `fill_rows` gives."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mdm_jax.model.transformer import Transformer
from mdm_jax.sample.canvas import Canvas, Filled
from mdm_jax.sample.causal import begin_continuing, continue_on
from mdm_jax.sample.denoise import begin_denoising, denoise_on
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.rows import FilledRow, Row, cache_window, canvas_of
from mdm_jax.spec import Attention, ModelSpec


def fill_stepwise(
    params: Transformer, model: ModelSpec, row: Row, options: SamplingOptions, length: int, eos_id: int | None = None
) -> Iterator[FilledRow]:
    """The row after each of its steps, with V where no token is yet. `seconds` has no time of the reader.

    Args:
        params: weights of an MDM, or of an ARM whose last embedding row is the start token.
        model: shape of the model; its attention is causal for an ARM.
        row: the row.
        options: the sampler and its settings, which the family has.
        length: padded length, at least that of the row.
        eos_id: the token that ends the row; None if no token ends it.
    """
    canvas, seconds = canvas_of([row], length, model.vocab_size, options, eos_id), 0.0
    begin, on = _steps(params, canvas, model, options)
    begun = time.perf_counter()
    state, kept, done = begin(), len(row.ids), False
    while not done:
        state, filled = on(state)
        filled, done = jax.device_get(filled), bool(np.asarray(state[0].done_B).all())
        seconds += time.perf_counter() - begun
        yield FilledRow(filled.ids_BL[0, :kept], filled.nats_BL[0, :kept], int(filled.forwards_B[0]), seconds, 1)
        begun = time.perf_counter()


def _steps(
    params: Transformer, canvas: Canvas, model: ModelSpec, options: SamplingOptions
) -> tuple[Callable[[], Any], Callable[[Any], tuple[Any, Filled]]]:
    """What makes the first state of the rows, and what makes the state and the rows after one more step."""
    begin, on, how = begin_continuing, continue_on, dict[str, Any](model=model)
    if model.attention is not Attention.CAUSAL:
        begin, on = begin_denoising, denoise_on
        how |= {"rule": options.kind.rule, "cache": options.trunk_cache, "window": cache_window(options)}
    one_more = functools.partial(on, params, canvas, steps=np.int32(1), **how)
    return functools.partial(begin, params, canvas, **how), one_more
