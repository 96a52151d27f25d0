"""The nats of each text of all slices under one model. What is scored is kept, so that an interrupted work goes on.

All slices are one stream of tokens, which is cut into rows as in training. Each slice begins with a new row: the last
row of a slice is filled with the slice's first tokens, whose nats are not counted. The stream is scored in chunks of
equal shape, so that a program is compiled once. A row that has several texts gives each its share of the row's tokens.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64

from mdm_jax.evaluate.perplexity.blocks import nats_of_blocks
from mdm_jax.evaluate.stream import BATCH_TOKENS, Progress, RowNats
from mdm_jax.files.storage import Path, is_file, write_atomic
from mdm_jax.spec import Family, Likelihood
from mdm_jax.tasks.temporal.dated import Dated
from mdm_jax.trained.model import Model

CHUNK_BATCHES = 8
"""Batches of rows that are scored, and then kept, at a time."""


@dataclass(frozen=True)
class SliceNats:
    """The nats of each text of a slice: in each draw for all texts together, and the draws' mean for each text.

    `tokens` counts the tokens of all texts, EOS included.
    """

    nats_D: Float64[np.ndarray, "D"]
    totals_R: Float64[np.ndarray, "R"]
    tokens: int

    @property
    def se_mc(self) -> float:
        """The standard error of all nats together from the Monte Carlo draws; 0 for an exact likelihood."""
        draws = len(self.totals_R)
        return float(self.totals_R.std(ddof=1)) / draws**0.5 if draws > 1 else 0.0


@dataclass(frozen=True)
class _Stream:
    """The tokens of all slices, and for each slice its rows and the tokens of each text, filler last."""

    ids: Int32[np.ndarray, "tokens"]
    rows: tuple[tuple[int, int], ...]
    tokens: tuple[Int64[np.ndarray, "_"], ...]


def score_slices(
    model: Model,
    slices: Sequence[Sequence[Dated]],
    method: Likelihood,
    draws: int,
    folder: Path,
    progress: Progress = lambda share: None,
) -> list[SliceNats]:
    """The nats of the texts of each slice.

    Args:
        model: a model of either family; an ARM has one likelihood, whatever `method` says.
        slices: the texts of each slice, at least one each.
        method: `nelbo`, or an exact likelihood that the family has.
        draws: Monte Carlo draws of an MDM's NELBO, at least 2.
        folder: the folder of finished chunks; those of the same model, texts, method and draws are used again.
        progress: called after each chunk.

    Raises:
        ValueError: see `Model.row_nats` and `Model.tokenizer`.
        OSError: the disk is full or not writable.
    """
    stream = _stream(model, slices)
    own = Likelihood.NELBO if model.family is Family.ARM else method
    chunk = CHUNK_BATCHES * max(2, BATCH_TOKENS // model.seq_len // 2 * 2) * model.seq_len
    parts, key = [], _key(model, own, draws)
    for start in range(0, len(stream.ids), chunk):
        part = stream.ids[start : start + chunk]
        parts.append(_kept_or_scored(model, part, own, draws, folder, key))
        progress((start + len(part)) / len(stream.ids))
    nats_RS = np.concatenate(parts, 1)
    own_rows = zip(stream.rows, stream.tokens, strict=True)
    return [_of_slice(nats_RS[:, first:end], tokens_D, model.seq_len) for (first, end), tokens_D in own_rows]


def _stream(model: Model, slices: Sequence[Sequence[Dated]]) -> _Stream:
    ids, rows, tokens, row = list[np.ndarray](), list[tuple[int, int]](), list[np.ndarray](), 0
    for texts in slices:
        own, counts_D = model.tokenizer.encode_batch([text.text for text in texts])
        missing = -len(own) % model.seq_len
        ids.append(np.resize(own, len(own) + missing))  # np.resize repeats from the start
        count = len(ids[-1]) // model.seq_len
        rows.append((row, row + count))
        tokens.append(np.append(counts_D, missing))
        row += count
    return _Stream(np.concatenate(ids), tuple(rows), tuple(tokens))


def _key(model: Model, method: Likelihood, draws: int) -> bytes:
    used_draws = draws if model.family is Family.MDM and method is Likelihood.NELBO else 1
    return f"{model.fingerprint} {model.seq_len} {method.value} {used_draws}".encode()


def _kept_or_scored(
    model: Model, ids: np.ndarray, method: Likelihood, draws: int, folder: Path, key: bytes
) -> Float64[np.ndarray, "R S"]:
    """The nats of a chunk's rows, read from its file if that is whole."""
    name = hashlib.sha256(key + ids.astype("<i4").tobytes()).hexdigest()[:32]
    path, rows = folder / f"{name}.npy", len(ids) // model.seq_len
    if is_file(path):
        try:
            kept = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            if kept.ndim == 2 and kept.shape[1] == rows and kept.dtype == np.float64 and np.isfinite(kept).all():
                return kept
        except (ValueError, EOFError):  # not the file that was written; it is scored again
            pass
    nats_RS = model.row_nats(ids, method, draws).nats_RS
    file = io.BytesIO()
    np.save(file, nats_RS, allow_pickle=False)
    write_atomic(path, file.getvalue())
    return nats_RS


def _of_slice(nats_RS: np.ndarray, tokens_D: Int64[np.ndarray, "D"], seq_len: int) -> SliceNats:
    """The nats of a slice's texts; the filler, which is the last of `tokens_D`, is left out."""
    rows = RowNats(nats_RS, np.full(nats_RS.shape[1], seq_len, np.int64))
    nats_RD = nats_of_blocks(rows, tokens_D, np.arange(1, len(tokens_D) + 1))[:, :-1]
    return SliceNats(nats_RD.mean(0), nats_RD.sum(1), int(tokens_D[:-1].sum()))
