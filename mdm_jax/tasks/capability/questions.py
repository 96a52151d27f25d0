"""Groups of questions: m prompts and m targets, of which target i is the right answer to prompt i.

A model answers a prompt with the target of the group that it finds most likely. All prompts of a group are asked with
the same targets, so a model that does not read the prompts is right on exactly one of m, whatever targets it prefers.
"""

import enum
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

Ids = Int32[np.ndarray, "_"]
Loglikelihoods = Callable[[Sequence[tuple[Ids, Ids]]], Sequence[float]]
"""The log-likelihood in nats of each (prompt, target)."""
TIE_NATS = 1e-5
"""Log-likelihoods closer than this count as equal: float32 does not tell them apart."""


class Task(enum.StrEnum):
    """What a group of questions asks for. Each task has a size that makes it harder or easier."""

    COPY = "copy"
    RECALL = "recall"
    NEEDLE = "needle"
    FEW_SHOT = "few_shot"
    CONTINUATION = "continuation"


SIZES = {
    Task.COPY: "distance",
    Task.RECALL: "pairs",
    Task.NEEDLE: "distance",
    Task.FEW_SHOT: "examples",
    Task.CONTINUATION: "context",
}
"""What the size of each task counts. Distance and context are tokens."""


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts and their right targets, in one order.

    Attributes:
        prompts: m prompts, which may be equal to each other or empty.
        targets: m targets.
    """

    prompts: tuple[Ids, ...]
    targets: tuple[Ids, ...]

    @property
    def is_fair(self) -> bool:
        """Whether no two targets are equal. A tokenizer that ignores case makes some equal."""
        return len(self.prompts) == len(self.targets) == len({target.tobytes() for target in self.targets})

    @property
    def length(self) -> int:
        """Tokens of the longest prompt with the longest target."""
        return max(map(len, self.prompts)) + max(map(len, self.targets))


@dataclass(frozen=True, eq=False)
class Condition:
    """The groups of a task at one size. All have the same number of questions.

    Attributes:
        task: the task.
        size: what `SIZES` names.
        groups: its groups, at least one.
    """

    task: Task
    size: int
    groups: tuple[Group, ...]

    @property
    def chance(self) -> float:
        """The accuracy of a model that does not read the prompts."""
        return 1 / len(self.groups[0].prompts)


@dataclass(frozen=True, eq=False)
class Answers:
    """How many questions of each group a model answers right, between 0 and m.

    Attributes:
        right_G: the answer is the likeliest target. Targets that tie share the credit.
        corrected_G: the same after each target's log-likelihood is reduced by its mean over the prompts of the group,
            so that targets which are likely after any prompt have no advantage.
    """

    right_G: Float64[np.ndarray, "G"]
    corrected_G: Float64[np.ndarray, "G"]


def answers(conditions: Sequence[Condition], loglikelihoods: Loglikelihoods) -> list[Answers]:
    """The answers to each condition. All conditions are asked together, and equal pairs once.

    Args:
        conditions: the questions.
        loglikelihoods: the model.
    """
    places: dict[tuple[bytes, bytes], int] = {}
    pairs: list[tuple[Ids, Ids]] = []
    for group in (group for condition in conditions for group in condition.groups):
        for prompt in group.prompts:
            for target in group.targets:
                key = prompt.tobytes(), target.tobytes()
                if key not in places:
                    places[key] = len(pairs)
                    pairs.append((prompt, target))
    nats = np.asarray(loglikelihoods(pairs), np.float64)

    def scored(group: Group) -> np.ndarray:
        keys = [(prompt.tobytes(), target.tobytes()) for prompt in group.prompts for target in group.targets]
        return nats[[places[key] for key in keys]].reshape(len(group.prompts), len(group.targets))

    return [_answers([scored(group) for group in condition.groups]) for condition in conditions]


def _answers(scores: Sequence[np.ndarray]) -> Answers:
    corrected = [score_mm - score_mm.mean(0) for score_mm in scores]
    return Answers(*(np.array([right_answers(one) for one in of_groups]) for of_groups in (scores, corrected)))


def right_answers(score_mm: Float64[np.ndarray, "m m"]) -> float:
    """The number of rows whose largest value is on the diagonal. Several largest values of a row share the credit."""
    best_mm = score_mm >= score_mm.max(1, keepdims=True) - TIE_NATS
    return float((best_mm.diagonal() / best_mm.sum(1)).sum())


def digest(conditions: Sequence[Condition]) -> str:
    """SHA-256 (hex) of all questions."""
    found = hashlib.sha256()
    for condition in conditions:
        found.update(repr((condition.task.value, condition.size, len(condition.groups))).encode())
        for group in condition.groups:
            for ids in (*group.prompts, *group.targets):
                found.update(len(ids).to_bytes(8, "little") + ids.tobytes())
    return found.hexdigest()
