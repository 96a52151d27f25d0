"""Batches for training, and the fixed rows of the evaluation.

The corpus is cut into rows of L tokens. Row g of the endless stream that training reads is row `shuffle(epoch, g mod
rows)` of the corpus, where the shuffle is a keyed permutation computed point by point; the batch at step s holds
stream rows s B to (s + 1) B. Every row of a batch is thus a pure function of (seed, step, row): resuming needs no
iterator state, and each process reads the rows that its own devices hold, whichever these are.

Grain gives the permutation. Its datasets and readers are not used: a batch of 16 rows takes 70 us from memory, and the
asynchronous dispatch of steps hides that already.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import Int32

from mdm_jax.data.store import TokenStore, open_split
from mdm_jax.manifest import Manifest, check_matches, read_manifest
from mdm_jax.spec import DataSpec
from mdm_jax.spec.validation import require

MOST_ROWS = (1 << 32) - 1
ROUNDS = 4


@functools.lru_cache(maxsize=64)
def _epoch_key(seed: int, epoch: int) -> int:
    """The 32-bit key of an epoch's permutation: a hash, so that seed 1's first epoch is not seed 0's second."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:4], "little")


def stream_row(position: int, rows: int, seed: int) -> int:
    """The corpus row that the endless shuffled stream holds at `position`; each epoch is a permutation of the rows."""
    epoch, index = divmod(position, rows)
    return index_shuffle(index, max_index=rows - 1, seed=_epoch_key(seed, epoch), rounds=ROUNDS)


@dataclass(frozen=True)
class TrainingRows:
    """The rows of every training batch, addressed by step and row."""

    store: TokenStore
    seq_len: int
    global_batch: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a global batch, `(B, L)`."""
        return self.global_batch, self.seq_len

    def read(self, step: int, first: int, last: int) -> Int32[np.ndarray, "b L"]:
        """Tokens of rows `first … last - 1` of the global batch at the 0-based `step`, shape [last - first, L]."""
        rows = len(self.store) // self.seq_len
        batch = np.empty((last - first, self.seq_len), np.int32)
        for i in range(last - first):
            row = stream_row(step * self.global_batch + first + i, rows, self.seed)
            batch[i] = self.store.tokens(row * self.seq_len, self.seq_len)
        return batch


def open_manifest(data: DataSpec) -> Manifest:
    """The manifest of `data.directory`, which is what the spec asks for.

    Raises:
        ValueError: there is none, it is malformed, or the corpus, tokenizer, vocabulary or `data_hash` differ.
    """
    manifest = read_manifest(data.directory)
    check_matches(manifest, data)
    return manifest


def training_rows(data: DataSpec, global_batch: int, seed: int, verify: bool | None = None) -> TrainingRows:
    """The rows of the batches that a run trains on.

    Args:
        data: what to read; `data.directory` holds the shards.
        global_batch: B, sequences over all processes.
        seed: of the row order.
        verify: when contents are checked, see `open_split`.

    Raises:
        ValueError: the shards are absent, corrupt, not the spec's, or hold no whole row. A block that is checked when
            it is first read is refused by `TrainingRows.read`.
    """
    require(global_batch >= 1, "global_batch", global_batch, "at least 1")
    store = open_split(data.directory, "train", verify, open_manifest(data))
    rows = len(store) // data.seq_len
    require(1 <= rows <= MOST_ROWS, "data.seq_len", data.seq_len, f"at most the {len(store)} tokens of the train split")
    return TrainingRows(store, data.seq_len, global_batch, seed)


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
