"""Batches for training, and the fixed rows of the evaluation.

The corpus is cut into rows of L tokens. Row g of the endless stream that training reads is row `shuffle(epoch, g mod
rows)` of the corpus, where the shuffle is a keyed permutation computed point by point; the batch at step s holds
stream rows s B to (s + 1) B. It is thus a pure function of (seed, step): resuming needs no iterator state, and P
processes that each take contiguous rows read together exactly what one would.
"""

import functools
import hashlib
from collections.abc import Iterator

import grain
import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import Int32

from mdm_jax.data.store import TokenStore, open_split
from mdm_jax.manifest import Manifest, check_matches, read_manifest
from mdm_jax.spec import DataSpec
from mdm_jax.tree import require

MOST_STEPS = 1 << 31
MOST_ROWS = (1 << 32) - 1
ROUNDS = 4
INLINE = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
"""A batch of 16 rows takes 70 us from memory; handing it over from a reader thread takes 30 us more and hides nothing
that asynchronous dispatch does not."""


@functools.lru_cache(maxsize=64)
def _epoch_key(seed: int, epoch: int) -> int:
    """The 32-bit key of an epoch's permutation: a hash, so that seed 1's first epoch is not seed 0's second."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:4], "little")


def stream_row(position: int, rows: int, seed: int) -> int:
    """The corpus row that the endless shuffled stream holds at `position`; each epoch is a permutation of the rows."""
    epoch, index = divmod(position, rows)
    return index_shuffle(index, max_index=rows - 1, seed=_epoch_key(seed, epoch), rounds=ROUNDS)


class BatchSource:
    """A grain `RandomAccessDataSource` whose element s is this process's rows of the global batch at step s.

    Elements are whole batches because grain's cost is per element: rows as elements took longer than a small model's
    step.
    """

    def __init__(
        self, store: TokenStore, seq_len: int, global_batch: int, seed: int, process_index: int, process_count: int
    ) -> None:
        self._store, self._seq_len, self._seed = store, seq_len, seed
        self._rows, self._global_batch = len(store) // seq_len, global_batch
        self._count = global_batch // process_count
        self._first = process_index * self._count

    def __len__(self) -> int:
        return MOST_STEPS

    def __getitem__(self, index: int) -> Int32[np.ndarray, "b L"]:
        """Tokens at step `index`, shape [global_batch / process_count, L]."""
        batch = np.empty((self._count, self._seq_len), np.int32)
        first = int(index) * self._global_batch + self._first
        for i in range(self._count):
            row = stream_row(first + i, self._rows, self._seed)
            batch[i] = self._store.tokens(row * self._seq_len, self._seq_len)
        return batch


def open_manifest(data: DataSpec) -> Manifest:
    """The manifest of `data.directory`, which is what the spec asks for.

    Raises:
        ValueError: there is none, it is malformed, or the corpus, tokenizer, vocabulary or `data_hash` differ.
    """
    manifest = read_manifest(data.directory)
    check_matches(manifest, data)
    return manifest


def train_batches(
    data: DataSpec,
    global_batch: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    verify: bool | None = None,
) -> Iterator[Int32[np.ndarray, "b L"]]:
    """Batches of steps `start_step`, `start_step + 1`, …: rows `p b` to `(p + 1) b` of each global batch, b = B / P.

    Args:
        data: what to read; `data.directory` holds the shards.
        global_batch: B, sequences over all processes.
        seed: of the row order.
        start_step: the first step given.
        process_index: p.
        process_count: P, which divides B.
        verify: when contents are checked, see `open_split`.

    Raises:
        ValueError: the shards are absent, corrupt, not the spec's, or hold no whole row. Raised by the call; by `next`
            for a block that is checked when it is first read.
    """
    even = global_batch >= 1 and process_count >= 1 and global_batch % process_count == 0
    require(even, "global_batch", global_batch, f"a multiple of the {process_count} processes")
    require(0 <= process_index < process_count, "process_index", process_index, f"below {process_count}")
    require(0 <= start_step < MOST_STEPS, "start_step", start_step, f"from 0 to {MOST_STEPS - 1}")
    store = open_split(data.directory, "train", verify, open_manifest(data))
    rows = len(store) // data.seq_len
    require(1 <= rows <= MOST_ROWS, "data.seq_len", data.seq_len, f"at most the {len(store)} tokens of the train split")
    source = BatchSource(store, data.seq_len, global_batch, seed, process_index, process_count)
    batches = grain.MapDataset.source(source)[start_step:]
    return iter(batches.to_iter_dataset(INLINE))


def evaluation_rows(data: DataSpec, eval_tokens: int, verify: bool | None = None) -> Int32[np.ndarray, "S L"]:
    """The first `eval_tokens` of the validation split as S = eval_tokens // L rows: the same for every run of a sweep.

    Raises:
        ValueError: the split has fewer, or they fill no row; or the shards are absent, corrupt or not the spec's.
    """
    length = data.seq_len
    require(eval_tokens >= length, "evaluation.eval_tokens", eval_tokens, f"at least data.seq_len = {length}")
    manifest = open_manifest(data)
    held = manifest.validation.tokens
    bound = f"at most {held}, the tokens of the validation split of {data.directory}"
    require(eval_tokens <= held, "evaluation.eval_tokens", eval_tokens, bound)
    store = open_split(data.directory, "validation", verify, manifest)
    count = eval_tokens // length
    return store.tokens(0, count * length).reshape(count, length).astype(np.int32)


def validation_bytes_per_token(data: DataSpec) -> float:
    """Bytes of UTF-8 text a validation token stands for: bits per byte = nats per token / ln 2 / this."""
    return open_manifest(data).validation.bytes_per_token


def unique_tokens(data: DataSpec) -> int:
    """Tokens of one epoch: the whole rows of the train split."""
    return open_manifest(data).train.unique_tokens(data.seq_len)
