"""Pairs of prompt and target ids, and the rows that hold them."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, Int32

from mdm_jax.devices.sharding import row_shards
from mdm_jax.evaluate.likelihood.buckets import Batches
from mdm_jax.evaluate.likelihood.reading import Rows
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class Pair:
    """The ids of a prompt, which may be empty, and of a target, which is not."""

    prompt: Int32[np.ndarray, "prompt"]
    target: Int32[np.ndarray, "target"]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.target)

    @functools.cached_property
    def digest(self) -> int:
        """A number of 64 bits that depends only on the ids."""
        content = [len(self.prompt).to_bytes(8, "little"), self.prompt.tobytes(), self.target.tobytes()]
        return int.from_bytes(hashlib.blake2b(b"".join(content), digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Requests:
    """Pairs to score, and the model that scores them.

    Attributes:
        params: the weights.
        model: shape of the model.
        pairs: the pairs, none longer than `seq_len`.
        seq_len: tokens of the model's longest row.
        mesh: the ambient mesh.
        guidance: w of the unsupervised classifier-free guidance; None for the model itself.
    """

    params: Transformer
    model: ModelSpec
    pairs: Sequence[Pair]
    seq_len: int
    mesh: Mesh
    guidance: float | None = None

    @functools.cached_property
    def length_P(self) -> Int[np.ndarray, "P"]:
        """Tokens of each pair."""
        return np.array([pair.length for pair in self.pairs], np.int32)

    @functools.cached_property
    def target_P(self) -> Int[np.ndarray, "P"]:
        """Tokens of each target."""
        return np.array([len(pair.target) for pair in self.pairs], np.int32)

    def batches(self, rows: int = 1) -> Batches:
        """Batches of items that have this many rows each."""
        return Batches(self.seq_len, row_shards(self.mesh), rows)

    def rows(self, pair_B: Int[np.ndarray, "B"], length: int) -> Rows:
        """The rows of these pairs, padded to a length."""
        ids_BL = np.zeros((len(pair_B), length), np.int32)
        for row_L, pair in zip(ids_BL, (self.pairs[p] for p in pair_B), strict=True):
            row_L[: pair.length] = np.concatenate([pair.prompt, pair.target])
        prompt_B = self.length_P[pair_B] - self.target_P[pair_B]
        return Rows(ids_BL, self.length_P[pair_B], prompt_B)
