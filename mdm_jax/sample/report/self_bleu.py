"""Self-BLEU (Zhu et al. 2018, arXiv 1802.01886): the mean BLEU of each text against all the others, from 0 to 100.

The score of a text is that of sacrebleu's `sentence_score` (words of its tokenizer `13a`, orders 1 to 4, effective
order, exponential smoothing). The counts of the references are merged once for all texts, which takes the time of one
reading of the texts, where one call of sacrebleu a text takes the square of it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from mdm_jax.sample.report.metrics import ngrams
from mdm_jax.sample.report.resampling import Measured, jackknife

ORDERS = (1, 2, 3, 4)
Gram = tuple[str, ...]


class _Most(NamedTuple):
    """The greatest count of an n-gram in any text, that text, and the greatest count in the other texts."""

    first: int
    text: int
    second: int


def self_bleu(texts: Sequence[str], unit_S: Int[np.ndarray, "S"]) -> Measured:
    """The self-BLEU of the texts, with the error of a jackknife; 0 for a single text.

    Args:
        texts: the texts.
        unit_S: the unit of each text, see `resampling`.
    """
    words = [Tokenizer13a()(text.rstrip()).split() for text in texts]
    counts = [Counter(gram for order in ORDERS for gram in ngrams(one, order)) for one in words]

    def score(kept_S: np.ndarray) -> float:
        kept = kept_S.tolist()
        most, lengths = _merged(counts, kept), Counter(len(words[s]) for s in kept)
        if len(kept) < 2:
            return 0.0
        return float(np.mean([_bleu(counts[s], len(words[s]), s, most, lengths) for s in kept]))

    return jackknife(score, unit_S)


def _merged(counts: Sequence[Counter[Gram]], kept: Sequence[int]) -> dict[Gram, _Most]:
    found = dict[Gram, _Most]()
    for s in kept:
        for gram, count in counts[s].items():
            before = found.get(gram, _Most(0, -1, 0))
            if count > before.first:
                found[gram] = _Most(count, s, before.first)
            elif count > before.second:
                found[gram] = before._replace(second=count)
    return found


def _bleu(own: Counter[Gram], length: int, text: int, most: dict[Gram, _Most], lengths: Counter[int]) -> float:
    """The BLEU of one text against all others of which `most` and `lengths` were made, itself included there."""
    correct, total = [0] * len(ORDERS), [0] * len(ORDERS)
    for gram, count in own.items():
        best = most[gram]
        total[len(gram) - 1] += count
        correct[len(gram) - 1] += min(count, best.second if best.text == text else best.first)
    others = [other for other, texts in lengths.items() if other != length or texts > 1]
    closest = min(others, key=lambda other: (abs(other - length), other))
    return BLEU.compute_bleu(correct, total, length, closest, smooth_method="exp", effective_order=True).score
