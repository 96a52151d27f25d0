"""Texts while they are written: the row after each step, as pieces of text that are hidden, new or old.

for glimpse in watch(model, ["The cat"], tokens=40, sampler="confidence", steps=8):
    print(glimpse.step, "".join(text for _, text in glimpse.pieces))
"""

import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int32

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.likelihood import encoding
from mdm_jax.sample.options import SamplingOptions
from mdm_jax.sample.rows import Row
from mdm_jax.sample.stepwise import fill_stepwise
from mdm_jax.trained.generation import (
    Generated,
    Request,
    as_generated,
    batches_of,
    infill_requests,
    prompt_requests,
    seeded_rows,
)
from mdm_jax.trained.model import Model

HIDDEN_TOKEN = "░"
"""What stands for a token that is not there yet."""


class Part(enum.Enum):
    """What a piece of a row is: given by the user, not there yet, drawn in this step, or drawn before."""

    GIVEN = "given"
    HIDDEN = "hidden"
    NEW = "new"
    OLD = "old"


@dataclass(frozen=True)
class Glimpse:
    """One text after a step.

    Attributes:
        seed: the text's seed.
        step: steps made; a step in which nothing changes counts too.
        left: tokens that are not there yet.
        pieces: the row from left to right. Control characters are made visible, except for line breaks and tabs.
        text: the finished text in its last glimpse; None before.
    """

    seed: int
    step: int
    left: int
    pieces: tuple[tuple[Part, str], ...]
    text: Generated | None


def watch(
    model: Model,
    texts: Sequence[encoding.Part],
    tokens: int | None = None,
    infill: bool = False,
    n: int = 1,
    seed: int = 0,
    **options: Any,
) -> Iterator[Glimpse]:
    """The glimpses of each text, one text after the other.

    The last glimpse of a text has what `generate`, or `infill`, gives for the same arguments.

    Args:
        model: the model that writes.
        texts: prompts, or texts with holes.
        tokens: most new tokens after a prompt; None fills the row.
        infill: whether the texts have holes.
        n: texts of each of them.
        seed: the seed of the first text.
        options: see `Model.generate`.

    Raises:
        ValueError: as for `Model.generate` or `Model.infill`.
    """
    chosen = model.sampling_options(**options)
    mask, row, tokenizer = model.spec.vocab_size, model.seq_len, model.tokenizer
    if infill:
        model.check_infill()
        requests = infill_requests(texts, mask, row, tokenizer)
    else:
        requests = prompt_requests(texts, tokens, mask, row, tokenizer)
    rows = seeded_rows(requests, n, chosen, seed, mask)
    each = [request for request in requests for _ in range(n)]
    eos_id = None if infill else tokenizer.eos_id
    one_by_one = (_glimpses(model, chosen, *pair, eos_id) for pair in zip(each, rows, strict=True))
    return itertools.chain.from_iterable(one_by_one)


def _glimpses(
    model: Model, options: SamplingOptions, request: Request, row: Row, eos_id: int | None
) -> Iterator[Glimpse]:
    mask, tokenizer, before_L, step, now = model.spec.vocab_size, model.tokenizer, row.ids, 0, None
    ((length, _),) = batches_of([row], model.seq_len, 1)
    states = fill_stepwise(model.params, model.spec, row, options, length, eos_id)
    while True:
        with jax.set_mesh(model._mesh):  # the reader of the glimpses does not see this mesh
            following = next(states, None)
        if now is not None:
            step += 1
            pieces = row_pieces(now.ids, row.ids != mask, now.ids != before_L, mask, tokenizer, eos_id)
            end = as_generated(request, row, now, eos_id, tokenizer) if following is None else None
            yield Glimpse(row.seed, step, int((now.ids == mask).sum()), pieces, end)
            before_L = now.ids
        if following is None:
            return
        now = following


def row_pieces(
    ids_L: Int32[np.ndarray, "L"],
    given_L: Bool[np.ndarray, "L"],
    new_L: Bool[np.ndarray, "L"],
    mask: int,
    tokenizer: Tokenizer,
    eos_id: int | None,
) -> tuple[tuple[Part, str], ...]:
    """The pieces of a row, from left to right. What follows the first generated EOS is left out.

    Neighbouring tokens are decoded together, because a token may hold only a part of a character. A character whose
    tokens are in two pieces belongs to the later one.

    Args:
        ids_L: tokens; V stands where there is none.
        given_L: whether the user gave the token.
        new_L: whether this step drew the token.
        mask: V.
        tokenizer: the model's tokenizer.
        eos_id: the token that ends a row, or None.
    """
    ended_L = (ids_L == eos_id) & ~given_L if eos_id is not None else np.zeros(len(ids_L), bool)
    ids_L = ids_L[: int(ended_L.argmax()) if ended_L.any() else len(ids_L)]
    parts = [
        Part.HIDDEN if token == mask else Part.GIVEN if given else Part.NEW if new else Part.OLD
        for token, given, new in zip(ids_L.tolist(), given_L.tolist(), new_L.tolist(), strict=False)
    ]
    cuts = [*(i for i in range(len(parts)) if i == 0 or parts[i] is not parts[i - 1]), len(parts)]
    found, run = list[tuple[Part, str]](), list[tuple[int, int]]()
    for start, end in itertools.pairwise(cuts):
        if parts[start] is not Part.HIDDEN:
            run.append((start, end))
        if run and (parts[start] is Part.HIDDEN or end == len(parts)):
            found += zip([parts[first] for first, _ in run], _decoded(ids_L, run, tokenizer), strict=True)
            run = []
        if parts[start] is Part.HIDDEN:
            found.append((Part.HIDDEN, HIDDEN_TOKEN * (end - start)))
    return tuple((part, visible(text)) for part, text in found if text)


def _decoded(ids_L: np.ndarray, run: Sequence[tuple[int, int]], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of each piece of a run of pieces that has no hidden token; the texts together are the run's text."""
    whole, begun = tokenizer.decode(ids_L[run[0][0] : run[-1][1]]), 0
    for _, end in run[:-1]:
        upto = tokenizer.decode(ids_L[run[0][0] : end])
        same = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(upto, whole, strict=False)))
        yield whole[begun : max(begun, same)]
        begun = max(begun, same)
    yield whole[begun:]


def visible(text: str) -> str:
    """The text with a picture in place of each control character, which could change the terminal's state."""
    return "".join(_picture(character) for character in text)


def _picture(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or (code >= 0x20 and not 0x7F <= code < 0xA0):
        return character
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"
