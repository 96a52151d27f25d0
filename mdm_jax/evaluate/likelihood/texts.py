"""The exact negative log-likelihood of texts, on the rows on which their NELBO is estimated."""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.likelihood.buckets import BATCH_TOKENS
from mdm_jax.evaluate.likelihood.rows import row_losses
from mdm_jax.evaluate.texts import TextNelbo
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import Likelihood, ModelSpec
from mdm_jax.spec.validation import require


def text_likelihood(
    params: Transformer,
    model: ModelSpec,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    seq_len: int,
    method: Likelihood,
    mesh: Mesh,
) -> TextNelbo:
    """The negative log-likelihood of the texts together, in nats. The arguments are those of `text_nelbo`.

    Args:
        params: the weights.
        model: shape of the model.
        tokenizer: the model's tokenizer.
        texts: texts, of which at least one is not empty.
        seq_len: tokens of a row.
        method: `left_to_right` or `confidence`; an ARM has only `left_to_right`.
        mesh: the ambient mesh.

    Raises:
        ValueError: no text, or the model's family does not have the method.
    """
    require(any(texts), "texts", texts, "at least one that is not empty")
    ids, _ = tokenizer.encode_batch(texts)
    whole = len(ids) // seq_len * seq_len
    nats = 0.0
    for rows_SL in (ids[:whole].reshape(-1, seq_len), ids[None, whole:]):
        if rows_SL.size:
            losses_S = row_losses(params, model, rows_SL, method, mesh, batch=max(1, BATCH_TOKENS // seq_len))
            nats += float(losses_S.sum(dtype=np.float64)) * rows_SL.shape[1]
    return TextNelbo(nats, 0.0, len(ids), sum(len(text.encode()) for text in texts))
