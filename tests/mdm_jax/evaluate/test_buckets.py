"""Work of any lengths is cut into batches of at most six shapes, each item in one of them."""

import numpy as np
import pytest

from mdm_jax.evaluate.likelihood import buckets
from mdm_jax.evaluate.likelihood.buckets import Batches, padded_length, power_of_two, results


@pytest.mark.parametrize("seq_len", [1, 3, 16, 17, 100, 2048, 5000])
def test_every_length_has_one_of_six_and_none_is_cut(seq_len):
    padded = [padded_length(length, seq_len) for length in range(1, seq_len + 1)]
    assert all(p >= length for length, p in enumerate(padded, 1))
    assert len(set(padded)) <= 6
    assert padded == sorted(padded)
    assert padded[-1] == seq_len
    assert all(p <= max(2 * length + 1, 2 * 16, -(-seq_len // 32)) for length, p in enumerate(padded, 1))


def test_the_least_power_of_two():
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("rows", [1, 2])
def test_each_item_is_in_a_batch_of_its_length(shards, rows, monkeypatch):
    monkeypatch.setattr(buckets, "BATCH_TOKENS", 640)
    random = np.random.default_rng(0)
    length_I, steps_I = random.integers(1, 161, 300), random.integers(1, 50, 300)
    batches, seen, shapes = Batches(160, shards, rows), set(), set()
    for length, items in batches.cut(length_I, steps_I):
        assert (length_I[items] <= length).all()
        assert (np.diff(steps_I[items]) >= 0).all()
        assert len(items) % shards == 0
        assert len(items) * rows * length <= 640 + shards * rows * length
        shapes.add((length, len(items)))
        seen |= set(items.tolist())
    assert seen == set(range(300))
    assert len(shapes) == len({length for length, _ in shapes}) <= 6
    again = {(length, len(items)) for length, items in batches.cut(length_I[:5])}
    assert again <= shapes


def test_little_work_makes_small_batches():
    assert [len(items) for _, items in Batches(2048, 1).cut(np.array([10, 20, 30]))] == [4]
    assert [items.tolist() for _, items in Batches(2048, 1).cut(np.array([10, 20, 30]))] == [[0, 1, 2, 2]]


def test_results_come_in_order_and_late():
    begun = []

    def dispatched():
        for i in range(6):
            begun.append(i)
            yield np.array([i]), (np.float32(i),)

    ahead = [(items[0], found[0], len(begun)) for items, found in results(dispatched())]
    assert [item for item, *_ in ahead] == [found for _, found, _ in ahead] == list(range(6))
    assert [count for *_, count in ahead] == [3, 4, 5, 6, 6, 6]
