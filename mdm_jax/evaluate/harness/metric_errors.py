"""The Monte Carlo error of a task's metrics, from the errors of the scores that they are made of.

The scores of a document are drawn again, several times, from normal distributions around them with their own standard
errors. The task makes the document's metrics of each drawing. Then each repetition takes one drawing of each document
and aggregates them as the harness does, and the standard deviation over repetitions is the error. This holds for any
metric of the harness: an accuracy changes where two answers are nearly equal, and a perplexity changes with the sum.

The scores already have noise, and get noise again. The standard deviation is right nevertheless if the differences
between answers spread wider than their errors. If all answers of all documents are nearly equal, the error of an
accuracy is too small, by 18% for two answers.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task

from mdm_jax.evaluate.harness.cache import Score
from mdm_jax.evaluate.harness.pairs import Place, place_of

REPETITIONS = 200
"""The relative error of a standard deviation over 200 repetitions is 5%."""
DRAWINGS = 4000
FEWEST, MOST = 8, 400
"""Drawings of all documents together, and bounds for one document. The harness takes up to a millisecond for each."""
Drawings = list[dict[str, Any]]
"""The metrics of one document, for each drawing of its scores."""


def metric_errors(
    task: Task,
    scores: Mapping[Place, Score],
    drawings: int = DRAWINGS,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> dict[str, float]:
    """The Monte Carlo standard error of each metric, by the harness's name of it, such as `acc,none`.

    Metrics that are no single number, or that a filter makes of changed answers, have no error here.

    Args:
        task: a task that was evaluated.
        scores: the score of each request, by task, document and number within the document.
        drawings: drawings of all documents together.
        repetitions: aggregations of all documents.
        seed: the seed of the draws.
    """
    documents, drawn = _documents(task.instances), {}
    generator, count = np.random.default_rng(seed), min(MOST, max(FEWEST, drawings // len(documents)))
    for texts, requests in documents:
        if texts not in drawn:  # equal texts have equal draws, so that equal documents also share the noise
            drawn[texts] = _drawings(task, requests, [scores[place_of(one)] for one in requests], count, generator)
    repeated: dict[str, list[float]] = defaultdict(list)
    for _ in range(repetitions):
        picks = generator.integers(count, size=len(drawn))
        taken = {texts: of[pick % len(of)] for (texts, of), pick in zip(drawn.items(), picks, strict=True)}
        for metric, value in _aggregated(task, [taken[texts] for texts, _ in documents]).items():
            repeated[metric].append(value)
    unbiased = (count / (count - 1)) ** 0.5  # a document has only `count` values, whose spread is too small by this
    spread = {metric: _spread(values) * unbiased for metric, values in repeated.items()}
    filters = [name for name in task.instances[0].filtered_resps if _keeps_answers(task.instances, name)]
    return {f"{metric},{name}": error for metric, error in spread.items() for name in filters}


def group_errors(
    group: Group, errors: Mapping[str, Mapping[str, float]], documents: Mapping[str, int]
) -> dict[str, float]:
    """The Monte Carlo standard error of each metric of a group: a weighted mean over tasks with independent draws.

    A metric has no error here if one of the tasks has none.

    Args:
        group: a group of the harness.
        errors: the errors of each task's metrics.
        documents: the number of documents of each task.
    """
    tasks = [task.task_name for task in group.get_all_tasks()]
    found = {}
    for settings in group.aggregate_metric_list or ():
        for key in errors[tasks[0]]:
            if key.partition(",")[0] == settings.metric and all(key in errors[task] for task in tasks):
                weights = [documents[task] if settings.weight_by_size else 1 for task in tasks]
                parts = [weight * errors[task][key] for weight, task in zip(weights, tasks, strict=True)]
                found[key] = math.hypot(*parts) / sum(weights)
    return found


def _spread(values: Sequence[float]) -> float:
    """The standard deviation; exactly 0 for equal values."""
    return float(np.std(np.array(values) - values[0], ddof=1))


def _drawings(
    task: Task, requests: list[Instance], scores: Sequence[Score], count: int, generator: np.random.Generator
) -> Drawings:
    """The metrics of one document for `count` drawings of its scores; one drawing if the scores have no error."""
    mean_S = np.array([score.loglikelihood for score in scores])
    se_S = np.array([score.se_mc for score in scores])
    first = {request.args: i for i, request in reversed(list(enumerate(requests)))}
    same_S = [first[request.args] for request in requests]
    found: Drawings = []
    for _ in range(count if se_S.any() else 1):
        drawn_S = mean_S + se_S * generator.standard_normal(len(se_S))[same_S]
        answers: list[Any] = drawn_S.tolist()
        if requests[0].request_type != "loglikelihood_rolling":
            answers = [(nats, bool(score.is_greedy)) for nats, score in zip(answers, scores, strict=True)]
        made: Any = task.process_results(requests[0].doc, answers)
        found.append(made)
    return found


def _aggregated(task: Task, documents: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Each metric that is one number, from the metrics of all documents, as the harness makes it."""
    values: dict[str, list[Any]] = defaultdict(list)
    for document in documents:
        for metric, value in document.items():
            values[metric].append(value)
    aggregate: Mapping[str, Callable[..., Any]] = task.aggregation() or {}
    metrics = {metric: aggregate.get(metric, mean)(of) for metric, of in values.items()}
    return {metric: float(value) for metric, value in metrics.items() if isinstance(value, float | int | np.number)}


def _documents(requests: Sequence[Instance]) -> list[tuple[Any, list[Instance]]]:
    """The texts of each document's requests, and the requests, in the document's order."""
    documents: dict[Any, list[Instance]] = defaultdict(list)
    for request in requests:
        documents[request.doc_id].append(request)
    ordered = [sorted(of, key=lambda request: request.idx) for of in documents.values()]
    return [(_texts(of), of) for of in ordered]


def _texts(requests: list[Instance]) -> tuple[Any, ...]:
    """What was scored, and the document's answer: two documents with one question may have two right answers."""
    return (*(request.args for request in requests), repr(requests[0].doc))


def _keeps_answers(requests: Sequence[Instance], filter_name: str) -> bool:
    return all(request.filtered_resps[filter_name] == request.resps[0] for request in requests)
