"""Tasks of lm-evaluation-harness on a trained model: the harness's results, with a section `mdm_jax` beside them.

The section has the model, the estimator of each task, the Monte Carlo error of each metric (the harness's own errors
are those over documents), the number of contexts that were cut, and what conditions the windows of a rolling task.
"""

import contextlib
import difflib
import os
import random
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval import __version__ as harness_version
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from mdm_jax.evaluate.harness.adapter import HarnessModel
from mdm_jax.evaluate.harness.metric_errors import group_errors, metric_errors
from mdm_jax.spec.validation import require, to_dict

BOOTSTRAP_DRAWS = 1000
"""Resamples for the errors over documents that have no closed form; their relative error is 2%."""
ROLLING = "loglikelihood_rolling"
WRITING = "generate_until"


def evaluate_tasks(
    model: HarnessModel,
    tasks: Sequence[str],
    include_path: str | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    bootstrap_draws: int = BOOTSTRAP_DRAWS,
    include_defaults: bool = True,
) -> dict[str, Any]:
    """The harness's results of the tasks, and the section `mdm_jax`, as plain types except what the harness leaves.

    Args:
        model: the model.
        tasks: names of tasks, groups or tags, or patterns such as `mmlu_*`, or YAML files.
        include_path: a folder of further tasks.
        limit: documents of each task; None takes all.
        num_fewshot: examples before each question, for tasks that do not fix them; None takes the task's own number.
        bootstrap_draws: resamples for errors over documents; 0 leaves these errors out.
        include_defaults: whether the harness's own tasks are known too; reading their index takes seconds.

    Raises:
        ValueError: a task is not there, has a fault, asks for images, or scores texts with guidance;
            or an answer does not fit a row.
        OSError: a data set cannot be read.
    """
    require(limit is None or limit > 0, "limit", limit, "1 or more documents")
    random.seed(DEFAULT_RANDOM_SEED)  # as the harness does: some tasks shuffle their answers with these generators
    np.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002
    shots = num_fewshot is None or num_fewshot >= 0
    require(shots, "num_fewshot", num_fewshot, "0 or more examples")
    with _faults_in_one_line(tasks):
        loaded = _loaded(tasks, include_path, include_defaults)
    for name, task in loaded["tasks"].items():
        _refuse_unanswerable(task)
        if task.OUTPUT_TYPE == ROLLING:
            model.estimators.of_text(name)  # refuses guidance now, before other tasks are scored
        if num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    model.greedy_tasks = frozenset(name for name, task in loaded["tasks"].items() if _reads_greedy(task))
    with _in_this_process(), _faults_in_one_line(tasks):
        results = evaluate(model, loaded, limit=limit, bootstrap_iters=bootstrap_draws, log_samples=False)
    assert results is not None  # only other processes than the first get None
    return dict(results) | {"lm_eval_version": harness_version, "mdm_jax": _own_section(model, loaded)}


def _own_section(model: HarnessModel, loaded: Mapping[str, Any]) -> dict[str, Any]:
    tasks: dict[str, Task] = loaded["tasks"]
    rolling = [name for name, task in tasks.items() if task.OUTPUT_TYPE == ROLLING]
    writing = [name for name, task in tasks.items() if task.OUTPUT_TYPE == WRITING]
    errors = {name: {} if name in writing else metric_errors(task, model.scores) for name, task in tasks.items()}
    documents = {name: len({request.doc_id for request in task.instances}) for name, task in tasks.items()}
    of_groups = {name: group_errors(group, errors, documents) for name, group in loaded["groups"].items()}
    section = {
        "name": model.name,
        "model": repr(model.model),
        "family": model.estimators.family.value,
        "fingerprint": model.model.fingerprint,
        "seed": model.seed,
        "row_tokens": model.max_length,
        "preset": model.estimators.preset,
        "estimators": {name: to_dict(model.estimators.of(name)) for name in tasks},
        "se_mc": errors | of_groups,
        "cut_contexts": {name: model.cut_contexts.get(name, 0) for name in tasks},
    }
    if writing:
        section["writing"] = {**model.writing, "tasks": writing}
    if rolling:
        windows = {"first_window_follows": "EOS", "later_windows_follow_tokens": model.rolling_context}
        section["rolling"] = windows | {"tasks": rolling}
    return section


def _loaded(names: Sequence[str], include_path: str | None, include_defaults: bool) -> Any:
    """The harness's tasks and groups of these names."""
    require(bool(names), "tasks", list(names), "at least one name")
    manager = _manager(names, include_path, include_defaults)
    wanted = []
    for name in names:
        found = manager.match_tasks([name]) or ([name] if os.path.isfile(name) else [])
        if not found:
            near = difflib.get_close_matches(name, manager.all_tasks, 3, 0.6)
            hint = f"near names: {', '.join(near)}" if near else "`lm_eval ls tasks` lists all"
            raise ValueError(f"tasks: no task, group or tag is called {name!r}; {hint}")
        wanted += [one for one in found if one not in wanted]
    return manager.load(wanted)


def _manager(names: Sequence[str], include_path: str | None, include_defaults: bool) -> TaskManager:
    """The index of tasks. The harness reads its own ten thousand files only if a name is not in `include_path`."""
    require(include_path is None or os.path.isdir(include_path), "include_path", include_path, "a folder")
    if include_path is not None:
        own = TaskManager(include_path=include_path, include_defaults=False)
        if not include_defaults or all(own.match_tasks([name]) or os.path.isfile(name) for name in names):
            return own
    return TaskManager(include_path=include_path)


def _refuse_unanswerable(task: Task) -> None:
    name = task.config.task
    known = ("loglikelihood", ROLLING, "multiple_choice", WRITING)
    bound = f"one of {', '.join(known)}"
    require(task.OUTPUT_TYPE in known, f"output_type of {name}", task.OUTPUT_TYPE, bound)
    require(not getattr(task, "MULTIMODAL", False), f"input of {name}", "images or sound", "text")
    safe = not getattr(task, "UNSAFE_CODE", False)
    require(safe, f"unsafe_code of {name}", True, "false: the task would run code that the model wrote")


def _reads_greedy(task: Task) -> bool:
    """Whether a metric of the task may read if an answer is the greedy one, which costs an MDM a forward a token."""
    plain = type(task).process_results is ConfigurableTask.process_results
    own_code = callable(task.config.process_results) or not plain
    return task.OUTPUT_TYPE == "loglikelihood" or own_code or "exact_match" in (task.aggregation() or {})


@contextlib.contextmanager
def _faults_in_one_line(tasks: Sequence[str]) -> Iterator[None]:
    """Turns an error that a task's own settings or data cause in the harness into a ValueError that names the tasks.

    Such errors have many types: of templates, of data sets, of lists. An error of the model stays what it is.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
        if HarnessModel.__module__ in modules or modules[-1].startswith("mdm_jax."):
            raise
        what = f"tasks {', '.join(tasks)}: the harness cannot use their settings or their data"
        raise ValueError(f"{what}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """The harness resamples without processes of its own, and what it prints goes to standard error.

    It would fork this process, whose threads belong to the device, and a fork of threads may hang.
    """
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before
