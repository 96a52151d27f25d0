"""The Monte Carlo error of a metric: closed forms for an accuracy and a perplexity, and the spread over new draws."""

import math
from typing import Any, cast

import numpy as np
import pytest
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.config.group import AggMetricConfig
from lm_eval.tasks import TaskManager
from local_tasks import write_tasks

from mdm_jax.evaluate.harness.cache import Score
from mdm_jax.evaluate.harness.metric_errors import group_errors, metric_errors

DOCUMENTS = 40
PAGES = [{"page": f"page {i}"} for i in range(3)]
CHOICES = [{"question": f"question {i}", "gold": i % 2, "choices": ["a", "b"]} for i in range(DOCUMENTS)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), {"local_choice": CHOICES, "local_rolling": PAGES})
    return TaskManager(include_path=folder, include_defaults=False).load(
        ["local_choice", "local_rolling", "local_cloze"]
    )


def answered(task, score):
    """The task's requests, each answered by `score(request)`, and the scores by place."""
    task.build_all_requests()
    scores = {}
    for request in task.instances:
        found = score(request)
        scores[request.task_name, request.doc_id, request.idx] = found
        request.resps = [found.loglikelihood if rolling(request) else (found.loglikelihood, bool(found.is_greedy))]
    task.apply_filters()
    return scores


def rolling(request: Instance) -> bool:
    return request.request_type == "loglikelihood_rolling"


def upper_normal(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_an_accuracys_error_is_that_of_answers_which_change_places(tasks):
    task, se = tasks["tasks"]["local_choice"], 0.5
    difference = np.random.default_rng(0).uniform(-3, 3, DOCUMENTS)
    scores = answered(task, lambda request: Score(difference[request.doc_id] * request.idx, se))
    right = [upper_normal(d / (se * math.sqrt(2))) for d in difference]
    expected = math.sqrt(sum(p * (1 - p) for p in right)) / DOCUMENTS
    assert metric_errors(task, scores)["acc,none"] == pytest.approx(expected, rel=0.2)


def test_the_error_is_the_spread_over_new_draws(tasks):
    """Scores drawn anew around the same truth: the mean reported error is the accuracies' standard deviation."""
    task, se, draw = tasks["tasks"]["local_choice"], 0.4, np.random.default_rng(1)
    truth = draw.normal(0, 1.5, (DOCUMENTS, 2))
    accuracies, errors = [], []
    for i in range(60):
        scores = answered(
            task, lambda request: Score(float(truth[request.doc_id, request.idx]) + se * draw.normal(), se)
        )
        best = [np.argmax([scores["local_choice", d, c].loglikelihood for c in (0, 1)]) for d in range(DOCUMENTS)]
        accuracies.append(np.mean([choice == row["gold"] for choice, row in zip(best, CHOICES, strict=True)]))
        errors.append(metric_errors(task, scores, drawings=320, repetitions=50, seed=i)["acc,none"])
    spread = np.std(accuracies, ddof=1)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=3 / math.sqrt(2 * 59))


def test_a_perplexitys_error_is_that_of_the_sum_of_scores(tasks):
    task = tasks["tasks"]["local_rolling"]
    scores = answered(task, lambda request: Score(-20.0 - request.doc_id, 0.1 * (1 + request.doc_id)))
    errors, length = metric_errors(task, scores, drawings=600), sum(len(row["page"]) for row in PAGES)
    nats = math.sqrt(0.1**2 + 0.2**2 + 0.3**2) / length
    assert errors["bits_per_byte,none"] == pytest.approx(nats / math.log(2), rel=0.2)
    assert errors["byte_perplexity,none"] == pytest.approx(math.exp(63 / length) * nats, rel=0.2)
    assert errors == metric_errors(task, scores, drawings=600), "the draws are seeded"


def test_exact_scores_have_no_error_and_greedy_answers_no_noise(tasks):
    exact, noisy = tasks["tasks"]["local_choice"], tasks["tasks"]["local_cloze"]
    a_third_right = answered(exact, lambda request: Score(-float(request.idx if request.doc_id % 3 else -request.idx)))
    assert metric_errors(exact, a_third_right) == {"acc,none": 0.0, "acc_norm,none": 0.0}
    scores = answered(noisy, lambda request: Score(-1.0, 0.5, True))
    errors = metric_errors(noisy, scores)
    assert errors["acc,none"] == 0
    assert errors["perplexity,none"] == pytest.approx(math.e * 0.5 / math.sqrt(2), rel=0.2)


def test_equal_texts_share_their_noise(tmp_path):
    """Two equal documents are scored by the same draws: their mean has the error of one."""
    folder = write_tasks(tmp_path, {"local_rolling": [{"page": "page"}] * 4})
    task = TaskManager(include_path=folder, include_defaults=False).load(["local_rolling"])["tasks"]["local_rolling"]
    scores = answered(task, lambda request: Score(-4.0, 0.1))
    error = metric_errors(task, scores)["bits_per_byte,none"]
    assert error == pytest.approx(0.1 / 4 / math.log(2), rel=0.2)


@pytest.mark.parametrize("by_size", [True, False])
def test_a_groups_error_is_that_of_a_weighted_mean(tasks, by_size):
    """Against the harness's own mean of many drawings of the tasks' metrics."""
    settings = AggMetricConfig(metric="acc", weight_by_size=by_size, filter_list=["none"])
    group = Group("words", aggregate_metric_list=[settings])
    for task in ("local_choice", "local_cloze"):
        group.add(tasks["tasks"][task])
    errors, documents = (
        {"local_choice": {"acc,none": 0.1}, "local_cloze": {"acc,none": 0.3, "perplexity,none": 9.0}},
        {},
    )
    documents = {"local_choice": 40, "local_cloze": 10}
    draw, means = np.random.default_rng(0), []
    for _ in range(2000):
        drawn = {
            t: {"acc,none": draw.normal(0, of["acc,none"]), "sample_len": documents[t]} for t, of in errors.items()
        }
        values: Any = group.aggregate(cast("Any", drawn))
        means.append(values["acc,none"])
    found = group_errors(group, errors, documents)
    assert found == {"acc,none": pytest.approx(np.std(means), rel=0.06)}
    assert group_errors(group, errors | {"local_cloze": {}}, documents) == {}
