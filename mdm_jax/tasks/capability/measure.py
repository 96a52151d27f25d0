"""The answers of one model to all questions, and the sealed file that keeps them.

Both families are scored by the chain rule from left to right: an ARM's own likelihood, and an exact likelihood of an
MDM, which reads a row once for each token of an answer. So no score has Monte Carlo noise, and both families condition
each token on the same others. The NELBO of an MDM would add noise, or the mean over all orders. A row ends with its
answer: no masked positions follow, as in SMDM's evaluation (Nie et al. 2024, arXiv 2410.18514).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdm_jax.files.layout import RESULT_FILE
from mdm_jax.files.results import read_result
from mdm_jax.files.storage import Path, as_path, is_file
from mdm_jax.spec import Likelihood
from mdm_jax.spec.counting import count_parameters
from mdm_jax.spec.validation import require
from mdm_jax.tasks.capability.makers import conditions
from mdm_jax.tasks.capability.passages import Passages, passages_of_files, passages_of_run
from mdm_jax.tasks.capability.questions import Answers, Condition, Ids, Task, answers, digest
from mdm_jax.tasks.kept_answers import read_answers, write_answers
from mdm_jax.tasks.model_paths import name_of
from mdm_jax.trained.load import load
from mdm_jax.trained.model import Model

METHOD = Likelihood.LEFT_TO_RIGHT
SCHEMA = 1
"""Part of the keys of kept answers: a new number asks all models again."""
MOST_QUESTIONS = 1 << 16
MODELS_FOLDER = "models"
RUN_COLUMNS = ("budget", "flops_6nd", "flops_exact", "loss", "loss_left_to_right")
"""Columns of the run table that are kept with the answers."""


@dataclass(frozen=True)
class Measured:
    """A model, and its answers to one task at one size.

    Attributes:
        model: the run's id, or the name of the file or folder.
        family: "arm" or "mdm".
        params_non_embedding: N.
        run: values of `RUN_COLUMNS`; None where nothing is known.
        task: the task.
        size: what `SIZES` names.
        chance: the accuracy of a model that does not read the prompts.
        questions: 12 hex digits that are equal for equal questions.
        answers: right answers of each group.
    """

    model: str
    family: str
    params_non_embedding: int
    run: dict[str, float | None]
    task: Task
    size: int
    chance: float
    questions: str
    answers: Answers


class Questions:
    """The questions of models, made once for all models with equal tokenizers, rows and texts."""

    def __init__(self, files: Sequence[str], count: int, seed: int) -> None:
        """Says what is asked.

        Args:
            files: paths of UTF-8 texts; empty for the validation text of each run.
            count: questions of each task and size.
            seed: chooses them.

        Raises:
            ValueError: a number is out of range.
        """
        require(1 <= count <= MOST_QUESTIONS, "--questions", count, f"from 1 to {MOST_QUESTIONS}")
        require(seed >= 0, "--seed", seed, "at least 0")
        self._files, self._count, self._seed = files, count, seed
        self._made: dict[tuple[str, ...], list[Condition]] = {}

    def of(self, model: Model) -> list[Condition]:
        """The questions of a model.

        Raises:
            ValueError: the text is absent, or unusable; see `conditions`.
        """
        text = "" if model.run is None else f"{model.run.data.directory}, {model.run.evaluation.eval_tokens}"
        key = (model.tokenizer.hash, str(model.seq_len), "" if self._files else text)
        if key not in self._made:
            passages = self._passages(model)
            self._made[key] = conditions(passages, model.tokenizer, model.seq_len, self._count, self._seed)
        return self._made[key]

    def _passages(self, model: Model) -> Passages:
        if self._files:
            return passages_of_files(self._files, model.tokenizer)
        if model.run is None:
            raise ValueError("a model without a run has no validation text: name a text with --text")
        return passages_of_run(model.run, model.tokenizer.eos_id)


def measure(path: str, questions: Questions, out: Path) -> tuple[list[Measured], bool]:
    """The answers of the model at a path, and whether its file in `out` had them already.

    Raises:
        ValueError: the model or the text is unusable.
        OSError: a file cannot be read or written now.
    """
    model = load(path)
    asked = questions.of(model)
    key = hashlib.sha256(f"{SCHEMA} {METHOD} {model.fingerprint} {digest(asked)}".encode()).hexdigest()
    file = out / MODELS_FOLDER / f"{name_of(path)}.json"
    kept = read_answers(file, key)
    if kept is None:
        found = answers(asked, lambda pairs: _loglikelihoods(model, pairs))
        write_answers(file, key, [_tree(one) for one in found])
    else:
        found = [Answers(np.array(one["right"]), np.array(one["corrected"])) for one in kept]
    family, size = model.family.value, count_parameters(model.spec).non_embedding
    about = (name_of(path), family, size, _run_columns(as_path(path)))
    rows = [
        Measured(*about, one.task, one.size, one.chance, digest([one])[:12], right)
        for one, right in zip(asked, found, strict=True)
    ]
    return rows, kept is not None


def _loglikelihoods(model: Model, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    return [score.loglikelihood for score in model.loglikelihood(pairs, METHOD)]


def _run_columns(folder: Path) -> dict[str, float | None]:
    """What the run's row says; an unfinished run and a file of weights have none."""
    if not is_file(folder / RESULT_FILE):
        return dict.fromkeys(RUN_COLUMNS)
    row = read_result(folder / RESULT_FILE)
    return {column: getattr(row, column) for column in RUN_COLUMNS}


def _tree(one: Answers) -> dict[str, list[float]]:
    return {"right": one.right_G.tolist(), "corrected": one.corrected_G.tolist()}
