"""Nats of the rows of a stream of tokens, which is cut into rows as in training. The last row may be shorter.

The NELBO is the one that every run ends with (`nelbo.py`): all rows together are drawn R times. The exact likelihoods
(`likelihood/rows.py`) have one value a row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64, Int64, Integer

from mdm_jax.evaluate.draws import DRAWS, check_draws
from mdm_jax.evaluate.likelihood.encoding import checked_ids
from mdm_jax.evaluate.likelihood.rows import ARM_METHODS, MDM_METHODS, check_method, row_losses
from mdm_jax.evaluate.nelbo import evaluate, in_row_order
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import (
    Attention,
    DataSpec,
    EvaluationSpec,
    Likelihood,
    ModelSpec,
    ObjectiveSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
)
from mdm_jax.spec.validation import require

BATCH_TOKENS = 1 << 14
"""Tokens that the device reads at a time."""

Progress = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1. It may raise an exception, which ends the work."""


@dataclass(frozen=True)
class RowNats:
    """Nats of each row in each draw, and the tokens of each row. R is 1 for an exact likelihood."""

    nats_RS: Float64[np.ndarray, "R S"]
    tokens_S: Int64[np.ndarray, "S"]


def stream_nats(
    params: Transformer,
    model: ModelSpec,
    ids: Integer[np.ndarray, "tokens"],
    seq_len: int,
    mesh: Mesh,
    method: Likelihood = Likelihood.NELBO,
    draws: int = DRAWS,
    progress: Progress = lambda share: None,
) -> RowNats:
    """The nats of the rows of `ids`, each read without the rows before it.

    Args:
        params: weights of an MDM, or of an ARM whose last embedding row is the start token.
        model: shape of the model; its attention is causal for an ARM.
        ids: tokens in 0..V-1, at least one.
        seq_len: tokens of a row.
        mesh: the ambient mesh.
        method: `nelbo`, or an exact likelihood that the family has. An ARM's NELBO is its likelihood.
        draws: Monte Carlo draws of an MDM's NELBO over all rows, at least 2; not used otherwise.
        progress: called after each part of the work.

    Raises:
        ValueError: no token, an unknown id, too few draws, a method that the family does not have, or a loss that is
            not finite.
    """
    ids = checked_ids(ids, "tokens", model.vocab_size)
    require(len(ids) > 0, "tokens", len(ids), "at least one")
    check_draws("draws", draws)
    check_method(method, ARM_METHODS if model.attention is Attention.CAUSAL else (Likelihood.NELBO, *MDM_METHODS))
    whole = len(ids) // seq_len * seq_len
    rows_SL, end_1L = ids[:whole].reshape(-1, seq_len), ids[None, whole:]
    batch = max(2, BATCH_TOKENS // seq_len // 2 * 2)
    full = len(rows_SL) // batch * batch if method is Likelihood.NELBO else len(rows_SL)
    parts = [(rows_SL[:full], batch), (rows_SL[full:], len(rows_SL) - full), (end_1L, 1)]
    nats, done = [], 0
    for rows, size in parts:
        if rows.size:

            def note(share: float, before: int = done, here: int = rows.size) -> None:
                progress((before + share * here) / len(ids))

            if method is Likelihood.NELBO:
                nats.append(_nelbo_nats(params, model, rows, size, draws, mesh, note))
            else:
                nats.append(_exact_nats(params, model, rows, min(batch, len(rows)), method, mesh, note))
            done += rows.size
    tokens = [np.full(len(rows), rows.shape[1], np.int64) for rows, _ in parts if rows.size]
    nats_RS = np.concatenate(nats, 1)
    total = float(nats_RS.sum())
    require(math.isfinite(total), "nats", total, "finite: the weights have NaN or are too large")
    return RowNats(nats_RS, np.concatenate(tokens))


def _nelbo_nats(
    params: Transformer,
    model: ModelSpec,
    rows_SL: np.ndarray,
    batch: int,
    draws: int,
    mesh: Mesh,
    progress: Progress,
) -> np.ndarray:
    """The nats of each row in each draw `[R, S]`, from whole batches.

    An odd batch is made even by taking each row twice; the row then has the mean of both.
    """
    copies = 1 + batch % 2
    taken_SL = np.concatenate([rows_SL] * copies)
    objective = ObjectiveSpec(Variant.NLL if model.attention is Attention.CAUSAL else Variant.COUNT)
    tokenizer = TokenizerSpec(TokenizerKind.SENTENCEPIECE, model.vocab_size)
    data = DataSpec(tokenizer=tokenizer, seq_len=max(2, rows_SL.shape[1]))
    run = RunSpec(model, objective, data, evaluation=EvaluationSpec(taken_SL.size, draws, copies * batch))
    total = len(taken_SL) * (1 if model.attention is Attention.CAUSAL else draws)
    so_far: list[np.ndarray] = []

    def finished(losses: np.ndarray) -> None:
        so_far[:] = [losses]
        progress(len(losses) / total)

    evaluate(params, run, taken_SL, mesh, finished=finished)
    losses_RS = in_row_order(so_far[0].reshape(-1, len(taken_SL)))
    return losses_RS.reshape(len(losses_RS), copies, len(rows_SL)).mean(1) * rows_SL.shape[1]


def _exact_nats(
    params: Transformer,
    model: ModelSpec,
    rows_SL: np.ndarray,
    batch: int,
    method: Likelihood,
    mesh: Mesh,
    progress: Progress,
) -> np.ndarray:
    """The nats of each row, `[1, S]`."""

    def finished(losses: np.ndarray) -> None:
        progress(len(losses) / len(rows_SL))

    losses_S = row_losses(params, model, rows_SL, method, mesh, finished=finished, batch=batch)
    return losses_S[None].astype(np.float64) * rows_SL.shape[1]
