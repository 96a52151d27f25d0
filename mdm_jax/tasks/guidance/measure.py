"""The answers of one model at one guidance scale, compared with the right ones.

Guidance replaces the logits by `u + (w + 1) (c - u)`: c reads the prompt, and u reads MASK in its place. Standard
guidance (Ho and Salimans 2022, arXiv 2207.12598) trains u by dropping prompts. Unsupervised guidance (SMDM, Nie et al.
2024, arXiv 2410.18514) does not: u comes from training in which every token may be masked. Both read the same formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from sacrebleu.metrics.chrf import CHRF

from mdm_jax.data.pairs import pair_ids
from mdm_jax.spec import Family
from mdm_jax.spec.validation import require
from mdm_jax.tasks.guidance.choices import SAMPLER, Check
from mdm_jax.tasks.guidance.dates import nearness
from mdm_jax.tasks.pairs.pair import TextPair
from mdm_jax.trained.model import Model


@dataclass(frozen=True)
class Training:
    """How a model was trained, as far as guidance depends on it.

    Attributes:
        name: the name of the training, the same for all seeds.
        drop_prompt: share of the rows whose prompt was MASK; None if the model is not a run of pairs.
        seed: the run's seed; 0 for a file of weights.
    """

    name: str
    drop_prompt: float | None
    seed: int


def training_of(model: Model, path: str) -> Training:
    """The training of a model. A file of weights is named by its path.

    A run's group names it, if it has one.
    """
    run = model.run
    if run is None:
        return Training(path, None, 0)
    if run.cell.group:
        return Training(run.cell.group, run.objective.drop_prompt, run.seed)
    what = "prompts scored" if run.data.score_prompt else f"prompts dropped: {run.objective.drop_prompt:g}"
    return Training(what if run.start.path else f"{what}, from random weights", run.objective.drop_prompt, run.seed)


@dataclass(frozen=True)
class How:
    """How answers are drawn.

    Attributes:
        temperatures: each is tried with each scale.
        scales: w of the guidance. 0 is one of them, because the others are compared with it.
        sampler: see `mdm_jax.sample.samplers`.
        steps: steps of each answer; None for one a token.
        seed: the seed of the first answer; the next answers have the next seeds.
        check: see `Check`.

    Raises:
        ValueError: a list is empty or has an item twice, or 0 is no scale.
    """

    temperatures: tuple[float, ...]
    scales: tuple[float, ...]
    sampler: str = SAMPLER
    steps: int | None = None
    seed: int = 0
    check: Check = Check.RESPONSE

    def __post_init__(self) -> None:
        for name in ("temperatures", "scales"):
            values = getattr(self, name)
            require(0 < len(set(values)) == len(values), name, list(values), "one or more numbers, each once")
        require(0.0 in self.scales, "scales", list(self.scales), "some with 0 among them, which has no guidance")


@dataclass(frozen=True, eq=False)
class Measured:
    """One model's answers at one temperature and scale.

    Attributes:
        training: see `Training`.
        temperature: the temperature of the draws.
        scale: w.
        exact_P: 1 for a right answer, else 0.
        near_P: nearness of each answer to a right one, from 0 to 1; see `Check`.
        foreign_P: 1 for an answer with a character that no response of the pairs has, else 0. A large scale multiplies
            the differences between c and u of tokens that neither expects, and draws them.
    """

    training: Training
    temperature: float
    scale: float
    exact_P: Float64[np.ndarray, "P"]
    near_P: Float64[np.ndarray, "P"]
    foreign_P: Float64[np.ndarray, "P"]


def measure(model: Model, path: str, pairs: Sequence[TextPair], how: How) -> list[Measured]:
    """The model's answers at each temperature and scale.

    Raises:
        ValueError: the model is an ARM, which has no MASK to hide a prompt with; or a pair (named) is longer than its
            row, or an option is out of range.
    """
    require(model.family is Family.MDM, f"{path}: family", model.family.value, "mdm: an ARM has no guidance")
    training, found = training_of(model, path), []
    rooms, known = room_for_answers(model, pairs), {character for pair in pairs for character in pair.response}
    for temperature in how.temperatures:
        for scale in how.scales:
            texts = answers(model, pairs, rooms, how, temperature, scale)
            exact_P, near_P = scores(texts, pairs, how.check)
            foreign_P = np.array([float(not known.issuperset(text)) for text in texts])
            found.append(Measured(training, temperature, scale, exact_P, near_P, foreign_P))
    return found


def room_for_answers(model: Model, pairs: Sequence[TextPair]) -> list[int]:
    """The tokens of each answer, with its EOS.

    A model whose rows were filled with EOS gets the rest of its row. Another model has seen rows that end with the
    answer, so it gets the tokens of the right answer: its length is given, as in training.

    Raises:
        ValueError: a pair (named) does not fit into the model's row.
    """
    filled, tokenizer, found = model.run is not None and model.run.data.eos_to_end, model.tokenizer, []
    for p, pair in enumerate(pairs):
        prompt, answer = pair_ids(tokenizer, pair.prompt, pair.response)
        length = len(prompt) + len(answer) + 1
        require(length <= model.seq_len, f"pair {p + 1}: tokens", length, f"at most {model.seq_len}, the model's row")
        found.append(model.seq_len - len(prompt) if filled else len(answer) + 1)
    return found


def answers(
    model: Model, pairs: Sequence[TextPair], rooms: Sequence[int], how: How, temperature: float, scale: float
) -> list[str]:
    """The model's answers at one temperature and scale. An answer does not depend on the other pairs.

    Args:
        model: an MDM.
        pairs: the prompts.
        rooms: tokens of each answer.
        how: sampler, steps and seed.
        temperature: the temperature of the draws.
        scale: w.
    """
    texts = dict[int, str]()
    for tokens in sorted(set(rooms)):
        chosen = [p for p, room in enumerate(rooms) if room == tokens]
        steps = None if how.steps is None else min(how.steps, tokens)
        made = model.generate(
            [pairs[p].prompt for p in chosen],
            tokens,
            seed=[how.seed + p for p in chosen],
            sampler=how.sampler,
            steps=steps,
            temperature=temperature,
            guidance=scale,
        )
        texts |= {p: text.text for p, text in zip(chosen, made, strict=True)}
    return [texts[p] for p in range(len(pairs))]


def scores(
    texts: Sequence[str], pairs: Sequence[TextPair], check: Check
) -> tuple[Float64[np.ndarray, "P"], Float64[np.ndarray, "P"]]:
    """Whether each text is right, 1 or 0, and its nearness to a right one, from 0 to 1."""
    both = list(zip(texts, pairs, strict=True))
    if check is Check.DATES:
        near_P = np.array([nearness(pair.prompt, text) for text, pair in both])
        return (near_P == 1).astype(float), near_P
    exact_P = np.array([float(text == pair.response) for text, pair in both])
    return exact_P, np.array([similarity(text, pair.response) for text, pair in both])


_CHRF = CHRF()


def similarity(text: str, reference: str) -> float:
    """ChrF of a text, from 0 to 1."""
    return _CHRF.sentence_score(text, [reference]).score / 100
