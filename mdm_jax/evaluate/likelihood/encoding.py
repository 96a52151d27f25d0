"""Prompts and targets as ids: each part is encoded by itself, so that no token spans the cut.

A target that continues a prompt is encoded without the blank that many tokenizers put before a text (sentencepiece's
`add_dummy_prefix`, as in Llama), and blanks at the cut are kept. So the ids of both parts together decode to the text.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

from mdm_jax.data.pairs import encode_continuation, encode_text
from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.likelihood.requests import Pair
from mdm_jax.spec.validation import require

Part = str | Sequence[int] | Integer[np.ndarray, "_"]


def encode_pairs(pairs: Sequence[Any], vocab_size: int, seq_len: int, tokenizer: Callable[[], Tokenizer]) -> list[Pair]:
    """The ids of each prompt and target.

    Args:
        pairs: `(prompt, target)`, each a `Part`: a text, or ids in 0..V-1. A prompt may be empty.
        vocab_size: V.
        seq_len: tokens of the model's longest row.
        tokenizer: gives the tokenizer; it is called only if a part is a text.

    Raises:
        ValueError: a pair (named) is no pair, has no target, has ids out of range, or is longer than a row.
    """
    found = []
    for p, pair in enumerate(pairs):
        two = isinstance(pair, Sequence | np.ndarray) and not isinstance(pair, str | bytes) and len(pair) == 2
        require(two, f"pairs[{p}]", pair, "a prompt and a target")
        prompt, target = pair
        prompt_ids = part_ids(prompt, f"pairs[{p}]: prompt", vocab_size, lambda text: encode_text(tokenizer(), text))
        encode = functools.partial(_encode_target, tokenizer, prompt, prompt_ids)
        target_ids = part_ids(target, f"pairs[{p}]: target", vocab_size, encode)
        require(len(target_ids) > 0, f"pairs[{p}]: target", target, "at least one token")
        length, bound = len(prompt_ids) + len(target_ids), f"at most {seq_len}, the model's longest row"
        require(length <= seq_len, f"pairs[{p}]: tokens of prompt and target", length, bound)
        found.append(Pair(prompt_ids, target_ids))
    return found


def _encode_target(tokenizer: Callable[[], Tokenizer], prompt: Any, prompt_ids: np.ndarray, text: str) -> np.ndarray:
    """The ids of a target: after an empty prompt, the target is the beginning of the text."""
    if not len(prompt_ids):
        return encode_text(tokenizer(), text)
    return encode_continuation(tokenizer(), prompt if isinstance(prompt, str) else "", prompt_ids, text)


def part_ids(part: Any, name: str, vocab_size: int, encode: Callable[[str], np.ndarray]) -> Int32[np.ndarray, "tokens"]:
    """The ids of a `Part`; `encode` gives those of a text that is not empty.

    Raises:
        ValueError: see `checked_ids`.
    """
    if not isinstance(part, str):
        return checked_ids(part, name, vocab_size, "a text, or a list of ids")
    return encode(part) if part else np.zeros(0, np.int32)


def checked_ids(ids: Any, name: str, vocab_size: int, bound: str = "a list of ids") -> Int32[np.ndarray, "tokens"]:
    """The ids as an array, which may be empty.

    Raises:
        ValueError: they are no list of integers, or one is not in 0..V-1; the message begins with `name`.
    """
    try:
        given = np.asarray(ids)
    except ValueError:  # lists of different lengths
        given = np.array(None)
    if given.shape == (0,):
        return np.zeros(0, np.int32)
    held = f"{given.dtype} {list(given.shape)}"
    require(given.ndim == 1 and np.issubdtype(given.dtype, np.integer), name, held, bound)
    low, high = int(given.min()), int(given.max())
    require(low >= 0 and high < vocab_size, f"{name}: ids", f"{low} to {high}", f"from 0 to {vocab_size - 1}")
    return given.astype(np.int32)
