"""One model's answers: generated text against the right answers, and the right answer's rank among distractors.

Generation is the same for both families: the model gets the prompt and room for an answer, but not the answer's length.
The answer ends at the first EOS or line end. Exact match is coarse: a small model that has learnt a name in part scores
0. So each question's right answer is also compared with the right answers of other questions of its group, by their
log-likelihoods after the prompt. A model that does not know the fact prefers the right answer half of the time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from mdm_jax.spec import Family, Likelihood
from mdm_jax.spec.validation import require
from mdm_jax.tasks.reverse_curse.facts import Question
from mdm_jax.trained.model import Model

SAMPLER = "confidence"
MOST_ROOM = 64
STOPS = ".!?"
ENDS = STOPS + ",;: "


@dataclass(frozen=True)
class How:
    """How answers are drawn and ranked.

    Attributes:
        tokens: room for an answer; None for 64, or less if a prompt leaves less room in the model's row.
        total: prompt and answer together have so many tokens, as in SMDM, which has 52; None for `tokens`.
        temperature: temperature of the draws; 0 takes the likeliest token.
        sampler: sampler of an MDM; see `mdm_jax.sample.samplers`.
        steps: steps of an MDM's answer, at most one a token; None for one a token.
        guidance: w of an MDM's unsupervised classifier-free guidance, in answers and in ranks.
        distractors: wrong answers of each question, at most; 0 ranks nothing.
        method: the likelihood that ranks; see `Model.loglikelihood`. An ARM has only `left_to_right`.
        draws: Monte Carlo draws of a `nelbo`.
        seed: seed of answers and distractors.

    Raises:
        ValueError: a number is out of range.
    """

    tokens: int | None = None
    total: int | None = None
    temperature: float = 0.0
    sampler: str = SAMPLER
    steps: int | None = None
    guidance: float = 0.0
    distractors: int = 9
    method: Likelihood = Likelihood.LEFT_TO_RIGHT
    draws: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "total", "steps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name}", value, "1 or more")
        require(self.tokens is None or self.total is None, "--total", self.total, "absent with --tokens")
        require(self.temperature >= 0, "--temperature", self.temperature, "0 or more")
        require(self.distractors >= 0, "--distractors", self.distractors, "0 or more")
        require(0 <= self.seed < 1 << 31, "--seed", self.seed, "from 0 to 2147483647")


@dataclass(frozen=True)
class Answer:
    """A model's answer to one question.

    Attributes:
        text: what it wrote, up to the first EOS or line end.
        exact: 1 if the text is a right answer, else 0.
        bleu: sentence BLEU against the right answers, from 0 to 1.
        preference: share of the distractors that are less likely than the right answer, where a tie counts half; the
            mean over several right answers. None without distractors.
        first: 1 if a right answer is more likely than all distractors, else 0.
        chance: `first` of a model that does not read the prompt.
    """

    text: str
    exact: float
    bleu: float
    preference: float | None
    first: float | None
    chance: float | None


def answer_all(model: Model, questions: Sequence[Question], how: How) -> list[Answer]:
    """The model's answers, in the order of the questions. An answer does not depend on the other questions' prompts.

    Raises:
        ValueError: a prompt (named) leaves no room for an answer in the model's row, or an option is out of range.
    """
    both = zip(questions, written(model, questions, how), ranked(model, questions, how), strict=True)
    return [Answer(text, *compared(text, question.answers), *rank) for question, text, rank in both]


def written(model: Model, questions: Sequence[Question], how: How) -> list[str]:
    """What the model writes after each prompt, up to the first EOS or line end.

    Raises:
        ValueError: see `answer_all`.
    """
    rooms = _rooms(model, questions, how)
    texts = dict[int, str]()
    for room in sorted(set(rooms)):
        chosen = [i for i, one in enumerate(rooms) if one == room]
        options: dict[str, Any] = {"temperature": how.temperature}
        if model.family is Family.MDM:
            steps = None if how.steps is None else min(how.steps, room)
            options |= {"sampler": how.sampler, "steps": steps, "guidance": how.guidance}
        seeds = [how.seed + i for i in chosen]
        made = model.generate([questions[i].prompt for i in chosen], room, seed=seeds, **options)
        texts |= {i: _first_line(one.text) for i, one in zip(chosen, made, strict=True)}
    return [texts[i] for i in range(len(questions))]


def _rooms(model: Model, questions: Sequence[Question], how: How) -> list[int]:
    """The tokens of each answer."""
    prompts = [len(model.tokenizer.encode(question.prompt)) for question in questions]
    room = min(MOST_ROOM, model.seq_len - max(prompts)) if how.tokens is None else how.tokens
    rooms = [room if how.total is None else how.total - prompt for prompt in prompts]
    for question, prompt, own in zip(questions, prompts, rooms, strict=True):
        bound = f"at most {min(how.total or model.seq_len, model.seq_len) - max(own if how.tokens else 1, 1)}"
        fits = own >= 1 and prompt + own <= model.seq_len
        require(fits, f"tokens of the prompt {question.prompt!r}", prompt, f"{bound}, to leave room for an answer")
    return rooms


def _first_line(text: str) -> str:
    lines = text.splitlines()
    return lines[0] if lines else ""


def compared(text: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and sentence BLEU (Papineni et al. 2002, by sacrebleu) of a text, both from 0 to 1.

    Blanks and punctuation at the ends do not count. If the answers end without a full stop, as the published names do,
    words of the text after so many words do not count either. BLEU of a text of fewer than four words takes the orders
    that it has.
    """
    if not any(answer.rstrip().endswith(tuple(STOPS)) for answer in answers):
        text = " ".join(text.split()[: max(len(answer.split()) for answer in answers)])
    given, right = _bare(text), [_bare(answer) for answer in answers]
    return float(given in right), BLEU(effective_order=True).sentence_score(given, right).score / 100


def _bare(text: str) -> str:
    return text.strip().rstrip(ENDS)


Rank = tuple[float | None, float | None, float | None]


def ranked(model: Model, questions: Sequence[Question], how: How) -> list[Rank]:
    """`preference`, `first` and `chance` of each question.

    Raises:
        ValueError: see `answer_all`.
    """
    wrong = distractors(questions, how.distractors, how.seed)
    pairs = [(q.prompt, a) for q, others in zip(questions, wrong, strict=True) if others for a in (*q.answers, *others)]
    if not pairs:
        return [(None, None, None)] * len(questions)
    method = Likelihood.LEFT_TO_RIGHT if model.family is Family.ARM else how.method
    guidance = 0.0 if model.family is Family.ARM else how.guidance
    scores = model.loglikelihood(pairs, method, draws=how.draws, guidance=guidance, seed=how.seed)
    nats, start, found = [score.loglikelihood for score in scores], 0, list[Rank]()
    for question, others in zip(questions, wrong, strict=True):
        if not others:
            found.append((None, None, None))
            continue
        right, stop = len(question.answers), start + len(question.answers) + len(others)
        found.append(_rank(np.array(nats[start : start + right]), np.array(nats[start + right : stop])))
        start = stop
    return found


def _rank(right_R: np.ndarray, wrong_W: np.ndarray) -> Rank:
    above_RW = (right_R[:, None] > wrong_W) + 0.5 * (right_R[:, None] == wrong_W)
    first = float(right_R.max() > wrong_W.max())
    return float(above_RW.mean()), first, len(right_R) / (len(right_R) + len(wrong_W))


def distractors(questions: Sequence[Question], most: int, seed: int) -> list[list[str]]:
    """Wrong answers for each question: right ones about other facts of its group, each once, at most `most`."""
    groups: dict[str, dict[str, dict[str, None]]] = {}
    for question in questions:
        groups.setdefault(question.group, {}).setdefault(question.fact, {}).update(dict.fromkeys(question.answers))
    found = []
    for number, question in enumerate(questions):
        facts = groups[question.group]
        right = {*question.answers, *facts[question.fact]}
        every = dict.fromkeys(answer for answers in facts.values() for answer in answers)
        wrong = [answer for answer in every if answer not in right]
        found.append(random.Random(f"{seed} {number}").sample(wrong, min(most, len(wrong))))
    return found
