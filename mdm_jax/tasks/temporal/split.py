"""Splits dated texts into a training corpus until a date, and test slices by date on both sides of it.

Each text is kept once, where it is earliest: a text whose normalised form (see `digest`) stood in an earlier one is
dropped. So no test text is also a training text. A share of the texts of the training period is held out, which gives
test slices without a shift in time.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from mdm_jax.spec.validation import require
from mdm_jax.tasks.temporal.dated import Dated, cut_to, digest, digest_without_numbers

HASHES = 1 << 32


class Span(StrEnum):
    """The time that a test slice covers."""

    YEAR = "year"
    QUARTER = "quarter"
    MONTH = "month"


@dataclass(frozen=True)
class SplitSpec:
    """How texts are split.

    Attributes:
        until: the first day that is not in the training period.
        by: the time that a slice covers.
        held_out: share of the training period's texts that are kept for tests.
        known_groups: keep only later texts whose group has a training text, so that the slices differ less in what
            they are about.
        most_text_bytes: longer texts are cut at a line's end; 0 keeps them whole.
    """

    until: datetime.date
    by: Span = Span.YEAR
    held_out: float = 0.1
    known_groups: bool = False
    most_text_bytes: int = 0

    def __post_init__(self) -> None:
        require(0 < self.held_out < 1, "--held-out", self.held_out, "above 0 and below 1")
        require(self.most_text_bytes >= 0, "--most-text-bytes", self.most_text_bytes, "0 (no limit) or more")


@dataclass(frozen=True)
class Slice:
    """Test texts of one span of time.

    Attributes:
        name: its name, such as `later-2016` or `held-out-2014`.
        held_out: whether the texts are of the training period.
        texts: its texts in the order of their groups, then of their dates.
        near_copies: texts that equal a training text if all numbers are taken for equal. They are kept.
        known_lines: share of the texts' characters in lines that stand in a training text too, after normalisation.
    """

    name: str
    held_out: bool
    texts: tuple[Dated, ...]
    near_copies: int
    known_lines: float


@dataclass(frozen=True)
class Split:
    """The training texts in the order of their dates, the test slices in that of time, and what was left out.

    Attributes:
        train: training texts.
        slices: test slices; those of the training period come first.
        duplicates: texts that were dropped because an earlier text is the same.
        unknown_groups: later texts that were dropped because their group has no training text.
    """

    train: tuple[Dated, ...]
    slices: tuple[Slice, ...]
    duplicates: int
    unknown_groups: int


def split_texts(texts: Iterable[Dated], spec: SplitSpec) -> Split:
    """The split of dated texts. It does not depend on their order.

    Raises:
        ValueError: no text on one side of `until`, or none that is held out.
    """
    given = [replace(text, text=cut_to(text.text, spec.most_text_bytes)) for text in texts]
    ordered = sorted(given, key=lambda text: (text.date, text.group, text.text))
    unique = dict[bytes, Dated]()
    for text in ordered:
        unique.setdefault(digest(text.text), text)
    train, held_out, later = list[Dated](), list[Dated](), list[Dated]()
    for key, text in unique.items():
        early = text.date < spec.until
        kept = int.from_bytes(key[:4]) < spec.held_out * HASHES
        (later if not early else held_out if kept else train).append(text)
    known = {text.group for text in train}
    fitting = [text for text in later if text.group in known] if spec.known_groups else later
    until = spec.until.isoformat()
    require(bool(train), f"texts before {until}", len(train), "at least one to train on: choose a later --until")
    require(bool(held_out), f"held-out texts before {until}", 0, "at least one: choose a larger --held-out")
    require(bool(fitting), f"texts from {until} on", len(fitting), "at least one: choose an earlier --until")
    seen = _Seen.of(train)
    slices = (*_slices(held_out, True, spec.by, seen), *_slices(fitting, False, spec.by, seen))
    return Split(tuple(train), slices, len(given) - len(unique), len(later) - len(fitting))


@dataclass(frozen=True)
class _Seen:
    """Hashes of what stands in the training texts: texts without their numbers, and lines."""

    masked: frozenset[bytes]
    lines: frozenset[bytes]

    @classmethod
    def of(cls, train: list[Dated]) -> "_Seen":
        lines = (digest(line) for text in train for line in text.text.splitlines() if line.strip())
        return cls(frozenset(digest_without_numbers(text.text) for text in train), frozenset(lines))

    def known_lines(self, texts: list[Dated]) -> float:
        """The share of the texts' characters in known lines; blank lines do not count."""
        lines = [line for text in texts for line in text.text.splitlines() if line.strip()]
        known = sum(len(line) for line in lines if digest(line) in self.lines)
        return known / max(1, sum(map(len, lines)))


def _slices(texts: list[Dated], held_out: bool, by: Span, seen: _Seen) -> tuple[Slice, ...]:
    """The slices of texts that are in the order of their dates."""
    found: dict[str, list[Dated]] = defaultdict(list)
    for text in texts:
        found[_span(text.date, by)].append(text)
    made = []
    for span, own in found.items():
        name = f"{'held-out' if held_out else 'later'}-{span}"
        near = sum(digest_without_numbers(text.text) in seen.masked for text in own)
        in_groups = tuple(sorted(own, key=lambda text: text.group))
        made.append(Slice(name, held_out, in_groups, near, seen.known_lines(own)))
    return tuple(made)


def _span(date: datetime.date, by: Span) -> str:
    """The name of the span of time that a day is in, such as `2016`, `2016-q1` or `2016-03`."""
    if by is Span.YEAR:
        return f"{date.year:04d}"
    return f"{date.year:04d}-q{(date.month + 2) // 3}" if by is Span.QUARTER else f"{date.year:04d}-{date.month:02d}"
