"""Text from a trained model: continuations of prompts, and texts with holes.

A hole is `[MASK]`, which stands for one token, or `[MASK:N]` for N of them.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Integer

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.likelihood.buckets import Batches
from mdm_jax.evaluate.likelihood.encoding import Part, encode_continuation, encode_text, part_ids
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.rows import MOST_SEED, FilledRow, Row
from mdm_jax.spec.validation import require

MOST_TOKENS = 1 << 20
"""New tokens of a text that is longer than a row."""
HOLE = re.compile(r"\[MASK(?::(\d{1,6}))?\]")


@dataclass(frozen=True, eq=False)
class Generated:
    """A generated text.

    Attributes:
        prompt: the prompt, or the text with holes; decoded if it was given as ids.
        text: the text that follows the prompt, before its EOS; or the whole text, with its holes filled.
        ids: the ids of the text.
        tokens: generated tokens, with the EOS that ended them.
        ended: whether an EOS ended the text.
        nats: nats of all generated tokens when they were drawn, by the model itself. The sum is minus the
            log-likelihood of an ARM's text; an MDM that reveals several tokens at once has no such likelihood.
        seed: the row's seed. The same prompt with this seed gives the same text.
        nfe: forward passes that the row needed; guidance takes two for a step. With a cache most of them read only a
            part of the row.
        seconds: time of the batch in which the row was generated, with compilation if it was the first of its shape.
        batch: rows of that batch.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    tokens: int
    ended: bool
    nats: float
    seed: int
    nfe: int
    seconds: float
    batch: int


@dataclass(frozen=True, eq=False)
class Request:
    """A row to fill, before its seed is known.

    Attributes:
        shown: what the user gave, as text.
        ids: tokens; V stands at the positions that are generated.
        first: the position where the text begins: after the prompt, or 0 for a text with holes.
    """

    shown: str
    ids: Int32[np.ndarray, "tokens"]
    first: int


def prompt_requests(
    prompts: Sequence[Part],
    tokens: int | None,
    mask: int,
    seq_len: int,
    tokenizer: Tokenizer,
    stride: int | None = None,
) -> list[Request]:
    """A row for each prompt, with room for new tokens; it may be longer than a row of the model with a stride.

    Args:
        prompts: texts or ids. A prompt may be empty.
        tokens: new tokens of each row; None fills the model's rows.
        mask: V.
        seq_len: tokens of the model's longest row.
        tokenizer: the model's tokenizer.
        stride: see `mdm_jax.trained.sliding`.

    Raises:
        ValueError: a prompt (named) does not leave room in a row, or has unknown ids; or the stride is out of range.
    """
    require(tokens is None or tokens >= 1, "tokens", tokens, "1 or more")
    if stride is None:
        most, longer = seq_len, "a stride (--stride) writes longer texts"
        require(tokens is None or tokens <= most, "tokens", tokens, f"at most {most}, the model's row; {longer}")
    else:
        require(1 <= stride < seq_len, "stride", stride, f"from 1 to {seq_len - 1}, below the model's row of {seq_len}")
        fits = tokens is not None and tokens <= MOST_TOKENS
        require(fits, "tokens", tokens, f"given with a stride, at most {MOST_TOKENS}")
    found, encode = [], functools.partial(encode_text, tokenizer)
    for p, prompt in enumerate(prompts):
        ids = part_ids(prompt, f"prompts[{p}]", mask, encode)
        length = len(ids) + (tokens or 1)
        new = "a new token" if tokens is None else f"{tokens} new tokens"
        bound = f"at most {seq_len - (tokens or 1)}: a row of the model has {seq_len}, of which {new} take a part"
        more = "; a stride (--stride) takes longer ones"
        require(stride is not None or length <= seq_len, f"prompts[{p}]: tokens", len(ids), bound + more)
        row = np.full(seq_len if tokens is None else length, mask, np.int32)
        row[: len(ids)] = ids
        shown = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
        found.append(Request(shown, row, len(ids)))
    return found


def infill_requests(texts: Sequence[Part], mask: int, seq_len: int, tokenizer: Tokenizer) -> list[Request]:
    """A row for each text with holes.

    Args:
        texts: texts with `[MASK]` or `[MASK:N]`, or ids in which V is a hole.
        mask: V.
        seq_len: tokens of the model's longest row.
        tokenizer: the model's tokenizer.

    Raises:
        ValueError: a text (named) has no hole, is longer than a row, or has unknown ids.
    """
    found, encode = [], functools.partial(_with_holes, mask=mask, tokenizer=tokenizer)
    for t, text in enumerate(texts):
        name = f"texts[{t}]"
        ids = part_ids(text, name, mask + 1, encode)  # V is a hole
        shown = text if isinstance(text, str) else f"{len(ids)} ids"
        require(bool((ids == mask).any()), name, shown, "a text with [MASK], or ids with V, at what is to be filled")
        require(len(ids) <= seq_len, f"{name}: tokens", len(ids), f"at most {seq_len}, the model's longest row")
        found.append(Request(shown, ids, 0))
    return found


def _with_holes(text: str, mask: int, tokenizer: Tokenizer) -> Int32[np.ndarray, "tokens"]:
    """The ids of a text with V in its holes. Each piece between holes is encoded by itself."""
    pieces: list[np.ndarray] = []
    known = np.zeros(0, np.int32)
    parts = HOLE.split(text)
    for i, part in enumerate(parts):
        if i % 2:
            pieces.append(np.full(int(part or 1), mask, np.int32))
        elif part:
            pieces.append(encode_text(tokenizer, part) if i == 0 else encode_continuation(tokenizer, "", known, part))
            known = np.concatenate([known, pieces[-1]])
    return np.concatenate(pieces)


def seeded_rows(
    requests: Sequence[Request], n: int, options: SamplingOptions, seed: int | Sequence[int], mask: int
) -> list[Row]:
    """`n` rows of each request. The rows have the seeds `seed`, `seed + 1`, and so on, or the given ones.

    Raises:
        ValueError: `n` or a seed is out of range, or a request (named) has more steps than tokens to generate.
    """
    require(n >= 1, "n", n, "1 or more")
    rows = n * len(requests)
    if isinstance(seed, int):
        require(0 <= seed <= MOST_SEED + 1 - rows, "seed", seed, f"from 0 to {MOST_SEED + 1 - rows}, for {rows} rows")
        seed = range(seed, seed + rows)
    require(len(seed) == rows, "seeds", len(seed), f"{rows}, one for each text")
    for one in seed:
        require(0 <= one <= MOST_SEED, "seed", one, f"from 0 to {MOST_SEED}")
    found = []
    for r, request in enumerate(requests):
        steps = options.steps_of(int((request.ids == mask).sum()), f"row {r}")
        found += [Row(request.ids, int(seed[r * n + j]), steps) for j in range(n)]
    return found


def batches_of(rows: Sequence[Row], seq_len: int, shards: int) -> Iterator[tuple[int, Int[np.ndarray, "B"]]]:
    """The padded length and the rows of each batch; rows with similar steps come into one batch."""
    return Batches(seq_len, shards).cut(np.array([len(row.ids) for row in rows]), np.array([row.steps for row in rows]))


def as_generated(request: Request, row: Row, filled: FilledRow, eos_id: int | None, tokenizer: Tokenizer) -> Generated:
    """The text of a filled row, which an EOS ends if there is an `eos_id`."""
    ids = filled.ids[request.first :]
    ends = np.flatnonzero(ids == eos_id) if eos_id is not None else np.zeros(0, int)
    kept: Integer[np.ndarray, "kept"] = ids[: ends[0]] if len(ends) else ids
    made = int(ends[0]) + 1 if len(ends) else int((row.ids != filled.ids).sum())
    return Generated(
        prompt=request.shown,
        text=tokenizer.decode(kept),
        ids=tuple(kept.tolist()),
        tokens=made,
        ended=len(ends) > 0,
        nats=float(filled.nats[: request.first + made if len(ends) else None].sum(dtype=np.float64)),
        seed=row.seed,
        nfe=filled.forwards,
        seconds=filled.seconds,
        batch=filled.batch,
    )
