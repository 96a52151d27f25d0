"""The formats of pairs, and the reader that takes each of them."""

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mdm_jax.spec.validation import require
from mdm_jax.tasks.pairs.gsm8k import one_stage, two_stages
from mdm_jax.tasks.pairs.pair import HOLE, TextPair, checked_pair, framed
from mdm_jax.tasks.pairs.records import BadRecord, Record, Skip, convert_records
from mdm_jax.tasks.pairs.sharegpt import TEMPLATE, sharegpt_pairs


class PairFormat(enum.StrEnum):
    """What the records of a file look like."""

    PLAIN = "plain"
    SHAREGPT = "sharegpt"
    GSM8K = "gsm8k"
    GSM8K_TWO_STAGE = "gsm8k_two_stage"


WITH_TEMPLATE = {PairFormat.PLAIN: HOLE, PairFormat.SHAREGPT: TEMPLATE}
"""The formats whose prompts have a frame, and the frame."""
MOST_KEPT = 20


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        format: what the records look like.
        prompt_field: the field of the prompt; only `plain` has a choice.
        response_field: the field of the response; only `plain` has a choice.
        template: the frame of each prompt, with `{prompt}`; empty for the format's own.
        keep_marks: keep GSM8K's calculator marks, `<<6*7=42>>`.

    Raises:
        ValueError: the format does not have what is chosen, or the template has no `{prompt}`.
    """

    format: PairFormat = PairFormat.PLAIN
    prompt_field: str = "prompt"
    response_field: str = "response"
    template: str = ""
    keep_marks: bool = False

    def __post_init__(self) -> None:
        fits = not self.template or self.format in WITH_TEMPLATE
        names = " or ".join(WITH_TEMPLATE)
        require(fits, "template", self.template, f"absent for {self.format}: only {names} has one")
        require(not self.template or HOLE in self.template, "template", self.template, f"a text with {HOLE}")
        fields = (self.prompt_field, self.response_field)
        own = fields != (Reading.prompt_field, Reading.response_field)
        plain = self.format is PairFormat.PLAIN
        require(plain or not own, "fields", ",".join(fields), f"absent for {self.format}: only plain has a choice")
        marked = self.format in (PairFormat.GSM8K, PairFormat.GSM8K_TWO_STAGE)
        require(marked or not self.keep_marks, "keep_marks", True, f"absent for {self.format}: only GSM8K has marks")

    def pairs(self, record: Record) -> Iterator[TextPair]:
        """The pairs of a record.

        Raises:
            BadRecord: the record does not have the format, or a pair has no response.
        """
        match self.format:
            case PairFormat.SHAREGPT:
                return sharegpt_pairs(record, self.template or TEMPLATE)
            case PairFormat.GSM8K:
                return one_stage(record, self.keep_marks)
            case PairFormat.GSM8K_TWO_STAGE:
                return two_stages(record, self.keep_marks)
        return self._plain(record)

    def _plain(self, record: Record) -> Iterator[TextPair]:
        prompt, response = record.text(self.prompt_field), record.text(self.response_field)
        yield checked_pair(framed(self.template or HOLE, prompt), response, record.where)


@dataclass
class Skipped:
    """Bad records that are left out: the first ones, and the number of each fault."""

    first: list[BadRecord] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def __call__(self, bad: BadRecord) -> None:
        """Notes a record."""
        if len(self.first) < MOST_KEPT:
            self.first.append(bad)
        self.faults[bad.fault] += 1

    @property
    def count(self) -> int:
        """The number of records that were left out."""
        return self.faults.total()


def read_pairs(path: str, reading: Reading = Reading(), skip: Skip | None = None) -> Iterator[TextPair]:
    """The pairs of a file, in its order.

    Args:
        path: a JSON or JSONL file; `.gz` and `.zst` are decompressed.
        reading: its format.
        skip: called with each bad record, which is then left out; by default a bad record is an error.

    Raises:
        BadRecord: a record is bad, and there is no `skip`; the message names the file and the record.
        ValueError: there is no such file, or it is corrupt.
    """
    for found in convert_records(path, lambda record: list(reading.pairs(record)), skip):
        yield from found
