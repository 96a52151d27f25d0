"""Rows of batches are a pure function of (seed, step, row), and epochs are permutations."""

import dataclasses

import numpy as np
import pytest
from small_corpus import prepared

from mdm_jax.data.corpus import open_corpus, stream_row
from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.store import open_split
from mdm_jax.spec import DataSpec

BATCH = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataSpec:
    return prepared(tmp_path_factory.mktemp("corpus"))


def take(data, steps, start=0):
    """The batches of steps `start` to `steps - 1`, read from the beginning of a new process's reader."""
    rows = open_corpus(data).training_rows(BATCH, seed=3)
    return np.stack([rows.read(step, 0, BATCH) for step in range(start, steps)])


def steps_of_an_epoch(data):
    return open_corpus(data).unique_tokens // data.seq_len / BATCH


def test_a_batch_does_not_depend_on_where_reading_started(data):
    steps = int(2.5 * steps_of_an_epoch(data))
    whole = take(data, steps)
    for start in (1, 7, steps - 3):
        np.testing.assert_array_equal(take(data, steps, start), whole[start:])


def test_rows_read_apart_are_those_of_the_batch(data):
    steps = int(1.5 * steps_of_an_epoch(data))
    rows, whole = open_corpus(data).training_rows(BATCH, seed=3), take(data, steps)
    assert rows.shape == (BATCH, data.seq_len)
    for step in reversed(range(steps)):
        for first, last in ((5, 8), (0, 1), (1, 5)):
            np.testing.assert_array_equal(rows.read(step, first, last), whole[step, first:last])


def test_every_epoch_gives_each_row_once_in_another_order(data):
    store = open_split(data.directory, "train")
    rows = len(store) // data.seq_len
    assert rows % BATCH, "the test wants epochs that end inside a batch"
    corpus = store.tokens(0, rows * data.seq_len).reshape(rows, data.seq_len)
    stream = take(data, 3 * rows // BATCH + 1).reshape(-1, data.seq_len)
    epochs = [stream[e * rows : (e + 1) * rows] for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(corpus, axis=0))
        assert sorted(map(bytes, epoch)) == sorted(map(bytes, corpus.astype(np.int32)))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


@pytest.mark.parametrize("rows", [1, 2, 3, 255, 1000])
def test_the_shuffle_is_a_permutation_for_any_number_of_rows(rows):
    for epoch in range(3):
        positions = range(epoch * rows, (epoch + 1) * rows)
        assert sorted(stream_row(i, rows, seed=5) for i in positions) == list(range(rows))


def test_seeds_do_not_share_epochs():
    orders = {(s, e): tuple(stream_row(e * 50 + i, 50, s) for i in range(50)) for s in range(4) for e in range(4)}
    assert len(set(orders.values())) == len(orders)


def test_the_shuffle_mixes_positions():
    rows = 4096
    order = np.array([stream_row(i, rows, seed=0) for i in range(rows)])
    assert abs(np.corrcoef(order, np.arange(rows))[0, 1]) < 5 / np.sqrt(rows)
    neighbours = np.abs(np.diff(order)) < rows / 100
    assert neighbours.mean() < 0.04, "two random rows lie within a hundredth of the corpus 2% of the time"


def test_the_order_of_rows_is_the_recorded_one():
    golden = [574, 748, 142, 773, 694, 474, 855]
    now = [stream_row(i, 1000, seed=0) for i in (0, 1, 2, 3, 999, 1000, 123456)]
    assert now == golden, (
        "the row order changed: runs that are resumed would read other batches, and new ones would not be comparable"
        " with old ones. If grain's index_shuffle changed, pin the older grain; renew the list only in a major version"
    )


def test_batches_hold_int32_tokens_below_the_vocabulary(data):
    batch = take(data, 1)[0]
    assert batch.shape == (BATCH, data.seq_len)
    assert batch.dtype == np.int32
    assert 0 <= batch.min() <= batch.max() < 257


def test_a_batch_larger_than_the_corpus_runs_over_several_epochs(data):
    rows = open_corpus(data).unique_tokens // data.seq_len
    size = 2 * rows + 2
    batch = open_corpus(data).training_rows(size, seed=0).read(0, 0, size)
    counts = np.unique(batch, axis=0, return_counts=True)[1]
    assert batch.shape[0] == size
    assert counts.min() >= 2


def test_evaluation_rows_are_the_first_tokens_of_the_validation_split(data):
    store = open_split(data.directory, "validation")
    rows = open_corpus(data).evaluation_rows(100)
    assert rows.shape == (6, 16)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows.ravel(), store.tokens(0, 96))


def test_train_and_validation_text_do_not_overlap(data):
    eos = 256
    documents = {}
    for split in ("train", "validation"):
        store = open_split(data.directory, split)
        tokens = np.asarray(store.tokens(0, len(store)))
        assert tokens[-1] == eos
        documents[split] = {bytes(part) for part in np.split(tokens, np.flatnonzero(tokens == eos) + 1) if len(part)}
    assert len(documents["train"]) + len(documents["validation"]) == 300
    assert not documents["train"] & documents["validation"]


def test_bytes_per_token_counts_the_end_of_each_document(data):
    validation = read_manifest(data.directory).validation
    expected = (validation.tokens - validation.documents) / validation.tokens
    assert validation.bytes_per_token == pytest.approx(expected)


def test_too_few_validation_tokens_are_counted_out(data):
    held = read_manifest(data.directory).validation.tokens
    with pytest.raises(ValueError, match=f"eval_tokens = {held + 1}: must be at most {held}, the tokens"):
        open_corpus(data).evaluation_rows(held + 1)
    with pytest.raises(ValueError, match=r"at least data\.seq_len = 16"):
        open_corpus(data).evaluation_rows(15)


def test_rows_longer_than_the_corpus_are_refused(data):
    long = dataclasses.replace(data, seq_len=1 << 20)
    with pytest.raises(ValueError, match=r"data\.seq_len = 1048576: must be at most the \d+ tokens"):
        open_corpus(long).training_rows(BATCH, 0)


def test_a_run_refuses_other_data_than_it_was_planned_for(data):
    planned = dataclasses.replace(data, data_hash=read_manifest(data.directory).data_hash)
    open_corpus(planned).training_rows(BATCH, 0)
    other = dataclasses.replace(data, data_hash="0" * 64)
    for read in (lambda: open_corpus(other).training_rows(BATCH, 0), lambda: open_corpus(other).evaluation_rows(64)):
        with pytest.raises(ValueError, match="is not the planned 000000000000"):
            read()
