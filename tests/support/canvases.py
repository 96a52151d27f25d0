"""Rows to fill, and a sampler of an MDM run on them."""

import dataclasses

import jax
import numpy as np
from jax.typing import DTypeLike
from tiny_runs import on_mesh, sharp_model

from mdm_jax.devices.sharding import place
from mdm_jax.sample.canvas import NO_EOS, WHOLE_ROW, Canvas, Filled, Filters
from mdm_jax.sample.denoise import denoise
from mdm_jax.sample.rules.rule import Rule
from mdm_jax.spec import ModelSpec

MASKED = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=3)
placed = jax.jit(place)


def canvas(
    ids_BL,
    steps: int = 1,
    block: int = WHOLE_ROW,
    bound: float = 0.0,
    temperature: float = 1.0,
    seed: int = 0,
    eos: int = NO_EOS,
    guidance: float | None = None,
    lengths=None,
) -> Canvas:
    """Rows with equal settings, and the seeds `seed`, `seed + 1`, ..."""
    ids_BL = np.asarray(ids_BL, np.int32)
    rows, length = ids_BL.shape

    def each(value: float, dtype: DTypeLike) -> np.ndarray:
        return np.full(rows, value, dtype)

    return Canvas(
        ids_BL,
        each(length, np.int32) if lengths is None else np.asarray(lengths, np.int32),
        seed + np.arange(rows, dtype=np.uint32),
        each(steps, np.int32),
        each(block, np.int32),
        each(bound, np.float32),
        each(eos, np.int32),
        Filters(each(temperature, np.float32)),
        None if guidance is None else each(guidance, np.float32),
    )


def eight_rows(vocab: int, bound: float) -> Canvas:
    """Rows of 8 tokens that differ in everything: prompts, holes, length, steps, blocks, temperature and seed."""
    draws = np.random.default_rng(1)
    ids_BL = np.where(draws.random((8, 8)) < 0.7, vocab, draws.integers(0, vocab, (8, 8)))
    ids_BL[:, 2] = vocab
    rows = canvas(ids_BL, bound=bound, lengths=[8, 3, 5, 8, 7, 8, 6, 4], eos=3)
    return dataclasses.replace(
        rows,
        seed_B=np.array([5, 1, 4, 1, 5, 9, 2, 6], np.uint32),
        steps_B=np.array([1, 2, 3, 2, 4, 2, 3, 1], np.int32),
        block_B=np.array([WHOLE_ROW, 2, 1, 3, WHOLE_ROW, 4, 2, WHOLE_ROW], np.int32),
        filters=dataclasses.replace(rows.filters, temperature_B=np.array([1, 0, 2, 1, 1, 0.5, 1, 1], np.float32)),
    )


def fill(rows: Canvas, rule: Rule, model: ModelSpec = MASKED, mesh: tuple[int, int] = (1, 1), **options) -> Filled:
    """The filled rows, as numpy arrays."""
    with on_mesh(*mesh):
        weights = placed(sharp_model(model, mesh[1]))
        return jax.device_get(denoise(weights, rows, model, rule, **options))


def assert_ended_at_first_eos(found: Filled, whole: Filled, eos: int) -> None:
    """Asserts that rows which EOS ends have the tokens of `whole`, which no EOS ends, up to the first EOS.

    EOS fills the rest. The model reads each token once, from left to right.
    """
    whole_SL = np.asarray(whole.ids_BL)
    length = whole_SL.shape[1]
    first_S = np.where((whole_SL == eos).any(1), (whole_SL == eos).argmax(1), length)
    assert len(set(first_S)) > 2
    for row, before, first in zip(found.ids_BL, whole_SL, first_S, strict=True):
        np.testing.assert_array_equal(row[:first], before[:first])
        assert (row[first:] == eos).all()
    np.testing.assert_array_equal(found.forwards_B, np.minimum(first_S + 1, length))
