"""The questions of each task, made of a tokenizer, real text and a seed.

- `copy`: a random string, a passage of text, and the beginning of the string again; how does it go on? The answers are
  from four strings, of which only one was shown.
- `recall`: keys with values, then one of the keys; which of the values shown belongs to it?
- `needle`: a name with its value, a passage of text, and the name again; what is its value?
- `few_shot`: words with their images under one of four maps (the same, upper case, reversed, each letter replaced by
  the next one), then a word; which of its four images is meant? Without examples no model can know.
- `continuation`: a passage of text; which of four passages' next tokens follow?

The size is the distance in tokens that the answer has to bridge, the number of keys or of examples, or the tokens of
context. A size is left out if its questions do not fit in a row, if the text has no passages of that length, or if the
tokenizer makes two answers equal. Equal arguments give equal questions.
"""

import functools
import string
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.likelihood.encoding import encode_continuation, encode_text
from mdm_jax.spec.validation import require
from mdm_jax.tasks.capability.passages import Passages
from mdm_jax.tasks.capability.questions import Condition, Group, Ids, Task

ANSWERS = 4
"""Questions and answers of a group, except in `recall`, which has one for each key."""
STRING, CUE, COPIED = 8, 4, 2
"""Tokens of a string to copy, of its beginning that is shown again, and of the answer."""
CONTINUED = 4
"""Tokens of a continuation."""
DISTANCES = (4, 16, 64, 256, 1024)
PAIRS = (2, 4, 8, 16)
EXAMPLES = (0, 1, 2, 4, 8)
CONTEXTS = (4, 16, 64, 256, 1024)
TRIES = 100
"""Draws of passages until no two go on alike."""
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"
NEXT = str.maketrans(string.ascii_lowercase, string.ascii_lowercase[1:] + "a")
MAPS: tuple[Callable[[str], str], ...] = (str, str.upper, lambda word: word[::-1], lambda word: word.translate(NEXT))
"""Maps of words of three letters that never give two equal images."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What questions are made of.

    Attributes:
        passages: real text.
        tokenizer: its tokenizer.
        random: draws everything.
    """

    passages: Passages
    tokenizer: Tokenizer
    random: np.random.Generator

    @functools.cached_property
    def alphabet(self) -> Ids:
        """The tokens of random strings."""
        return self.passages.alphabet()

    def letters(self, count: int) -> Ids:
        """Different random tokens of the alphabet."""
        return self.random.choice(self.alphabet, count, replace=False)

    def word(self) -> str:
        """A word of three letters whose first and last letter differ."""
        first, last = self.random.choice(list(CONSONANTS), 2, replace=False)
        return f"{first}{self.random.choice(list(VOWELS))}{last}"

    def text(self, text: str, before: str = "") -> Ids:
        """The ids of a text; with text before it, as one that goes on."""
        if not before:
            return encode_text(self.tokenizer, text)
        return encode_continuation(self.tokenizer, before, encode_text(self.tokenizer, before), text)


def copy(made: Materials, distance: int) -> Group:
    """Four strings without a common token, shown before one passage of text."""
    strings_AS = made.letters(ANSWERS * STRING).reshape(ANSWERS, STRING)
    (between,) = made.passages.draw(made.random, distance, 1)
    prompts = tuple(np.concatenate([string_S, between, string_S[:CUE]]) for string_S in strings_AS)
    return Group(prompts, tuple(string_S[CUE : CUE + COPIED] for string_S in strings_AS))


def recall(made: Materials, pairs: int) -> Group:
    """Keys and values that are all different tokens; each key is asked for once."""
    key_P, value_P = made.letters(2 * pairs).reshape(2, pairs)
    colon, comma = made.text(":", "a"), made.text(",", "a")
    shown = [part for key, value in zip(key_P, value_P, strict=True) for part in ([key], colon, [value], comma)]
    prompts = tuple(np.concatenate([*shown, [key], colon]).astype(np.int32) for key in key_P)
    return Group(prompts, tuple(value_P[:, None]))


def needle(made: Materials, distance: int) -> Group:
    """One name with four different values, before one passage of text."""
    name, value_A = made.word(), made.letters(ANSWERS)
    (between,) = made.passages.draw(made.random, distance, 1)
    fact, asked, end = made.text(f"{name} ="), made.text(f"\n{name} =", "a"), made.text("\n", "a")
    prompts = tuple(np.concatenate([fact, [value], end, between, asked]).astype(np.int32) for value in value_A)
    return Group(prompts, tuple(value_A[:, None]))


def few_shot(made: Materials, examples: int) -> Group:
    """The same words for each of the four maps."""
    words: list[str] = []
    while len(words) <= examples:
        if (word := made.word()) not in words:
            words.append(word)
    *shown, asked = words
    texts = ["".join(f"{word}:{image(word)}\n" for word in shown) + f"{asked}:" for image in MAPS]
    prompts = tuple(made.text(text) for text in texts)
    return Group(prompts, tuple(made.text(image(asked), texts[0]) for image in MAPS))


def continuation(made: Materials, context: int) -> Group:
    """Four passages, which go on differently unless the text repeats itself all the time."""
    group = Group((), ())
    for _ in range(TRIES):
        found = made.passages.draw(made.random, context + CONTINUED, ANSWERS)
        group = Group(tuple(p[:context] for p in found), tuple(p[context:] for p in found))
        if group.is_fair:
            break
    return group


MAKERS: dict[Task, tuple[Callable[[Materials, int], Group], tuple[int, ...]]] = {
    Task.COPY: (copy, DISTANCES),
    Task.RECALL: (recall, PAIRS),
    Task.NEEDLE: (needle, DISTANCES),
    Task.FEW_SHOT: (few_shot, EXAMPLES),
    Task.CONTINUATION: (continuation, CONTEXTS),
}


def conditions(passages: Passages, tokenizer: Tokenizer, seq_len: int, questions: int, seed: int) -> list[Condition]:
    """The questions of all tasks at all sizes that fit in a row.

    Args:
        passages: real text.
        tokenizer: its tokenizer.
        seq_len: tokens of a row.
        questions: number of each task and size, at least 1; rounded up to whole groups.
        seed: chooses the questions, from 0.

    Raises:
        ValueError: the text has too few tokens, or no question fits in a row.
    """
    found = list(_fitting(passages, tokenizer, seq_len, questions, seed))
    require(bool(found), "tokens of a row", seq_len, "long enough for at least one question of one task")
    return found


def _fitting(passages: Passages, tokenizer: Tokenizer, seq_len: int, questions: int, seed: int) -> Iterator[Condition]:
    for task, (make, sizes) in MAKERS.items():
        for size in sizes:
            needed = _passage_tokens(task, size)
            if size >= seq_len or not passages.has(needed, ANSWERS):
                break
            random = np.random.default_rng((seed, zlib.crc32(task.encode()), size))
            made = Materials(passages, tokenizer, random)
            first = make(made, size)
            count = -(-questions // len(first.prompts))
            groups = (first, *(make(made, size) for _ in range(count - 1)))
            if all(group.length <= seq_len and group.is_fair for group in groups):
                yield Condition(task, size, groups)


def _passage_tokens(task: Task, size: int) -> int:
    """Tokens of the passages that a question needs."""
    longer = {Task.COPY: size, Task.NEEDLE: size, Task.CONTINUATION: size + CONTINUED}
    return longer.get(task, 0)
