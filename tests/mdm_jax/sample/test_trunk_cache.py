"""Sampling with kept keys and values: where it equals full forward passes, and that rows stay independent.

The quick tests share shapes and settings, so that few programs are compiled.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from canvases import MASKED, canvas, eight_rows, fill

from mdm_jax.sample.canvas import Canvas, Filled
from mdm_jax.sample.denoise import denoise
from mdm_jax.sample.rules.confidence import PROBABILITY
from mdm_jax.sample.samplers import KINDS, Sampler
from mdm_jax.sample.trunk_cache import TrunkCache
from mdm_jax.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SHALLOW = dataclasses.replace(MASKED, vocab_size=12)
DEEP = dataclasses.replace(SHALLOW, n_layers=2)
V, L, B, WINDOW = SHALLOW.vocab_size, 8, 8, 4
BOTH = [TrunkCache.PREFIX, TrunkCache.DUAL]
BOUNDS = {Sampler.THRESHOLD: 0.4, Sampler.ENTROPY_BOUND: 2.0}


def cases(*quick: tuple[Sampler, TrunkCache]) -> list:
    """All samplers with both caches; those that are not named here are slow."""
    every = [(sampler, cache) for sampler in KINDS for cache in BOTH]
    return [pytest.param(*case, marks=[] if case in quick else [pytest.mark.slow]) for case in every]


def different_rows(sampler: Sampler) -> Canvas:
    """Rows that differ in everything. Blocks have up to WINDOW tokens, and those of rows with holes lie apart."""
    rows = eight_rows(V, BOUNDS.get(sampler, 0.5))
    return dataclasses.replace(rows, block_B=np.minimum(rows.block_B, WINDOW))


def guided(rows: Canvas) -> Canvas:
    return dataclasses.replace(rows, guidance_B=np.linspace(0, 1, B, dtype=np.float32))


def sampled(rows: Canvas, cache: TrunkCache, model: ModelSpec = DEEP, sampler=Sampler.CONFIDENCE, **options) -> Filled:
    return fill(rows, KINDS[sampler].rule, model, cache=cache, window=WINDOW, **options)


def assert_same(found: Filled, expected: Filled) -> None:
    np.testing.assert_array_equal(found.ids_BL, expected.ids_BL)
    np.testing.assert_array_equal(found.forwards_B, expected.forwards_B)
    np.testing.assert_allclose(found.nats_BL, expected.nats_BL, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "cache"), cases((Sampler.FIRST_HITTING, TrunkCache.PREFIX), (Sampler.FIRST_HITTING, TrunkCache.DUAL))
)
def test_a_model_of_one_layer_gives_the_text_of_full_forward_passes(sampler, cache):
    rows = guided(different_rows(sampler))
    full = sampled(rows, TrunkCache.NONE, SHALLOW, sampler)
    assert_same(sampled(rows, cache, SHALLOW, sampler), full)


@pytest.mark.parametrize("cache", BOTH)
@pytest.mark.parametrize(("steps", "block"), [(7, 1), (3, 3)], ids=["one token a block", "one step a block"])
def test_blocks_that_are_read_once_give_the_text_of_full_forward_passes(cache, steps, block):
    given = np.full((B, L), V)
    given[:, 5] = 7
    rows = canvas(given, steps, block, eos=3)
    assert_same(sampled(rows, cache), sampled(rows, TrunkCache.NONE))


def test_later_steps_of_a_block_read_old_keys_and_values():
    """The first token of each block agrees for as long as the rows do, and others do not."""
    rows = canvas(np.full((B, L), V), 8, WINDOW, temperature=0.0)
    full, prefix, dual = (sampled(rows, cache) for cache in (TrunkCache.NONE, *BOTH))
    same_BL = np.isclose(dual.nats_BL, full.nats_BL, atol=1e-4)
    assert (same_BL[:, :WINDOW].sum(1) >= 1).all()
    assert not same_BL.all()
    # Nothing is before the first block, so that the prefix cache is empty in it.
    np.testing.assert_allclose(prefix.nats_BL[:, :WINDOW], full.nats_BL[:, :WINDOW], atol=1e-4)
    assert not np.allclose(prefix.nats_BL[:, WINDOW:], full.nats_BL[:, WINDOW:], atol=1e-4)
    assert not np.allclose(prefix.nats_BL, dual.nats_BL, atol=1e-4)


@pytest.mark.parametrize(("sampler", "cache"), cases((Sampler.CONFIDENCE, TrunkCache.DUAL)))
def test_a_row_alone_equals_the_row_in_a_batch(sampler, cache):
    rows = different_rows(sampler)
    lengths = np.asarray(rows.length_B)
    together = sampled(rows, cache, sampler=sampler)
    assert not ((together.ids_BL == V) & (np.arange(L) < lengths[:, None])).any()
    for b in range(B):
        alone = sampled(jax.tree.map(lambda x, b=b: x[b : b + 1], rows), cache, sampler=sampler)
        np.testing.assert_array_equal(alone.ids_BL[0, : lengths[b]], together.ids_BL[b, : lengths[b]])
        np.testing.assert_allclose(alone.nats_BL[0], together.nats_BL[b], atol=1e-4)
        assert alone.forwards_B[0] == together.forwards_B[b]


def test_a_row_does_not_depend_on_the_others_of_its_batch():
    """The order of the rows, and a shorter or a longer window that another row needs, change no row."""
    rows, order = different_rows(Sampler.CONFIDENCE), np.array([3, 1, 0, 2, 6, 7, 7, 7])
    for cache in BOTH:
        together, moved = sampled(rows, cache), sampled(jax.tree.map(lambda x: x[order], rows), cache)
        assert_same(moved, Filled(*(x[order] for x in together)))


@pytest.mark.parametrize("cache", [pytest.param(TrunkCache.PREFIX, marks=pytest.mark.slow), TrunkCache.DUAL])
def test_a_mesh_does_not_change_the_rows(cache):
    rows = different_rows(Sampler.CONFIDENCE)
    assert_same(sampled(rows, cache, mesh=(2, 2)), sampled(rows, cache))


@pytest.mark.slow
@pytest.mark.parametrize("cache", BOTH)
def test_guidance_with_blocks_that_are_read_once(cache):
    rows = guided(canvas(np.where(np.arange(L) < 2, 5, np.full((B, L), V)), 6, 1))
    assert_same(sampled(rows, cache), sampled(rows, TrunkCache.NONE))


def test_settings_share_a_program_for_each_window():
    run = functools.partial(sampled, cache=TrunkCache.DUAL)
    run(canvas(np.full((B, L), V), 8, WINDOW))
    before = denoise._cache_size()  # type: ignore[attr-defined]
    wide = [run(canvas(np.full((B, L), V), steps, block)) for steps, block in ((4, 3), (8, 2), (8, 1))]
    assert denoise._cache_size() == before  # type: ignore[attr-defined]
    narrow = fill(canvas(np.full((B, L), V), 8, 2), PROBABILITY, DEEP, cache=TrunkCache.DUAL, window=2)
    assert_same(wide[1], narrow)
