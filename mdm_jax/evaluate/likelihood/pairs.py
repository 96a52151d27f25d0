"""The log-likelihood of targets given their prompts, by any of the estimators, for many pairs together."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from mdm_jax.evaluate.draws import check_draws
from mdm_jax.evaluate.likelihood.any_order import MOST_TOKENS, forwards
from mdm_jax.evaluate.likelihood.buckets import results
from mdm_jax.evaluate.likelihood.confidence import nothing_revealed, reveal
from mdm_jax.evaluate.likelihood.left_to_right import causal_nats, next_token_nats
from mdm_jax.evaluate.likelihood.monte_carlo import bounds
from mdm_jax.evaluate.likelihood.requests import Requests
from mdm_jax.spec import Attention, Likelihood
from mdm_jax.spec.validation import require


@dataclass(frozen=True)
class PairScore:
    """The log-likelihood of one target given its prompt.

    Attributes:
        loglikelihood: nats, not above 0; for `nelbo` and `any_order` a lower bound of the log-likelihood.
        se_mc: standard error of the Monte Carlo draws in nats; 0 if the score has no such error.
        tokens: tokens of the target.
        is_greedy: whether greedy generation gives the target; None if it was not asked for.
        method: the estimator. An ARM has only `left_to_right`.
        guidance: w of the unsupervised classifier-free guidance.
        draws: Monte Carlo draws that were used; 0 if there were none.
        is_likelihood: False with guidance, whose probabilities are those of no model of the data.
    """

    loglikelihood: float
    se_mc: float
    tokens: int
    is_greedy: bool | None
    method: Likelihood
    guidance: float
    draws: int
    is_likelihood: bool


@dataclass(frozen=True)
class Options:
    """What `score` computes; see `mdm_jax.trained.model.Model.loglikelihood`.

    Raises:
        ValueError: a number is out of range.
    """

    method: Likelihood = Likelihood.NELBO
    draws: int = 128
    max_se: float = 0.0
    seed: int = 0
    greedy: bool = False

    def __post_init__(self) -> None:
        check_draws("draws", self.draws)
        number = isinstance(self.max_se, int | float | np.floating) and 0 <= self.max_se < math.inf
        require(number, "max_se", self.max_se, "0, or a standard error in nats")
        whole = isinstance(self.seed, int | np.integer) and 0 <= self.seed < 1 << 63
        require(whole, "seed", self.seed, "from 0 to 2^63 - 1, a whole number")


def known_method(method: str) -> Likelihood:
    """The method of this name.

    Raises:
        ValueError: there is none; the message lists all.
    """
    require(method in list(Likelihood), "method", str(method), f"one of {', '.join(Likelihood)}")
    return Likelihood(method)


def score(requests: Requests, options: Options) -> list[PairScore]:
    """The scores of the pairs, in their order. A pair's score does not depend on the other pairs.

    A target with no more sets of tokens than draws gets the exact value of its `nelbo`.

    Raises:
        ValueError: a target is too long for `any_order`, the model's family does not have the method, or a score is
            not finite.
    """
    if not requests.pairs:
        return []
    causal = requests.model.attention is Attention.CAUSAL
    method = _method_of_family(options.method, causal)
    if method is Likelihood.ANY_ORDER:
        _check_lengths(requests)
    scores_P = _scored(requests, dataclasses.replace(options, method=method), causal)
    finite_P = np.isfinite([found.loglikelihood for found in scores_P])
    worst = int(finite_P.argmin())
    bound = "finite: the weights have NaN or are too large"
    require(bool(finite_P.all()), f"pairs[{worst}]: log-likelihood", scores_P[worst].loglikelihood, bound)
    return scores_P


def _method_of_family(method: Likelihood, causal: bool) -> Likelihood:
    arm = (Likelihood.NELBO, Likelihood.LEFT_TO_RIGHT)
    require(not causal or method in arm, "method", str(method), f"one of {', '.join(arm)} for an ARM")
    return Likelihood.LEFT_TO_RIGHT if causal else method


def _scored(requests: Requests, options: Options, causal: bool) -> list[PairScore]:
    count, method = len(requests.pairs), options.method
    nats_P, se_P, draws_P, greedy_P = np.zeros(count), np.zeros(count), np.zeros(count, int), None
    if causal:
        nats_P, greedy_P = _causal(requests)
    elif method is Likelihood.CONFIDENCE or options.greedy:
        nats_P, greedy_P = _confidence(requests)
    if method is Likelihood.LEFT_TO_RIGHT and not causal:
        nats_P = _left_to_right(requests)
    elif method in (Likelihood.NELBO, Likelihood.ANY_ORDER):
        found = bounds(requests, _few_sets(requests, options), options.draws, options.max_se, options.seed)
        nats_P, se_P, draws_P = zip(*((one.nats, one.se_mc, one.draws) for one in found), strict=True)
    return [
        PairScore(
            loglikelihood=-float(nats_P[p]),
            se_mc=float(se_P[p]),
            tokens=int(requests.target_P[p]),
            is_greedy=bool(greedy_P[p]) if options.greedy and greedy_P is not None else None,
            method=method,
            guidance=requests.guidance or 0.0,
            draws=int(draws_P[p]),
            is_likelihood=requests.guidance is None,
        )
        for p in range(count)
    ]


def _causal(requests: Requests) -> tuple[Float64[np.ndarray, "P"], Bool[np.ndarray, "P"]]:
    """Nats of each target under an ARM, and whether each of its tokens is the likeliest one."""
    nats_P, greedy_P = np.empty(len(requests.pairs)), np.empty(len(requests.pairs), bool)

    def dispatched() -> Iterator[tuple[np.ndarray, Any]]:
        for length, pair_B in requests.batches().cut(requests.length_P):
            yield pair_B, causal_nats(requests.params, requests.rows(pair_B, length), requests.model)

    for pair_B, (nats_BL, hit_BL) in results(dispatched()):
        for p, nats_L, hit_L in zip(pair_B, nats_BL, hit_BL, strict=True):
            target = slice(len(requests.pairs[p].prompt), requests.pairs[p].length)
            nats_P[p], greedy_P[p] = nats_L[target].sum(dtype=np.float64), hit_L[target].all()
    return nats_P, greedy_P


def _left_to_right(requests: Requests) -> Float64[np.ndarray, "P"]:
    """Nats of each target under an MDM. The forward passes of all tokens of all pairs are one queue."""
    pair_I = np.arange(len(requests.pairs)).repeat(requests.target_P)
    seen_I = np.concatenate([np.arange(len(pair.prompt), pair.length) for pair in requests.pairs]).astype(np.int32)
    nats_I = np.empty(len(pair_I))

    def dispatched() -> Iterator[tuple[np.ndarray, Any]]:
        for length, items in requests.batches().cut(requests.length_P[pair_I]):
            rows, seen_B = requests.rows(pair_I[items], length), seen_I[items]
            yield items, next_token_nats(requests.params, rows, seen_B, requests.model, requests.guidance)

    for items, nats_B in results(dispatched()):
        nats_I[items] = nats_B
    return np.bincount(pair_I, nats_I, len(requests.pairs))


def _confidence(requests: Requests) -> tuple[Float64[np.ndarray, "P"], Bool[np.ndarray, "P"]]:
    """Nats of each target in the order of confidence, and whether greedy generation gives it."""
    nats_P, greedy_P = np.empty(len(requests.pairs)), np.empty(len(requests.pairs), bool)

    def dispatched() -> Iterator[tuple[np.ndarray, Any]]:
        for length, pair_B in requests.batches().cut(requests.length_P, requests.target_P):
            rows, steps = requests.rows(pair_B, length), np.int32(requests.target_P[pair_B].max())
            begin = nothing_revealed(rows)
            yield pair_B, reveal(requests.params, rows, begin, steps, requests.model, requests.guidance)

    for pair_B, state in results(dispatched()):
        nats_P[pair_B], greedy_P[pair_B] = state.nats_B, state.greedy_B
    return nats_P, greedy_P


def _check_lengths(requests: Requests) -> None:
    """Raises ValueError if a target has too many tokens for the exact average over all orders."""
    for p, tokens in enumerate(requests.target_P.tolist()):
        bound = f"at most {MOST_TOKENS} for any_order: {tokens} tokens take {forwards(tokens)} forward passes"
        require(tokens <= MOST_TOKENS, f"pairs[{p}]: target tokens", tokens, bound)


def _few_sets(requests: Requests, options: Options) -> set[int]:
    """The pairs of which all sets of masked tokens are read."""
    most = forwards(MOST_TOKENS) if options.method is Likelihood.ANY_ORDER else options.draws
    return {p for p, tokens in enumerate(requests.target_P.tolist()) if forwards(tokens) <= most}
