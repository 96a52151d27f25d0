"""The answers of a model to word problems, and the share that is right.

SMDM (Nie et al. 2024, arXiv 2410.18514) writes the rationale first, and then the number after question and rationale.
A model that was fine-tuned on one stage writes both at once, and the number stands after `####`. An answer is right if
its number equals the reference as a number. A text without a number is wrong, and so is a problem that does not fit
into a row.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from scipy.stats import binomtest

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.likelihood.encoding import encode_text
from mdm_jax.spec.validation import require
from mdm_jax.tasks.pairs.gsm8k import (
    Problem,
    answered_number,
    number_in,
    number_prompt,
    plain,
    rationale_prompt,
    solution_prompt,
)
from mdm_jax.trained.generation import Generated
from mdm_jax.trained.model import Model

LEVEL = 0.95


@dataclass(frozen=True)
class Settings:
    """How problems are answered.

    Attributes:
        two_stages: write the rationale first, and then the number.
        tokens: most tokens of the solution, or of the rationale; None for the rest of the row.
        number_tokens: the same of the number in the second stage.
        options: options of `Model.generate`.
        seed: the seed of the first problem; the next problems have the next seeds.

    Raises:
        ValueError: a number of tokens is below 1.
    """

    two_stages: bool
    tokens: int | None
    number_tokens: int | None
    options: dict[str, Any]
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "number_tokens"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")


@dataclass(frozen=True)
class Answer:
    """A model's answer to a problem.

    Attributes:
        question: the problem.
        reference: the right number.
        text: what the model wrote: the solution, or rationale and number with a line end between them.
        number: the number that the model found; None if the text has none.
        right: whether that is the right number.
        fits: whether the problem fits into the model's row. One that does not has no text, and is wrong.
        nfe: forward passes.
    """

    question: str
    reference: str
    text: str
    number: str | None
    right: bool
    fits: bool
    nfe: int


def answers(model: Model, problems: Sequence[Problem], settings: Settings) -> list[Answer]:
    """The model's answer to each problem, which does not depend on the other problems.

    Raises:
        ValueError: no problem fits into a row with its new tokens, or the family does not have an option.
    """
    continued = functools.partial(_continued, model)
    options, frame = settings.options, rationale_prompt if settings.two_stages else solution_prompt
    asked = [frame(problem.question) for problem in problems]
    _check_room(model, asked, settings.tokens)
    first = continued(asked, settings.tokens, settings.seed, options)
    if not settings.two_stages:
        return [
            _answer(problem, text, None if text is None else answered_number(text.text))
            for problem, text in zip(problems, first, strict=True)
        ]
    prompts = [
        None if text is None else number_prompt(problem.question, text.text.strip())
        for problem, text in zip(problems, first, strict=True)
    ]
    if options.get("steps") is not None and settings.number_tokens is not None:  # fewer tokens than the rationale
        options = options | {"steps": min(options["steps"], settings.number_tokens)}
    second = continued(prompts, settings.number_tokens, settings.seed + len(problems), options)
    return [_two_stage_answer(*each) for each in zip(problems, first, second, strict=True)]


def _two_stage_answer(problem: Problem, first: Generated | None, second: Generated | None) -> Answer:
    if first is None or second is None:
        return _answer(problem, None, None)
    both = dataclasses.replace(second, text=f"{first.text.strip()}\n{second.text}", nfe=first.nfe + second.nfe)
    return _answer(problem, both, number_in(second.text))


def _answer(problem: Problem, written: Generated | None, number: Decimal | None) -> Answer:
    right = number is not None and number == Decimal(problem.number)
    found = None if number is None else plain(number)
    text, nfe = ("", 0) if written is None else (written.text, written.nfe)
    return Answer(problem.question, problem.number, text, found, right, written is not None, nfe)


def _continued(
    model: Model, prompts: Sequence[str | None], tokens: int | None, seed: int, options: dict[str, Any]
) -> list[Generated | None]:
    """What the model writes after each prompt; None for an absent prompt, or one that is too long for a row.

    Without `tokens`, a row with less room than steps has as many steps as tokens.
    """
    lengths = {p: _length(model.tokenizer, prompt) for p, prompt in enumerate(prompts) if prompt is not None}
    kept = [p for p, length in lengths.items() if length <= model.seq_len - (tokens or 1)]
    steps, found = options.get("steps"), dict[int, Generated]()
    groups: dict[int | None, list[int]] = {}
    for p in kept:
        groups.setdefault(steps if tokens or not steps else min(steps, model.seq_len - lengths[p]), []).append(p)
    for own, chosen in groups.items():
        given = options if own is None else options | {"steps": own}
        texts = model.generate([str(prompts[p]) for p in chosen], tokens, seed=[seed + p for p in chosen], **given)
        found |= dict(zip(chosen, texts, strict=True))
    return [found.get(p) for p in range(len(prompts))]


def _check_room(model: Model, prompts: Sequence[str], tokens: int | None) -> None:
    """Raises ValueError if no prompt leaves room for the tokens in a row."""
    most = model.seq_len - min((_length(model.tokenizer, prompt) for prompt in prompts), default=0)
    bound = f"at most {max(most, 0)}, so that the shortest problem fits into a row of {model.seq_len} tokens"
    require((tokens or 1) <= most, "tokens", tokens, bound)


def _length(tokenizer: Tokenizer, prompt: str) -> int:
    return len(encode_text(tokenizer, prompt))


@dataclass(frozen=True)
class Accuracy:
    """The share of right answers.

    Attributes:
        right: right answers.
        problems: all answers.
        low: lower end of the 95% interval of the share, Wilson's for a binomial. Its unit is the problem.
        high: upper end.
        without_number: answers that have no number.
        too_long: problems that do not fit into a row.
    """

    right: int
    problems: int
    low: float
    high: float
    without_number: int
    too_long: int

    @property
    def share(self) -> float:
        """The accuracy, from 0 to 1."""
        return self.right / self.problems


def accuracy(found: Sequence[Answer]) -> Accuracy:
    """The accuracy of at least one answer."""
    right = sum(answer.right for answer in found)
    interval = binomtest(right, len(found)).proportion_ci(LEVEL, method="wilson")
    none = sum(answer.number is None and answer.fits for answer in found)
    return Accuracy(right, len(found), interval.low, interval.high, none, sum(not answer.fits for answer in found))


def difference(found: Sequence[Answer], base: Sequence[Answer]) -> tuple[float, float]:
    """The accuracy less that of `base` on the same problems, and its standard error over the problems.

    The error is nan for one problem.
    """
    less = np.array([a.right for a in found], float) - np.array([b.right for b in base], float)
    error = less.std(ddof=1) / len(less) ** 0.5 if len(less) > 1 else float("nan")
    return float(less.mean()), float(error)
