"""A prepared corpus: batches for training, and the fixed rows of the evaluation.

The corpus is cut into rows of L tokens. A corpus of pairs has a row for each pair (see `pairs.py`). Training reads an
endless stream of rows. Row g of the stream is row `shuffle(epoch, g mod rows)` of the corpus, where `shuffle` is a
keyed permutation that is computed point by point. The batch at step s has the stream's rows s B to (s + 1) B - 1. So
every row of a batch is a pure function of (seed, step, row): resuming needs no iterator state, and each process reads
the rows of its own devices.

With `reverse_complement`, row g of the stream is its reverse complement if a hash of (seed, g) says so. The evaluation
reads its rows as they are.

Grain provides the permutation. Its datasets and readers are not used: reading a batch of 16 rows takes 70 us, which the
asynchronous dispatch of steps already hides.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import Int32, Integer

from mdm_jax.data.manifest import Manifest, check_matches, read_manifest
from mdm_jax.data.nucleotides import reverse_complement
from mdm_jax.data.pairs import PairRows, find_pairs, scored_ids
from mdm_jax.data.store import TokenStore, open_split
from mdm_jax.data.tokenizer import Tokenizer, load_tokenizer
from mdm_jax.spec import DataSpec
from mdm_jax.spec.validation import require

MOST_ROWS = (1 << 32) - 1
ROUNDS = 4


@functools.lru_cache(maxsize=64)
def _epoch_key(seed: int, epoch: int) -> int:
    """The 32-bit key of an epoch's permutation. It is a hash, so that no two pairs (seed, epoch) are related."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:4], "little")


def stream_row(position: int, rows: int, seed: int) -> int:
    """The corpus row at `position` of the endless shuffled stream. Each epoch is a permutation of the rows."""
    epoch, index = divmod(position, rows)
    return index_shuffle(index, max_index=rows - 1, seed=_epoch_key(seed, epoch), rounds=ROUNDS)


def reads_other_strand(position: int, seed: int) -> bool:
    """Whether the row at `position` of the stream is read from the other strand: one bit of a hash."""
    return hashlib.sha256(f"{seed}/{position}/strand".encode()).digest()[0] % 2 == 1


@dataclass(frozen=True)
class TextRows:
    """A split, cut into rows of `seq_len` tokens."""

    store: TokenStore
    seq_len: int

    def __len__(self) -> int:
        return len(self.store) // self.seq_len

    def row(self, index: int) -> Integer[np.ndarray, "L"]:
        """The tokens of a row."""
        return self.store.tokens(index * self.seq_len, self.seq_len)


@dataclass(frozen=True)
class TrainingRows:
    """The rows of all training batches, by step and row."""

    rows: TextRows | PairRows
    global_batch: int
    seed: int
    both_strands: bool = False
    """Whether half of the rows are replaced by their reverse complements."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a global batch, `(B, L)`."""
        return self.global_batch, self.rows.seq_len

    def read(self, step: int, first: int, last: int) -> Int32[np.ndarray, "b L"]:
        """Rows `first … last - 1` of the global batch at the 0-based `step`: `[last - first, L]`.

        Pairs are written as `mdm_jax/data/pairs.py` says.
        """
        batch = np.empty((last - first, self.rows.seq_len), np.int32)
        for i in range(last - first):
            position = step * self.global_batch + first + i
            batch[i] = self.rows.row(stream_row(position, len(self.rows), self.seed))
            if self.both_strands and reads_other_strand(position, self.seed):
                batch[i] = reverse_complement(batch[i])
        return batch


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus whose manifest matches the spec."""

    data: DataSpec
    manifest: Manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the shards.

        Raises:
            ValueError: the model file is absent or corrupt.
        """
        return load_tokenizer(self.data.directory, self.manifest)

    @functools.cached_property
    def train_pairs(self) -> PairRows:
        """The training pairs that fit into a row.

        Raises:
            ValueError: the shards are absent or corrupt, or no pair fits.
        """
        return self._pairs("train")

    @functools.cached_property
    def validation_pairs(self) -> PairRows:
        """The validation pairs that fit into a row; see `train_pairs`."""
        return self._pairs("validation")

    def _pairs(self, split: str) -> PairRows:
        store = open_split(self.data.directory, split, manifest=self.manifest)
        return find_pairs(store, self.manifest, self.data.seq_len, self.data.eos_to_end)

    @property
    def left_out_messages(self) -> tuple[str, ...]:
        """A message for each split with pairs that are longer than a row; text has none."""
        if not self.manifest.is_pairs:
            return ()
        found = {"training": self.train_pairs, "validation": self.validation_pairs}
        return tuple(
            f"{rows.left_out} of {rows.left_out + len(rows)} {name} pairs are left out: they have more than"
            f" {rows.seq_len} tokens (data.seq_len)"
            for name, rows in found.items()
            if rows.left_out
        )

    @property
    def unique_tokens(self) -> int:
        """Tokens of one epoch: the whole rows of the training split, or the rows of its pairs with their padding."""
        if self.manifest.is_pairs:
            return len(self.train_pairs) * self.data.seq_len
        return self.manifest.train.unique_tokens(self.data.seq_len)

    def text_bytes(self, rows_SL: Int32[np.ndarray, "S L"]) -> int:
        """The number of UTF-8 bytes of the text of validation rows. Of pairs, only scored tokens count.

        If the tokenizer does not keep the text, the rows have the bytes per token of the whole validation split, whose
        bytes were counted before the tokenizer read them.

        Raises:
            ValueError: the tokenizer's file is absent or corrupt.
        """
        tokenizer, ids = self.tokenizer, rows_SL.reshape(-1)
        if self.manifest.is_pairs:
            ids = scored_ids(rows_SL, self.manifest.vocab_size, self.data.score_prompt)
        if tokenizer.keeps_text:
            return tokenizer.text_bytes(ids)
        return round(self.manifest.validation.bytes_per_token * ids.size)

    def training_rows(self, global_batch: int, seed: int) -> TrainingRows:
        """The rows of the batches that a run trains on.

        Args:
            global_batch: B, sequences over all processes.
            seed: seed of the order of the rows.

        Raises:
            ValueError: the shards are absent, corrupt, or have no whole row. Damage in a large split is found later, by
                `TrainingRows.read`.
        """
        require(global_batch >= 1, "global_batch", global_batch, "at least 1")
        if self.manifest.is_pairs:
            return TrainingRows(self.train_pairs, global_batch, seed)
        store = open_split(self.data.directory, "train", manifest=self.manifest)
        length, bound = self.data.seq_len, f"at most the {len(store)} tokens of the train split"
        require(1 <= len(store) // length <= MOST_ROWS, "data.seq_len", length, bound)
        return TrainingRows(TextRows(store, length), global_batch, seed, self.data.reverse_complement)

    def evaluation_rows(self, eval_tokens: int) -> Int32[np.ndarray, "S L"]:
        """The first `eval_tokens` of the validation split, as S = eval_tokens // L rows.

        A pair counts as L tokens, with its padding.

        Raises:
            ValueError: the split has fewer tokens, they do not fill a row, or the shards are absent or corrupt.
        """
        length, pairs = self.data.seq_len, self.validation_pairs if self.manifest.is_pairs else None
        held = self.manifest.validation.tokens if pairs is None else len(pairs) * length
        require(eval_tokens >= length, "evaluation.eval_tokens", eval_tokens, f"at least data.seq_len = {length}")
        bound = f"at most {held}, the tokens of the validation split of {self.data.directory}"
        require(eval_tokens <= held, "evaluation.eval_tokens", eval_tokens, bound)
        count = eval_tokens // length
        if pairs is not None:
            return np.stack([pairs.row(index) for index in range(count)])
        store = open_split(self.data.directory, "validation", manifest=self.manifest)
        return store.tokens(0, count * length).reshape(count, length).astype(np.int32)


def open_corpus(data: DataSpec) -> Corpus:
    """The prepared corpus in `data.directory`.

    Raises:
        ValueError: there is none, its manifest is malformed, or its corpus, tokenizer, vocabulary or `data_hash` do not
            match the spec.
    """
    manifest = read_manifest(data.directory)
    check_matches(manifest, data)
    return Corpus(data, manifest)
