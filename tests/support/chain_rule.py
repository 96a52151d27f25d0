"""The log-likelihood of a target from the logits of whole rows: the slow reference of what the harness scores."""

import numpy as np
from enumerated import log_softmax

from mdm_jax.spec import Family
from mdm_jax.trained.model import Model

EOS = 256


def chain_rule(model: Model, prompt: bytes, target: bytes, guidance: float = 0.0) -> float:
    """Nats of the target under a model of bytes, one forward pass for each token.

    An EOS stands in place of an empty prompt, and a long prompt is cut on its left to fit a row.
    """
    room, start = model.seq_len - len(target), model.spec.vocab_size
    seen = ([*prompt] or [EOS])[-room:] if room else []
    row_L, first, total = np.array([*seen, *target]), len(seen), 0.0
    for i in range(first, len(row_L)):
        input_L = np.where(np.arange(len(row_L)) < i, row_L, start)
        if model.family is Family.ARM:
            input_L = np.concatenate([[start], row_L[:-1]])
        prompt_1L = np.arange(len(row_L))[None] < first
        logits_1LV = model.logits(input_L[None], guidance, prompt_1L if guidance else None)
        total += float(log_softmax(logits_1LV)[0, i, row_L[i]])
    return total
