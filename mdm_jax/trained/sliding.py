"""Texts that are longer than a row: the last tokens of a text are the prefix of its next row.

This is MDLM's semi-autoregressive sampling (Sahoo et al. 2024, arXiv 2406.07524): the last `L - stride` tokens are kept
as a prefix, `stride` new ones are sampled, and so on. Here the first row is filled as far as it has room, so that a
text which fits in one row is the same with every stride. An ARM's texts are made in the same way.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from mdm_jax.sample.rows import FilledRow, Row
from mdm_jax.spec.validation import require

Fill = Callable[[Sequence[Row]], Sequence[FilledRow]]


@dataclass(frozen=True)
class Slide:
    """How texts become rows.

    Attributes:
        seq_len: tokens of the model's longest row.
        stride: new tokens of each row after the first one, below `seq_len`.
        mask: V, which stands at the positions to generate.
        eos_id: the token that ends a text; None if no token does.
        block: tokens of a block; None for the whole row.
    """

    seq_len: int
    stride: int
    mask: int
    eos_id: int | None
    block: int | None

    def new_tokens(self, given: int, tokens: int) -> list[int]:
        """The new tokens of each row of a text.

        Args:
            given: tokens of the prompt.
            tokens: new tokens of the text.
        """
        found: list[int] = []
        while (made := sum(found)) < tokens:
            found.append(min(tokens - made, max(self.stride, self.seq_len - given - made)))
        return found


@dataclass(frozen=True, eq=False)
class _Text:
    """A text between two rows. `made` is the whole text, with V from position `at` on."""

    seed: int
    made: FilledRow
    at: int
    parts: tuple[tuple[int, int], ...]
    """New tokens and steps of the rows that are to come."""
    rows: int = 0


def slide(fill: Fill, texts: Sequence[Row], how: Slide) -> list[FilledRow]:
    """The filled texts. Seconds and forward passes are the sums over a text's rows; the batch is that of its first row.

    A text's result does not depend on the other texts. Its first row has the text's seed, and each later one a seed
    that follows from it.

    Args:
        fill: fills rows of at most `seq_len` tokens.
        texts: prompts, with V at all positions after them. The steps of a text are shared among its rows, in
            proportion to their new tokens.
        how: the length of a row, and of a stride.

    Raises:
        ValueError: a text (named) has too few steps for its blocks.
    """
    going = [_begun(text, t, how) for t, text in enumerate(texts)]
    while waiting := [t for t, text in enumerate(going) if text.parts]:
        filled = fill([_next_row(going[t], how) for t in waiting])
        for t, row in zip(waiting, filled, strict=True):
            going[t] = _continued(going[t], row, how.eos_id)
    return [text.made for text in going]


def _begun(text: Row, number: int, how: Slide) -> _Text:
    first = int(np.argmax(text.ids == how.mask))
    tokens = len(text.ids) - first
    new = how.new_tokens(first, tokens)
    blocks = [-(-part // (how.block or part)) for part in new]
    least = max(-(-count * tokens // part) for count, part in zip(blocks, new, strict=True))
    bound = f"at least {least}, so that each of the text's {len(new)} rows has a step for each block"
    require(text.steps >= least, f"row {number}: steps", text.steps, bound)
    ends = [text.steps * end // tokens for end in np.cumsum([0, *new]).tolist()]
    steps = [after - before for before, after in itertools.pairwise(ends)]
    nothing = FilledRow(text.ids.copy(), np.zeros(len(text.ids), np.float32), 0, 0.0, 0)
    return _Text(text.seed, nothing, first, tuple(zip(new, steps, strict=True)))


def _next_row(text: _Text, how: Slide) -> Row:
    new, steps = text.parts[0]
    prefix = text.made.ids[max(0, text.at + new - how.seq_len) : text.at]
    ids: Int32[np.ndarray, "tokens"] = np.concatenate([prefix, np.full(new, how.mask, np.int32)])
    seed = text.seed if text.rows == 0 else int(np.random.SeedSequence([text.seed, text.rows]).generate_state(1)[0])
    return Row(ids, seed, steps)


def _continued(text: _Text, row: FilledRow, eos_id: int | None) -> _Text:
    """The text with the new tokens of a row. EOS ends it and fills the rest, as within a row."""
    (new, _), *parts = text.parts
    ids, nats, end = text.made.ids.copy(), text.made.nats.copy(), text.at + new
    ids[text.at : end], nats[text.at : end] = row.ids[-new:], row.nats[-new:]
    if eos_id is not None and (row.ids[-new:] == eos_id).any():
        ids[end:], parts = eos_id, []
    made = dataclasses.replace(
        text.made,
        ids=ids,
        nats=nats,
        forwards=text.made.forwards + row.forwards,
        seconds=text.made.seconds + row.seconds,
        batch=text.made.batch or row.batch,
    )
    return dataclasses.replace(text, made=made, at=end, parts=tuple(parts), rows=text.rows + 1)
