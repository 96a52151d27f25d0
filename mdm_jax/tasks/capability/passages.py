"""Real text as ids: passages without EOS, and the tokens that are common in it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32, Integer

from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.files.storage import as_path
from mdm_jax.spec import RunSpec
from mdm_jax.spec.validation import require

MOST_TEXT_BYTES = 1 << 26
ALPHABET = 32
"""Tokens of which random strings are made: the commonest ones, so that a small model has met them often."""


class Passages:
    """A stream of documents that EOS ends."""

    def __init__(self, ids: Integer[np.ndarray, "tokens"], eos_id: int, name: str) -> None:
        """Indexes a stream of ids.

        Args:
            ids: the stream.
            eos_id: the id that ends a document.
            name: what messages call the text.
        """
        self.ids, self.name = ids.astype(np.int32), name
        self._next_eos = _distance_to(self.ids == eos_id)
        self._places_of: dict[int, np.ndarray] = {}
        counts = np.bincount(self.ids[self.ids != eos_id])
        self._common = np.lexsort((np.arange(len(counts)), -counts))[: int((counts > 0).sum())].astype(np.int32)

    def alphabet(self) -> Int32[np.ndarray, "letters"]:
        """The commonest ids of the text, the commonest first.

        Raises:
            ValueError: the text has too few different tokens.
        """
        bound = f"at least {ALPHABET} different tokens, of which random strings are made"
        require(len(self._common) >= ALPHABET, f"{self.name}: different tokens", len(self._common), bound)
        return self._common[:ALPHABET]

    def has(self, tokens: int, count: int) -> bool:
        """Whether so many places have a passage of so many tokens."""
        return len(self._places(tokens)) >= count

    def draw(self, random: np.random.Generator, tokens: int, count: int) -> list[Int32[np.ndarray, "_"]]:
        """Passages of so many tokens from different places, each inside one document; see `has`."""
        places = self._places(tokens)
        chosen = random.choice(len(places), count, replace=False)
        return [self.ids[place : place + tokens] for place in places[chosen]]

    def _places(self, tokens: int) -> Int[np.ndarray, "places"]:
        """The positions at which passages of so many tokens begin."""
        if tokens not in self._places_of:
            self._places_of[tokens] = np.flatnonzero(self._next_eos >= tokens)
        return self._places_of[tokens]


def _distance_to(ends: np.ndarray) -> np.ndarray:
    """Tokens from each place to the next end, or to the end of the stream."""
    places = np.append(np.flatnonzero(ends), len(ends))
    here = np.arange(len(ends))
    return places[np.searchsorted(places, here)] - here


def passages_of_run(run: RunSpec, eos_id: int) -> Passages:
    """The validation text of a run: the tokens of its loss.

    Raises:
        ValueError: the run's prepared data is absent or damaged, or is not what it was.
    """
    try:
        corpus = open_corpus(run.data)
    except ValueError as error:
        raise ValueError(f"{error} (or name a text with --text)") from None
    name = f"the validation text of {run.data.directory}"
    return Passages(corpus.evaluation_rows(run.evaluation.eval_tokens).reshape(-1), eos_id, name)


def passages_of_files(paths: Sequence[str], tokenizer: Tokenizer) -> Passages:
    """The text of UTF-8 files, each of which is a document.

    Raises:
        ValueError: a file (named) is too large, or is not UTF-8.
        OSError: a file cannot be read.
    """
    texts = []
    for path in paths:
        content = as_path(path).read_bytes()
        require(len(content) <= MOST_TEXT_BYTES, f"--text {path}: bytes", len(content), f"at most {MOST_TEXT_BYTES}")
        try:
            texts.append(content.decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"--text {path}: not UTF-8 (byte {error.start}): convert it") from None
    return Passages(tokenizer.encode_batch(texts)[0], tokenizer.eos_id, f"--text {', '.join(paths)}")
