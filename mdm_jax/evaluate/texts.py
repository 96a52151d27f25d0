"""The NELBO of texts under a trained model, by the evaluation that every run ends with.

An EOS follows each text, and the tokens are cut into rows, as in training. The last row may be shorter. The model reads
each row without the rows before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.nelbo import evaluate
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import (
    Attention,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    ObjectiveSpec,
    RunSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
)
from mdm_jax.spec.validation import require

DRAWS = 64
BATCH_TOKENS = 1 << 14
"""Tokens that the device reads at a time."""


@dataclass(frozen=True)
class TextNelbo:
    """The NELBO of texts in nats; for an ARM its negative log-likelihood.

    `se_mc` is the standard error from the Monte Carlo draws, 0 for an ARM. `tokens` counts the EOS after each text,
    which is scored too.
    """

    nats: float
    se_mc: float
    tokens: int
    text_bytes: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of UTF-8 text, which compares across tokenizers."""
        return self.nats / math.log(2) / self.text_bytes


def text_nelbo(
    params: Transformer,
    model: ModelSpec,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    seq_len: int,
    draws: int,
    mesh: Mesh,
) -> TextNelbo:
    """The NELBO of the texts together.

    Args:
        params: weights of an MDM, or of an ARM whose last embedding row is the start token.
        model: shape of the model; its attention is causal for an ARM.
        tokenizer: the model's tokenizer.
        texts: texts, of which at least one is not empty.
        seq_len: tokens of a row.
        draws: Monte Carlo draws of an MDM's bound over all rows, at least 2. An ARM needs one pass.
        mesh: the ambient mesh.

    Raises:
        ValueError: no text, or too few draws.
    """
    require(any(texts), "texts", texts, "at least one that is not empty")
    require(2 <= draws <= 1 << 20, "draws", draws, "from 2 (a standard error needs two) to 2^20")
    ids, _ = tokenizer.encode_batch(texts)
    whole = len(ids) // seq_len * seq_len
    rows_SL, end_1L = ids[:whole].reshape(-1, seq_len), ids[None, whole:]
    batch = max(2, BATCH_TOKENS // seq_len // 2 * 2)
    full = len(rows_SL) // batch * batch
    parts = [(rows_SL[:full], batch), (rows_SL[full:], len(rows_SL) - full), (end_1L, 1)]
    nats_R = np.sum([_nats(params, model, rows, size, draws, mesh) for rows, size in parts if rows.size], 0)
    se_mc = float(nats_R.std(ddof=1) / len(nats_R) ** 0.5) if len(nats_R) > 1 else 0.0
    return TextNelbo(float(nats_R.mean()), se_mc, len(ids), tokenizer.text_bytes(ids))


def _nats(
    params: Transformer, model: ModelSpec, rows_SL: Int[np.ndarray, "S L"], batch: int, draws: int, mesh: Mesh
) -> Float[np.ndarray, "R"]:
    """The nats of all rows in each draw, from whole batches; an odd batch is made even by taking each row twice."""
    copies = 1 + batch % 2
    taken_SL = np.concatenate([rows_SL] * copies).astype(np.int32)
    objective = ObjectiveSpec(Variant.NLL if model.attention is Attention.CAUSAL else Variant.COUNT)
    tokenizer = TokenizerSpec(TokenizerKind.SENTENCEPIECE, model.vocab_size)
    data = DataSpec(tokenizer=tokenizer, seq_len=max(2, rows_SL.shape[1]))
    evaluation = EvaluationSpec(taken_SL.size, draws, copies * batch)
    so_far: list[np.ndarray] = []
    run = RunSpec(model, objective, data, evaluation=evaluation)
    evaluate(params, run, taken_SL, mesh, finished=so_far.append)
    losses_RS = so_far[-1].astype(np.float64).reshape(-1, len(taken_SL))
    return losses_RS.mean(1) * rows_SL.size
