"""How varied texts are: entropies, distinct-n and repetition, each with its error over texts.

- Sequence entropy: the mean over texts of the entropy of a text's own tokens, nats. It is low for texts that repeat
  themselves (Zheng et al. 2024, arXiv 2409.02908).
- Unigram entropy: the entropy of the tokens of all texts together, nats. It is low for texts that use few tokens.
- Distinct-n: the share of different n-grams among all n-grams of all texts. It is low for texts that are alike (Li et
  al. 2016, arXiv 1510.03055).
- Repetition: the share of 4-grams that stand earlier in the same text. It is high for texts that repeat themselves
  (seq-rep-4, Welleck et al. 2020, arXiv 1908.04319).

All of them change with the number and the length of the texts, so only equally many texts of one length are compared.
A text of no token has the entropy 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float64, Int, Integer

from mdm_jax.sample.report.resampling import Measured, bootstrap_weights, jackknife, of_draws, ratio_draws

ORDERS = (1, 2, 3, 4)
REPEATED = 4
DRAWS_AT_ONCE = 100
"""Bootstrap samples whose counts of tokens are in memory at a time."""

Ids = Sequence[Integer[np.ndarray, "_"]]
T = TypeVar("T")


@dataclass(frozen=True)
class Variety:
    """The numbers of the module's list; `distinct` has orders 1 to 4."""

    sequence_entropy: Measured
    unigram_entropy: Measured
    distinct: tuple[Measured, ...]
    repetition: Measured


def variety(ids: Ids, unit_S: Int[np.ndarray, "S"]) -> Variety:
    """The numbers of texts.

    Args:
        ids: the tokens of each text, without EOS; at least one text has a token.
        unit_S: the unit of each text, see `resampling`.
    """
    return Variety(
        sequence_entropy=sequence_entropy(ids, unit_S),
        unigram_entropy=unigram_entropy(ids, unit_S),
        distinct=tuple(distinct(ids, order, unit_S) for order in ORDERS),
        repetition=repetition(ids, REPEATED, unit_S),
    )


def entropy_nats(counts_NV: Integer[np.ndarray, "N V"]) -> Float64[np.ndarray, "N"]:
    """The entropy of each row of counts, nats; 0 for a row without counts."""
    total_N1 = np.maximum(counts_NV.sum(1, keepdims=True), 1)
    share_NV = counts_NV / total_N1
    log_NV = np.log(share_NV, out=np.zeros_like(share_NV), where=share_NV > 0)
    return 0.0 - (share_NV * log_NV).sum(1)


def text_entropies(ids: Ids) -> Float64[np.ndarray, "S"]:
    """The entropy of each text's own tokens, nats; 0 for a text without tokens."""
    return np.array([entropy_nats(np.unique(one, return_counts=True)[1][None])[0] for one in ids])


def sequence_entropy(ids: Ids, unit_S: Int[np.ndarray, "S"]) -> Measured:
    """The mean over texts of the entropy of a text's own tokens, nats; the error is a bootstrap's."""
    entropy_S = text_entropies(ids)
    return of_draws(float(entropy_S.mean()), ratio_draws(entropy_S, np.ones(len(ids)), unit_S), unit_S)


def unigram_entropy(ids: Ids, unit_S: Int[np.ndarray, "S"]) -> Measured:
    """The entropy of the tokens of all texts together, nats; the error is a bootstrap's."""
    _, place = np.unique(np.concatenate(list(ids)), return_inverse=True)
    counts_SV = np.zeros((len(ids), int(place.max()) + 1), np.int64)
    np.add.at(counts_SV, (np.repeat(np.arange(len(ids)), [len(one) for one in ids]), place), 1)
    weights_RS = bootstrap_weights(unit_S)
    parts = np.split(weights_RS, range(DRAWS_AT_ONCE, len(weights_RS), DRAWS_AT_ONCE))
    draws_R = np.concatenate([entropy_nats(weights @ counts_SV) for weights in parts])
    return of_draws(float(entropy_nats(counts_SV.sum(0, keepdims=True))[0]), draws_R, unit_S)


def ngrams(tokens: Sequence[T], order: int) -> list[tuple[T, ...]]:
    """The n-grams of a text in their order, with repeats."""
    return list(zip(*(tokens[i:] for i in range(order)), strict=False))


def distinct(ids: Ids, order: int, unit_S: Int[np.ndarray, "S"]) -> Measured:
    """The share of different n-grams among all n-grams of all texts, 0 without any; the error is a jackknife's."""
    grams = [ngrams(one.tolist(), order) for one in ids]
    sets = [set(one) for one in grams]

    def share(kept_S: np.ndarray) -> float:
        total = sum(len(grams[s]) for s in kept_S)
        return len(set().union(*(sets[s] for s in kept_S))) / total if total else 0.0

    return jackknife(share, unit_S)


def repetition(ids: Ids, order: int, unit_S: Int[np.ndarray, "S"]) -> Measured:
    """The share of n-grams that stand earlier in the same text, 0 without any; the error is a bootstrap's."""
    grams = [ngrams(one.tolist(), order) for one in ids]
    total_S = np.array([len(one) for one in grams])
    again_S = np.array([len(one) - len(set(one)) for one in grams])
    if not total_S.any():
        return Measured(0.0, 0.0)
    return of_draws(float(again_S.sum() / total_S.sum()), ratio_draws(again_S, total_S, unit_S), unit_S)
