"""GSM8K's word problems (Cobbe et al. 2021, arXiv 2110.14168): a question, a rationale, and a number.

The field `answer` ends in a line `#### n` with the number n. Its rationale has calculator marks, `<<6*7=42>>`. They are
left out unless they are asked for.

Pairs have one stage, question to rationale and number, or two as in SMDM (Nie et al. 2024, arXiv 2410.18514): question
to rationale, and both to the number. The words before the rationale and before the number tell the stages apart.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from mdm_jax.tasks.pairs.pair import TextPair, checked_pair
from mdm_jax.tasks.pairs.records import BadRecord, Record, shown

END = "####"
MARKS = re.compile(r"<<[^<>\n]*>>")
NUMBER = re.compile(r"\s*\$?\s*([-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+))")
MOST_DIGITS = 40


@dataclass(frozen=True)
class Problem:
    """A word problem.

    Attributes:
        question: the problem in words.
        rationale: the steps to its solution; may be empty.
        number: the solution, without commas.
    """

    question: str
    rationale: str
    number: str


def problem_of(record: Record, keep_marks: bool = False) -> Problem:
    """The word problem of a record.

    Raises:
        BadRecord: a field is absent or no text, the question is blank, or the answer has no `#### n` at its end.
    """
    question, answer = record.text("question").strip(), record.text("answer")
    if not question:
        raise BadRecord(record.where, "an empty question")
    rationale, mark, last = answer.rpartition(END)
    number = number_in(last)
    if not mark or number is None or not _is_whole(last):
        raise BadRecord(record.where, "the answer does not end in '#### ' and a number")
    rationale = rationale if keep_marks else MARKS.sub("", rationale)
    return Problem(question, rationale.strip(), plain(number))


def _is_whole(last: str) -> bool:
    """Whether nothing but a unit sign follows the number."""
    match = NUMBER.match(last)
    return match is not None and last[match.end() :].strip() in ("", "%", ".")


def number_in(text: str) -> Decimal | None:
    """The number that a text begins with, after blanks and `$`; None if there is none, or more than 40 digits."""
    match = NUMBER.match(text)
    if match is None or len(match[1]) > MOST_DIGITS:
        return None
    return Decimal(match[1].replace(",", ""))


def plain(number: Decimal) -> str:
    """The number in digits, without an exponent and without zeros at the end of a fraction."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def answered_number(text: str) -> Decimal | None:
    """The number after the first `####` of a generated answer; None if there is none."""
    _, mark, rest = text.partition(END)
    return number_in(rest) if mark else None


def solution_prompt(question: str) -> str:
    """The prompt for rationale and number together."""
    return f"Question: {question}\nAnswer: "


def rationale_prompt(question: str) -> str:
    """The prompt for the rationale alone."""
    return f"Question: {question}\nRationale: "


def number_prompt(question: str, rationale: str) -> str:
    """The prompt for the number, after question and rationale."""
    return f"{rationale_prompt(question)}{rationale}\nNumber: "


def one_stage(record: Record, keep_marks: bool = False) -> Iterator[TextPair]:
    """The pair of question and solution.

    Raises:
        BadRecord: see `problem_of`.
    """
    one = problem_of(record, keep_marks)
    solution = f"{one.rationale}\n{END} {one.number}".lstrip()
    yield checked_pair(solution_prompt(one.question), solution, record.where)


def two_stages(record: Record, keep_marks: bool = False) -> Iterator[TextPair]:
    """The pair of question and rationale, and the pair of both and the number.

    Raises:
        BadRecord: see `problem_of`; or there is no rationale.
    """
    one = problem_of(record, keep_marks)
    if not one.rationale:
        raise BadRecord(record.where, f"a pair without a response: no rationale for {shown(one.question)!r}")
    yield checked_pair(rationale_prompt(one.question), one.rationale, record.where)
    yield checked_pair(number_prompt(one.question, one.rationale), one.number, record.where)
