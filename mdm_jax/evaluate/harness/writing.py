"""Requests of lm-evaluation-harness for generated text: what a task asks for, and how an answer ends."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DEFAULT_TOKENS = 256
"""New tokens of a task that names no number, as in the harness."""
NAMES_OF_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The names that tasks give the most new tokens; the first that is given counts."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a task asks for.

    Attributes:
        until: texts that end an answer.
        tokens: most new tokens.
        temperature: 0 unless the task samples.
        top_k: see `SamplingOptions`.
        top_p: see `SamplingOptions`.
    """

    until: tuple[str, ...]
    tokens: int = DEFAULT_TOKENS
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def shortened(self, text: str) -> str:
        """The text before the first of the texts that end it."""
        ends = [text.find(end) for end in self.until if end in text]
        return text[: min(ends, default=len(text))]


def wanted(given: Mapping[str, Any]) -> Wanted:
    """What the generation arguments of a task ask for. Arguments that mean nothing here are logged."""
    rest = dict(given)
    until = rest.pop("until", None) or []
    tokens = [rest.pop(name, None) for name in NAMES_OF_TOKENS]
    temperature, sampled = float(rest.pop("temperature", None) or 0.0), rest.pop("do_sample", None)
    top_k, top_p = int(rest.pop("top_k", None) or 0), float(rest.pop("top_p", None) or 1.0)
    if rest:
        logger.warning("generation arguments without an effect here: %s", ", ".join(sorted(rest)))
    return Wanted(
        tuple(end for end in ([until] if isinstance(until, str) else until) if end),
        int(next((number for number in tokens if number is not None), DEFAULT_TOKENS)),
        0.0 if sampled is False else (temperature or float(sampled is True)),
        top_k,
        top_p,
    )


def fit_to_row(prompt: Sequence[int], tokens: int, row_tokens: int) -> tuple[tuple[int, ...], int]:
    """The end of a prompt, and the number of new tokens, that fit a row together.

    The prompt keeps at least half of a row, and the answer has the rest of what the task asks for.
    """
    new = min(tokens, row_tokens - min(len(prompt), row_tokens // 2))
    return tuple(prompt[max(0, len(prompt) + new - row_tokens) :]), new


def seed_of(seed: int, prompt: Sequence[int], repeat: int) -> int:
    """The seed of an answer. It follows from the prompt, so that the order of the requests does not matter."""
    return zlib.crc32(np.array([seed, repeat, *prompt], np.int64).tobytes())
