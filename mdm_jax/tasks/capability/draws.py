"""The accuracies of a sweep's runs, and their bootstrap draws over runs and over groups of questions.

All runs answer the same questions, so a draw of questions is one for all runs. A draw takes runs with replacement
inside each family, and groups of questions with replacement inside each task and size (the two-way bootstrap of Owen
2007, arXiv 0712.1111), whose intervals are rather too wide than too narrow. Draw 0 is the data itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from analysis.sampling import DRAWS, LEVEL, SEED
from mdm_jax.files.results import LIKELIHOOD_COLUMNS
from mdm_jax.spec import Likelihood
from mdm_jax.spec.validation import require
from mdm_jax.tasks.capability.measure import Measured
from mdm_jax.tasks.capability.questions import Task

ALL = "all"
"""The mean of all tasks' logits."""
DrawsRuns = Float64[np.ndarray, "draws R"]


@dataclass(frozen=True, eq=False)
class FamilyRuns:
    """The runs of one family, and their draws.

    Attributes:
        family: "arm" or "mdm".
        flops_R: training FLOPs, 6ND.
        budget_R: planned FLOPs; those of the run where there was no plan.
        loss_R: nats per token.
        accuracy: share of right answers to each task, and to `ALL`, in each draw; all sizes weigh alike.
        logit: the same as log odds, with half a question added on both sides, so that none is infinite. `ALL` is the
            mean of the tasks' log odds.
        weight: how often each draw has each run.
    """

    family: str
    flops_R: Float64[np.ndarray, "R"]
    budget_R: Float64[np.ndarray, "R"]
    loss_R: Float64[np.ndarray, "R"]
    accuracy: dict[str, DrawsRuns]
    logit: dict[str, DrawsRuns]
    weight: DrawsRuns


def family_runs(rows: Sequence[Measured], score: str, likelihood: str, draws: int = DRAWS) -> dict[str, FamilyRuns]:
    """The runs of both families with their draws; models without a loss or FLOPs are left out.

    Args:
        rows: answers of all models.
        score: "corrected" or "plain".
        likelihood: the MDM's loss: "nelbo" or "left_to_right".
        draws: bootstrap draws, with the data as draw 0.

    Raises:
        ValueError: a family has no runs with a loss, or models answered different questions.
    """
    of_model: dict[str, list[Measured]] = {}
    for row in rows:
        if _loss(row, likelihood) is not None and row.run["flops_6nd"] is not None and not at_chance(row):
            of_model.setdefault(row.model, []).append(row)
    for family in ("arm", "mdm"):
        count = sum(answered[0].family == family for answered in of_model.values())
        require(count > 0, f"{family.upper()} runs with a loss", count, "at least 1")
    asked = {tuple((row.task, row.size, row.questions) for row in answered) for answered in of_model.values()}
    same = "1: models with different tokenizers, texts or rows answer other questions"
    require(len(asked) == 1, "sets of questions", len(asked), same)
    random = np.random.default_rng(SEED)
    first = next(iter(of_model.values()))
    weights = [_counts(random, draws, len(row.answers.right_G)) for row in first]
    found = {}
    for family in ("arm", "mdm"):
        runs = [answered for answered in of_model.values() if answered[0].family == family]
        accuracy, logit = _scores(runs, score, weights)
        flops_R = np.array([run[0].run["flops_6nd"] for run in runs], np.float64)
        budget_R = np.array([run[0].run["budget"] or run[0].run["flops_6nd"] for run in runs], np.float64)
        loss_R = np.array([_loss(run[0], likelihood) for run in runs], np.float64)
        weight = _counts(random, draws, len(runs))
        found[family] = FamilyRuns(family, flops_R, budget_R, loss_R, accuracy, logit, weight)
    return found


def at_chance(row: Measured) -> bool:
    """Whether every model has the accuracy of chance: the maps of `few_shot` without an example."""
    return row.task is Task.FEW_SHOT and row.size == 0


def _loss(row: Measured, likelihood: str) -> float | None:
    """The loss by this likelihood; an ARM's loss is its likelihood from left to right."""
    if row.family == "arm" or likelihood == Likelihood.NELBO:
        return row.run["loss"]
    return row.run[LIKELIHOOD_COLUMNS[likelihood][0]]


def _counts(random: np.random.Generator, draws: int, units: int) -> np.ndarray:
    """How often each draw has each unit; draw 0 has each once."""
    drawn = random.multinomial(units, np.full(units, 1 / units), draws).astype(np.float64)
    drawn[0] = 1
    return drawn


def _scores(
    runs: Sequence[Sequence[Measured]], score: str, weights: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Accuracy and logit of each task in each draw for each run."""
    shares: dict[str, list[np.ndarray]] = {}
    questions: dict[str, int] = {}
    for place, row in enumerate(runs[0]):
        groups = [run[place].answers for run in runs]
        right_RG = np.array([one.corrected_G if score == "corrected" else one.right_G for one in groups])
        share = weights[place] @ (right_RG.T * row.chance) / right_RG.shape[1]
        shares.setdefault(row.task.value, []).append(share)
        questions[row.task.value] = questions.get(row.task.value, 0) + round(right_RG.shape[1] / row.chance)
    accuracy = {task: np.mean(one, axis=0) for task, one in shares.items()}
    logit = {task: log_odds(one, questions[task]) for task, one in accuracy.items()}
    return _with_all(accuracy), _with_all(logit)


def _with_all(of_task: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**of_task, ALL: np.mean(list(of_task.values()), axis=0)}


def log_odds(accuracy: np.ndarray, questions: int) -> np.ndarray:
    """Log odds of shares of so many questions, with half a question added to the right and to the wrong answers."""
    right = accuracy * questions
    return np.log(right + 0.5) - np.log(questions - right + 0.5)


def fitted(x_R: np.ndarray, y: np.ndarray, weight: np.ndarray, degree: int) -> np.ndarray:
    """Coefficients of the weighted least-squares polynomial of each draw, the constant first.

    Args:
        x_R: places of the runs.
        y: values of the runs in each draw, [draws, R].
        weight: [draws, R].
        degree: degree of the polynomial.

    Returns:
        [draws, degree + 1]; a draw whose runs do not decide the curve gets the shortest solution.
    """
    powers_RP = x_R[:, None] ** np.arange(degree + 1)
    products = np.einsum("dr,rp,rq->dpq", weight, powers_RP, powers_RP)
    sums = np.einsum("dr,dr,rp->dp", weight, y, powers_RP)
    return np.einsum("dpq,dq->dp", np.linalg.pinv(products, hermitian=True), sums)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% percentile interval of the draws after the first."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
