"""The loss of texts under a trained model: the NELBO by which every run is evaluated, or an exact likelihood.

An EOS follows each text, and the tokens are cut into rows, as in training. The last row may be shorter. The model reads
each row without the rows before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jax.sharding import Mesh

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.ratio import ratio
from mdm_jax.evaluate.stream import stream_nats
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import Likelihood, ModelSpec
from mdm_jax.spec.validation import require


@dataclass(frozen=True)
class TextLoss:
    """The NELBO of texts in nats; for an ARM, and for an exact method, the negative log-likelihood.

    `se_mc` is the standard error from the Monte Carlo draws, 0 for an exact value. `se_data` is the standard error from
    the choice of the texts, if each row is an independent sample; None for a single row. It contains the Monte Carlo
    error, because each row has its own draws. `tokens` counts the EOS after each text, which is scored too.
    `text_bytes` counts the texts as they were given.
    """

    nats: float
    se_mc: float
    tokens: int
    text_bytes: int
    se_data: float | None = None

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the nats per token. It compares only models that have the same tokenizer."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of UTF-8 text, which compares across tokenizers."""
        return self.nats / math.log(2) / self.text_bytes


def text_loss(
    params: Transformer,
    model: ModelSpec,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    seq_len: int,
    draws: int,
    mesh: Mesh,
    method: Likelihood = Likelihood.NELBO,
) -> TextLoss:
    """The NELBO of the texts together, or their exact negative log-likelihood.

    Args:
        params: weights of an MDM, or of an ARM whose last embedding row is the start token.
        model: shape of the model; its attention is causal for an ARM.
        tokenizer: the model's tokenizer.
        texts: texts, of which at least one is not empty.
        seq_len: tokens of a row.
        draws: Monte Carlo draws of an MDM's bound over all rows, at least 2. An ARM needs one pass.
        mesh: the ambient mesh.
        method: `nelbo`, or `left_to_right` or `confidence`; an ARM has only `left_to_right`, which is also its `nelbo`.

    Raises:
        ValueError: no text, too few draws, a method that the model's family does not have, or a loss that is not
            finite.
    """
    kinds = {type(text).__name__ for text in texts} if isinstance(texts, list | tuple) else {"no list"}
    require(kinds <= {"str"}, "texts: type", ", ".join(sorted(kinds)), "str, in a list or tuple")
    require(any(texts), "texts", texts, "at least one that is not empty")
    ids, _ = tokenizer.encode_batch(texts)
    rows = stream_nats(params, model, ids, seq_len, mesh, method, draws)
    per_token = ratio(rows.nats_RS, rows.tokens_S)
    text_bytes = sum(len(text.encode()) for text in texts)
    nats, se_mc, se_data = (x * len(ids) for x in (per_token.value, per_token.se_mc, per_token.se_data))
    return TextLoss(nats, se_mc, len(ids), text_bytes, None if math.isnan(se_data) else se_data)
