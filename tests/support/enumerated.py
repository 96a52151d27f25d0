"""Likelihoods of a tiny MDM by enumeration, from tables of its logits for every partly masked row."""

import itertools
from collections.abc import Callable

import numpy as np

Conditionals = Callable[[np.ndarray], np.ndarray]
"""From rows `[S, L]` in which V is MASK to log-probabilities `[S, L, V]`."""


def log_softmax(logits) -> np.ndarray:
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def all_rows(vocab_size: int, length: int) -> np.ndarray:
    """Every row of this length, `[V^L, L]`."""
    return np.array(list(itertools.product(range(vocab_size), repeat=length)), np.int32).reshape(-1, length)


def left_to_right(log_p: Conditionals, prompt: np.ndarray, target: np.ndarray, mask: int) -> float:
    """Nats of the target by the chain rule from left to right, with a loop over its tokens."""
    nats = 0.0
    for i in range(len(target)):
        row_L = np.concatenate([prompt, target[:i], np.full(len(target) - i, mask)])
        nats -= log_p(row_L[None])[0, len(prompt) + i, target[i]]
    return nats


def confidence(log_p: Conditionals, prompt: np.ndarray, target: np.ndarray, mask: int) -> tuple[float, bool]:
    """Nats of the target in the order of confidence, and whether greedy generation gives the target."""

    def most_certain(log_p_nV: np.ndarray, shown: np.ndarray) -> int:
        best_n = np.where(shown == mask, log_p_nV.max(-1), -np.inf)
        return int(np.flatnonzero(best_n >= best_n.max() - 1e-4)[0])

    shown, nats = np.full(len(target), mask), 0.0
    made = shown.copy()
    for _ in target:
        log_p_nV = log_p(np.concatenate([prompt, shown])[None])[0, len(prompt) :]
        i = most_certain(log_p_nV, shown)
        nats -= log_p_nV[i, target[i]]
        shown[i] = target[i]
    for _ in target:
        log_p_nV = log_p(np.concatenate([prompt, made])[None])[0, len(prompt) :]
        i = most_certain(log_p_nV, made)
        made[i] = log_p_nV[i].argmax()
    return nats, bool((made == target).all())


def any_order(log_p: Conditionals, prompt: np.ndarray, target: np.ndarray, mask: int) -> float:
    """The mean over all orders of revealing the target of the nats in that order: a loop over all n! orders."""
    nats = []
    for order in itertools.permutations(range(len(target))):
        shown, total = np.full(len(target), mask), 0.0
        for i in order:
            total -= log_p(np.concatenate([prompt, shown])[None])[0, len(prompt) + i, target[i]]
            shown[i] = target[i]
        nats.append(total)
    return float(np.mean(nats))
