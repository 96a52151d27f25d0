"""Nats of texts under a reference: JSONL with a line for each text, written here or by any other program.

    {"id": "mdm-confidence-16/3", "nats": 187.2, "tokens": 128}

`id` is that of the text's line, `nats` the sum over its tokens, or the list of them, and `tokens` their number, which a
list need not give. Other keys are ignored.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdm_jax.files.sealed_json import numbered_lines
from mdm_jax.files.storage import Path, write_atomic
from mdm_jax.sample.report.texts import Text

MOST_NATS = 1e300


@dataclass(frozen=True)
class Nats:
    """The nats of one text under the reference, and its tokens there."""

    nats: float
    tokens: int


def write_nats(file: Path, texts: Sequence[Text], nats: Sequence[Nats]) -> None:
    """Writes the nats of the texts in one atomic write.

    Raises:
        OSError: no room or no access.
    """
    each = zip(texts, nats, strict=True)
    lines = [json.dumps({"id": text.id, "nats": one.nats, "tokens": one.tokens}) for text, one in each]
    write_atomic(file, "".join(line + "\n" for line in lines))


def read_nats(file: Path) -> dict[str, Nats]:
    """The nats of each text, by its id.

    Raises:
        ValueError: a line (named) is no such object, has a number that is none, or repeats an id.
        OSError: the file cannot be read.
    """
    found = dict[str, Nats]()
    for number, line in numbered_lines(file.read_bytes()):
        try:
            name, nats = _parsed(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
        if name in found:
            raise ValueError(f"{file}, line {number}: id {name!r} occurs twice")
        found[name] = nats
    return found


def _parsed(tree: object) -> tuple[str, Nats]:
    if not isinstance(tree, dict) or not isinstance(tree.get("id"), str):
        raise ValueError('must be an object with "id", "nats" and "tokens"')
    given, tokens = tree.get("nats"), tree.get("tokens")
    each: list[Any] = given if isinstance(given, list) else [given]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < MOST_NATS for x in each):
        raise ValueError('"nats" must be a number from 0, or a list of such numbers: minus the log of a probability')
    if tokens is None and isinstance(given, list):
        tokens = len(given)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
        raise ValueError('"tokens" must be a whole number from 0')
    if isinstance(given, list) and tokens != len(given):
        raise ValueError(f'"tokens" is {tokens} and "nats" has {len(given)} numbers')
    return tree["id"], Nats(math.fsum(each), tokens)


def nats_for(texts: Sequence[Text], found: dict[str, Nats], file: str) -> list[Nats]:
    """The nats of these texts.

    Raises:
        ValueError: the file lacks a text (the first one is named).
    """
    absent = [text.id for text in texts if text.id not in found]
    if absent:
        raise ValueError(f"{file}: no line for {absent[0]!r}, and {len(absent)} texts without one")
    return [found[text.id] for text in texts]


def scored(
    texts: Sequence[Text], seq_len: int, eos_id: int, score: Callable[[list[tuple[list[int], list[int]]]], list[float]]
) -> list[Nats]:
    """The nats of the texts, with the EOS of those that ended, under a reference.

    Args:
        texts: texts whose ids are the reference's.
        seq_len: tokens of the reference's rows.
        eos_id: the reference's EOS.
        score: the nats of targets after their prompts.
    """
    targets = [[*text.ids, *([eos_id] if text.ended else [])] for text in texts]
    each = enumerate(zip(texts, targets, strict=True))
    parts = [(s, part) for s, (text, ids) in each for part in windows(text.prompt_ids, ids, seq_len)]
    sums = np.bincount([s for s, _ in parts], score([part for _, part in parts]), len(texts))
    return [Nats(float(nats), len(ids)) for nats, ids in zip(sums, targets, strict=True)]


def windows(prompt: Sequence[int], target: Sequence[int], seq_len: int) -> list[tuple[list[int], list[int]]]:
    """Prompts and targets that together score the target once, each no longer than a row of the reference.

    A target that fits into a row with its prompt is one window. Otherwise each window begins with the half row that
    stands before its target.
    """
    before, left, found = list(prompt), list(target), list[tuple[list[int], list[int]]]()
    while left:
        seen = len(before) if not found and len(before) + len(left) <= seq_len else min(seq_len // 2, len(before))
        room = seq_len - seen
        found.append((before[len(before) - seen :], left[:room]))
        before, left = before + left[:room], left[room:]
    return found
