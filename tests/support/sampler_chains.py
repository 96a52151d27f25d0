"""The distribution of sampled rows by enumeration: a chain over partly masked rows, and the test of a histogram."""

import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from enumerated import all_rows, log_softmax
from scipy import stats
from tiny_runs import on_mesh, sharp_model

from mdm_jax.model.transformer import hidden
from mdm_jax.spec import HardwareSpec, ModelSpec

Row = tuple[int, ...]
Move = Callable[[Row, int], Iterator[tuple[float, Row]]]
"""Gives the rows that may follow a row at a step, each with its probability."""


@functools.cache
def predictions(model: ModelSpec, length: int) -> dict[Row, np.ndarray]:
    """The model's logits `[L, V]` for every partly masked row, in which V is MASK."""
    rows_SL = all_rows(model.vocab_size + 1, length)
    with on_mesh():
        weights = sharp_model(model)
        run = jax.jit(lambda z: hidden(weights, z, model, HardwareSpec()) @ weights.head[...])
        found_SLV = np.asarray(run(rows_SL), np.float64)
    return dict(zip(map(tuple, rows_SL.tolist()), found_SLV, strict=True))


@functools.cache
def probabilities(model: ModelSpec, row: Row) -> np.ndarray:
    """The probability of each token at each position, `[L, V]`."""
    return np.exp(log_softmax(predictions(model, len(row))[row]))


def masked(row: Row, mask: int, block: int | None = None) -> list[int]:
    """The masked positions; with a block's length, those of the first block that has any."""
    at = [i for i, token in enumerate(row) if token == mask]
    return at if block is None else [i for i in at if i // block == at[0] // block] if at else []


def with_tokens(row: Row, positions: tuple[int, ...] | list[int], tokens: tuple[int, ...]) -> Row:
    """The row with other tokens at some positions."""
    changed = dict(zip(positions, tokens, strict=True))
    return tuple(changed.get(i, token) for i, token in enumerate(row))


def drawn(p_LV: np.ndarray, row: Row, positions: tuple[int, ...] | list[int]) -> Iterator[tuple[float, Row]]:
    """All rows that independent draws at the positions give, each with its probability."""
    for tokens in itertools.product(range(p_LV.shape[1]), repeat=len(positions)):
        chance = np.prod([p_LV[i, token] for i, token in zip(positions, tokens, strict=True)])
        yield float(chance), with_tokens(row, positions, tokens)


def chain(start: Row, steps: int, move: Move) -> dict[Row, float]:
    """The probability of each row after `steps` steps."""
    found = {start: 1.0}
    for step in range(steps):
        reached: dict[Row, float] = {}
        for row, chance in found.items():
            for share, following in move(row, step):
                reached[following] = reached.get(following, 0.0) + chance * share
        found = reached
    return found


def one_at_random(model: ModelSpec, block: int | None = None) -> Move:
    """One token a step, at a uniformly random masked position; with a block's length, of the first block."""

    def move(row: Row, _: int) -> Iterator[tuple[float, Row]]:
        at = masked(row, model.vocab_size, block)
        for i in at:
            for chance, following in drawn(probabilities(model, row), row, [i]):
                yield chance / len(at), following

    return move


def each_by_itself(model: ModelSpec, steps: int) -> Move:
    """Each masked token is revealed with the probability 1 / (steps left)."""

    def move(row: Row, step: int) -> Iterator[tuple[float, Row]]:
        at, share = masked(row, model.vocab_size), 1 / (steps - step)
        for chosen in itertools.chain.from_iterable(itertools.combinations(at, k) for k in range(len(at) + 1)):
            weight = share ** len(chosen) * (1 - share) ** (len(at) - len(chosen))
            for chance, following in drawn(probabilities(model, row), row, chosen):
                yield weight * chance, following

    return move


def p_value(rows_SL: np.ndarray, expected: dict[Row, float]) -> float:
    """The chi-squared probability that rows with these probabilities give such a histogram.

    Rows that are expected fewer than five times are counted together.
    """
    assert abs(sum(expected.values()) - 1) < 1e-9
    names, count = np.unique(rows_SL, axis=0, return_counts=True)
    found = dict(zip(map(tuple, names.tolist()), count, strict=True))
    assert found.keys() <= expected.keys()
    often = [row for row, p in expected.items() if p * len(rows_SL) >= 5]
    observed = np.array([found.get(row, 0) for row in often], float)
    wanted = np.array([expected[row] * len(rows_SL) for row in often])
    rest = len(rows_SL) - wanted.sum()
    if rest > 1e-6:
        observed, wanted = np.append(observed, len(rows_SL) - observed.sum()), np.append(wanted, rest)
    return float(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue)


def surest_first(model: ModelSpec, steps: int, score: Callable[[np.ndarray, int], float]) -> Move:
    """An equal share of the masked tokens a step: the drawn tokens of lowest score, the leftmost among equal ones.

    Args:
        score: from the probabilities at a position and the drawn token.
    """

    def move(row: Row, step: int) -> Iterator[tuple[float, Row]]:
        at, p_LV = masked(row, model.vocab_size), probabilities(model, row)
        count = max(1, len(at) // (steps - step))
        for chance, full in drawn(p_LV, row, at):
            chosen = _lowest({i: score(p_LV[i], full[i]) for i in at}, count)
            yield chance, with_tokens(row, chosen, tuple(full[i] for i in chosen))

    return move


def _lowest(scores: dict[int, float], count: int) -> list[int]:
    left, chosen = dict(scores), []
    for _ in range(min(count, len(left))):
        chosen.append(min(i for i in left if left[i] <= min(left.values()) + 1e-4))
        del left[chosen[-1]]
    return chosen


def above_threshold(model: ModelSpec, threshold: float) -> Move:
    """All drawn tokens whose probability is above the threshold, and the likeliest of the drawn ones."""

    def move(row: Row, _: int) -> Iterator[tuple[float, Row]]:
        at, p_LV = masked(row, model.vocab_size), probabilities(model, row)
        for chance, full in drawn(p_LV, row, at):
            nats = {i: -float(np.log(p_LV[i, full[i]])) for i in at}
            chosen = sorted({*_lowest(nats, 1), *(i for i in at if p_LV[i, full[i]] > threshold)})
            yield chance, with_tokens(row, chosen, tuple(full[i] for i in chosen))

    return move


def within_entropy(model: ModelSpec, bound: float) -> Move:
    """The masked tokens of least entropy, as many as have no more than the bound without the last of them."""

    def move(row: Row, _: int) -> Iterator[tuple[float, Row]]:
        at, p_LV = masked(row, model.vocab_size), probabilities(model, row)
        entropy = {i: -float((p_LV[i] * np.log(p_LV[i])).sum()) for i in at}
        order, chosen = _lowest(entropy, len(at)), []
        while len(chosen) < len(order) and sum(entropy[i] for i in chosen) <= bound:
            chosen.append(order[len(chosen)])
        yield from drawn(p_LV, row, chosen)

    return move


def taking_back(model: ModelSpec, steps: int, sigma: Callable[[float], float]) -> Move:
    """Each generated token becomes MASK with the probability sigma, which follows from the greatest possible one."""

    def move(row: Row, step: int) -> Iterator[tuple[float, Row]]:
        alpha_t, alpha_s = step / steps, (step + 1) / steps
        share = sigma(min(1.0, (1 - alpha_s) / alpha_t) if step else 0.0)
        reveal = (alpha_s - (1 - share) * alpha_t) / (1 - alpha_t)
        at = masked(row, model.vocab_size)
        for changed in itertools.product([False, True], repeat=len(row)):
            odds = [reveal if i in at else share for i in range(len(row))]
            chance = np.prod([p if yes else 1 - p for p, yes in zip(odds, changed, strict=True)])
            back = [i for i, yes in enumerate(changed) if yes and i not in at]
            hidden_row = with_tokens(row, back, (model.vocab_size,) * len(back))
            shown = [i for i, yes in enumerate(changed) if yes and i in at]
            for share_of_tokens, following in drawn(probabilities(model, row), hidden_row, shown):
                yield float(chance) * share_of_tokens, following

    return move
