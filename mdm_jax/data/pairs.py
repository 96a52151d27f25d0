"""Pairs of a prompt and a response: their ids, their place in the shards, and the rows that are made of them.

In the shards a pair is the prompt's ids, then V, which no text has, then the response's ids, then EOS. In a row, which
is one pair, the response's ids stand as they are, a prompt's id i stands as -1 - i, and V is padding. So one array of
int32 says what each position is, and batches of pairs have the shape of other batches.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from mdm_jax.data.manifest import Manifest
from mdm_jax.data.store import TokenStore
from mdm_jax.data.tokenizer import SentencePieceTokenizer, Tokenizer

SCAN_TOKENS = 1 << 22
"""Tokens that the search for pairs reads at a time."""
KEEP_BLANKS = b"\x1a\x02\x20\x00"
CONTINUE = b"\x1a\x04\x18\x00\x20\x00"
"""Serialised `normalizer_spec { remove_extra_whitespaces: false }`, and the same with `add_dummy_prefix: false`.

Protocol buffers that follow each other are merged, and the last value of a field wins. So these bytes after a model
replace its settings.
"""
ANCHOR = "\n"
"""A character before a continuation, whose ids are cut off again."""


def encode_text(tokenizer: Tokenizer, text: str) -> Int32[np.ndarray, "tokens"]:
    """The ids of the beginning of a text, with the blanks at its end."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _with_settings(tokenizer.model, KEEP_BLANKS).encode(text)
    return tokenizer.encode(text)


def encode_continuation(
    tokenizer: Tokenizer, prompt: str, prompt_ids: Int32[np.ndarray, "prompt"], text: str
) -> Int32[np.ndarray, "tokens"]:
    """The ids of a text that continues the prompt, without a blank before it.

    Args:
        tokenizer: the tokenizer.
        prompt: text of the prompt; empty if only its ids are known.
        prompt_ids: ids of the prompt.
        text: text of the target.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _with_settings(tokenizer.model, CONTINUE).encode(text)
    ids = tokenizer.encode(text)
    before = prompt or tokenizer.decode(prompt_ids)
    if tokenizer.decode(np.concatenate([prompt_ids, ids])) == before + text:
        return ids
    anchor, both = tokenizer.encode(ANCHOR), tokenizer.encode(ANCHOR + text)
    begins = len(anchor) < len(both) and np.array_equal(both[: len(anchor)], anchor)
    return both[len(anchor) :] if begins else ids


@functools.lru_cache(maxsize=4)
def _with_settings(model: bytes, settings: bytes) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model + settings)


def pair_ids(tokenizer: Tokenizer, prompt: str, response: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a prompt and of its response, int32, both without EOS.

    They are the ids that `Model.loglikelihood` gives to the same pair, and the prompt's are those of `Model.generate`.
    """
    if not prompt:
        return np.zeros(0, np.int32), encode_text(tokenizer, response)
    before = encode_text(tokenizer, prompt)
    return before, encode_continuation(tokenizer, prompt, before, response)


def stored_ids(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], vocab_size: int
) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "pairs"]]:
    """The ids of all pairs in one array, as the shards have them; and the number of ids of each pair.

    Args:
        tokenizer: of the texts.
        pairs: prompts and responses.
        vocab_size: V, the model's; the tokenizer may have fewer ids.
    """
    parts = []
    for prompt, response in pairs:
        before, after = pair_ids(tokenizer, prompt, response)
        parts.append(np.concatenate([before, [vocab_size], after, [tokenizer.eos_id]]).astype(np.int32))
    return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)


@dataclass(frozen=True)
class PairRows:
    """The pairs of a split that fit into a row, in the order of the shards.

    Attributes:
        store: the split.
        seq_len: tokens of a row, L.
        vocab_size: V, which is also the padding.
        eos_to_end: fill rows with EOS, as tokens of the response.
        start_P: place of each pair's first id.
        prompt_P: ids of each prompt.
        response_P: ids of each response, with its EOS.
        left_out: the number of pairs that are longer than a row.
    """

    store: TokenStore
    seq_len: int
    vocab_size: int
    eos_to_end: bool
    start_P: Int64[np.ndarray, "P"]
    prompt_P: Int64[np.ndarray, "P"]
    response_P: Int64[np.ndarray, "P"]
    left_out: int

    def __len__(self) -> int:
        return len(self.start_P)

    def row(self, index: int) -> Int32[np.ndarray, "L"]:
        """The row of a pair; see the module's docstring."""
        start, prompt, response = int(self.start_P[index]), int(self.prompt_P[index]), int(self.response_P[index])
        ids = self.store.tokens(start, prompt + 1 + response).astype(np.int32)
        row_L = np.full(self.seq_len, ids[-1] if self.eos_to_end else self.vocab_size, np.int32)
        row_L[:prompt] = -1 - ids[:prompt]
        row_L[prompt : prompt + response] = ids[prompt + 1 :]
        return row_L


def scored_ids(rows_SL: Int32[np.ndarray, "S L"], vocab_size: int, score_prompt: bool) -> Integer[np.ndarray, "tokens"]:
    """The ids of the scored tokens of rows of pairs, one row after the other."""
    ids = rows_SL[rows_SL != vocab_size]
    return np.where(ids < 0, -1 - ids, ids) if score_prompt else ids[ids >= 0]


def find_pairs(store: TokenStore, manifest: Manifest, seq_len: int, eos_to_end: bool = False) -> PairRows:
    """The pairs of a split, from one scan of its ids.

    Args:
        store: the split.
        manifest: the manifest of its shards.
        seq_len: tokens of a row; longer pairs are left out.
        eos_to_end: see `PairRows`.

    Raises:
        ValueError: the shards are corrupt, or no pair fits into a row.
    """
    cuts, ends = (np.concatenate(parts) for parts in zip(*_marks(store, manifest), strict=True))
    starts = np.concatenate([[0], ends[:-1] + 1])
    whole = len(cuts) == len(ends) > 0 and int(ends[-1]) + 1 == len(store)
    if not whole or (starts > cuts).any() or (cuts + 1 >= ends).any():
        raise ValueError(f"the shards of {manifest.corpus.path} are not pairs: prepare the corpus again")
    fits: Bool[np.ndarray, "pairs"] = ends - starts <= seq_len  # without the id between prompt and response
    if not fits.any():
        shortest = int((ends - starts).min())
        raise ValueError(f"data.seq_len = {seq_len}: must be at least {shortest}, the tokens of the shortest pair")
    prompt, response = cuts - starts, ends - cuts
    start_P, prompt_P, response_P = (array[fits].astype(np.int64) for array in (starts, prompt, response))
    left_out = int((~fits).sum())
    return PairRows(store, seq_len, manifest.vocab_size, eos_to_end, start_P, prompt_P, response_P, left_out)


def _marks(store: TokenStore, manifest: Manifest) -> list[tuple[np.ndarray, np.ndarray]]:
    """The places of V and of EOS in each part of the split."""
    found = []
    for first in range(0, len(store), SCAN_TOKENS):
        ids = store.tokens(first, min(SCAN_TOKENS, len(store) - first))
        cuts, ends = (np.flatnonzero(ids == mark) + first for mark in (manifest.vocab_size, manifest.eos_id))
        found.append((cuts, ends))
    return found
