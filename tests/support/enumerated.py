"""Likelihoods of a tiny MDM by enumeration, from tables of its logits for every partly masked row."""

import itertools
from collections.abc import Callable

import jax
import numpy as np

from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import HardwareSpec, ModelSpec

Conditionals = Callable[[np.ndarray], np.ndarray]
"""Gives the log-probabilities `[S, L, V]` of rows `[S, L]` in which V is MASK."""


def log_softmax(logits) -> np.ndarray:
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def all_rows(vocab_size: int, length: int) -> np.ndarray:
    """Every row of this length, `[V^L, L]`."""
    return np.array(list(itertools.product(range(vocab_size), repeat=length)), np.int32).reshape(-1, length)


def predictions_of(weights: Transformer, spec: ModelSpec) -> Conditionals:
    """The model's predictions, float64. Call the result under the mesh of the weights."""
    run = jax.jit(lambda rows_SL: hidden(weights, rows_SL, spec, HardwareSpec()) @ weights.head[...])
    return lambda rows_SL: log_softmax(run(rows_SL.astype(np.int32)))


def nats_by_count(log_p: Conditionals, rows_SL: np.ndarray, mask: int) -> np.ndarray:
    """`[S, L]`: the mean nats of masked tokens over all sets of 1 .. L of them. Their mean is the NELBO of a token."""
    rows, length = rows_SL.shape
    mask_ML = all_rows(2, length)[1:].astype(bool)
    log_p_SMLV = log_p(np.where(mask_ML, mask, rows_SL[:, None]).reshape(-1, length)).reshape(rows, *mask_ML.shape, -1)
    nats_SML = -np.take_along_axis(log_p_SMLV, rows_SL[:, None, :, None], -1)[..., 0]
    size_M = mask_ML.sum(1)
    mean_SM = (nats_SML * mask_ML).sum(2) / size_M
    return np.stack([mean_SM[:, size_M == k].mean(1) for k in range(1, length + 1)], 1)


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
