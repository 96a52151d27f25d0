"""Joins results of lm-evaluation-harness in one table: `python -m mdm_jax.evaluate.table RESULT.json ... [--csv]`.

It reads the files that `python -m mdm_jax.evaluate.harness --out` and the harness itself (`lm_eval --output_path`)
write. So a Hugging Face model such as GPT-2 stands beside the models of this project. A cell has the metric, its error
over documents, and its Monte Carlo error, which is 0 for an exact likelihood. A line below the table names each task
whose columns do not compare: another version, number of documents or number of examples.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import PurePath
from typing import Any

import numpy as np

from mdm_jax.command import DONE, aligned, exit_code, new_parser, one_line
from mdm_jax.files.results import csv_text
from mdm_jax.files.storage import as_path, is_file, write_atomic
from mdm_jax.spec import Likelihood
from mdm_jax.spec.validation import require

SECTION = "mdm_jax"
MOST_BYTES = 256 << 20
ARROWS = {True: " ↑", False: " ↓", None: ""}
LEGEND = "value ± error over documents ± Monte Carlo error; ↑ more is better, ↓ less is better"


@dataclass(frozen=True)
class Metric:
    """One metric of one task under one model, as its results file says.

    `se_data` is the harness's error over documents, and `se_mc` the Monte Carlo error; each is None if there is none.
    `method`, `guidance` and `draws` are those of this project's estimators, and empty for another model.
    """

    model: str
    task: str
    metric: str
    filter: str
    value: float
    se_data: float | None
    se_mc: float | None
    documents: int | None
    n_shot: int | None
    version: str
    higher_is_better: bool | None
    method: str
    guidance: float | None
    draws: int | None
    file: str


def read_file(path: str) -> list[Metric]:
    """The metrics of a results file.

    Raises:
        ValueError: the file is absent, or has no results of the harness.
        OSError: it cannot be read.
    """
    require(is_file(as_path(path)), "results", path, "a JSON file of the harness")
    length = as_path(path).stat().length  # checked before anything is read
    require(length <= MOST_BYTES, f"{path}: bytes", length, "at most 256 MiB for results without samples")
    try:
        tree = json.loads(as_path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    return read_tree(tree, path)


def read_tree(tree: Any, file: str) -> list[Metric]:
    """The metrics of results as the harness writes them.

    Args:
        tree: the content of a results file.
        file: its name, for messages and for a model without a name.

    Raises:
        ValueError: the tree has no results.
    """
    results = tree.get("results") if isinstance(tree, Mapping) else None
    if not isinstance(results, Mapping) or not all(isinstance(of, Mapping) for of in results.values()):
        raise ValueError(f"{file}: no results of lm-evaluation-harness: it has no section `results`")
    return [metric for task in results for metric in _metrics(tree, task, file)]


def _metrics(tree: Mapping[str, Any], task: str, file: str) -> list[Metric]:
    """The metrics of one task."""
    values, method = tree["results"][task], _at(tree, SECTION, "estimators", task, "method")
    better = _at(tree, "higher_is_better", task)
    found = []
    for key, value in values.items():
        metric, comma, of_filter = key.partition(",")
        number = _number(value)
        if not comma or metric.endswith("_stderr") or number is None:
            continue
        found.append(
            Metric(
                model=_model_name(tree, file),
                task=task,
                metric=metric,
                filter=of_filter,
                value=number,
                se_data=_number(values.get(f"{metric}_stderr,{of_filter}")),
                se_mc=_number(_at(tree, SECTION, "se_mc", task, key)),
                documents=_whole(_at(tree, "n-samples", task, "effective")),
                n_shot=_whole(_at(tree, "n-shot", task)),
                version=one_line(_at(tree, "versions", task)),
                higher_is_better=more if isinstance(more := _at(better, metric), bool) else None,
                method=one_line(method or ""),
                guidance=_number(_at(tree, SECTION, "estimators", task, "guidance")),
                draws=_whole(_at(tree, SECTION, "estimators", task, "draws")) if method == Likelihood.NELBO else None,
                file=file,
            )
        )
    return found


def _at(tree: Any, *keys: str) -> Any:
    """What stands under these keys, one below the other; None if a key is absent."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _number(value: Any) -> float | None:
    """The value as a number; None for the harness's "N/A"."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return float(value)
    return value if isinstance(value, float) else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _model_name(tree: Mapping[str, Any], file: str) -> str:
    """What the results say of their model; the file's name if they say nothing."""
    arguments = _at(tree, "config", "model_args")
    given = _at(arguments, "pretrained") if isinstance(arguments, Mapping) else arguments
    names = (_at(tree, SECTION, "name"), _at(tree, "model_name"), given, _at(tree, "config", "model"))
    return next((one_line(name) for name in names if name), PurePath(file).name)


def write_tree(path: str, tree: Mapping[str, Any]) -> None:
    """Writes results as JSON, whole or not at all.

    Raises:
        ValueError: the path is a link.
        OSError: no room or no access.
    """
    write_atomic(path, json.dumps(tree, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """A number of numpy as a number, and all else, such as a task's functions, as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def results_table(files: Sequence[Sequence[Metric]]) -> str:
    """Tasks and metrics as lines, and one column for each file, as text.

    Args:
        files: the metrics of each file.
    """
    names = _column_names(files)
    cells = [{(one.task, one.metric, one.filter): one for one in metrics} for metrics in files]
    lines = list(dict.fromkeys(key for column in cells for key in column))
    table = [["task", "metric", *names]]
    for key in lines:
        found = [column.get(key) for column in cells]
        known = next(one for one in found if one)
        metric = known.metric if known.filter == "none" else f"{known.metric} ({known.filter})"
        table.append([known.task, metric + ARROWS[known.higher_is_better], *(_cell(one) for one in found)])
    return "\n".join([*aligned(table, left=table[0]), LEGEND, *_estimators(files, names), *_differences(files, names)])


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    errors = ["?" if error is None else _short(error) for error in (metric.se_data, metric.se_mc)]
    return " ± ".join([_short(metric.value), *(errors if metric.se_mc is not None else errors[:1])])


def _short(value: float) -> str:
    """Four decimals, or five significant digits of a large number."""
    return f"{value:.5g}" if abs(value) >= 10 and math.isfinite(value) else f"{value:.4f}"


def _column_names(files: Sequence[Sequence[Metric]]) -> list[str]:
    """A different name for each file: the model's, with the file's name or path where several models have one name."""
    models = [metrics[0].model if metrics else "no metric" for metrics in files]
    paths = [PurePath(metrics[0].file) if metrics else PurePath() for metrics in files]
    plain = [PurePath(model).name or model for model in models]
    marks = ([path.name for path in paths], paths, range(1, len(files) + 1))
    ways = [plain, *([f"{name} ({more})" for name, more in zip(plain, of, strict=True)] for of in marks)]
    often = [Counter(way) for way in ways]
    return [
        next(way[i] for way, count in zip(ways, often, strict=True) if count[way[i]] == 1) for i in range(len(files))
    ]


def _estimators(files: Sequence[Sequence[Metric]], names: list[str]) -> list[str]:
    """How each model of this project was scored, tasks with one estimator together."""
    lines = []
    for name, metrics in zip(names, files, strict=True):
        tasks: dict[str, list[str]] = {}
        for one in metrics:
            if one.method:
                guided = f", guidance {one.guidance:g}, which is no likelihood" if one.guidance else ""
                draws = f", at most {one.draws} draws" if one.draws else ""
                tasks.setdefault(f"{one.method}{draws}{guided}", []).append(one.task)
        lines += [f"{name}: {', '.join(dict.fromkeys(of))} by {how}" for how, of in tasks.items()]
    return lines


def _differences(files: Sequence[Sequence[Metric]], names: list[str]) -> list[str]:
    """A line for each task whose columns do not compare."""
    lines = []
    for task in dict.fromkeys(one.task for metrics in files for one in metrics):
        first = [next((one for one in metrics if one.task == task), None) for metrics in files]
        for field, word in (("documents", "documents"), ("n_shot", "examples"), ("version", "version")):
            values = {name: getattr(one, field) for name, one in zip(names, first, strict=True) if one}
            if len(set(values.values())) > 1:
                shown = ", ".join(f"{value} in {name}" for name, value in values.items())
                lines.append(f"{task}: the columns do not compare: {word}: {shown}")
    return lines


def as_csv(files: Sequence[Sequence[Metric]]) -> str:
    """All metrics as CSV, one line for each metric of each file."""
    names = [field.name for field in fields(Metric)]
    return csv_text([names, *(astuple(one) for metrics in files for one in metrics)])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.evaluate.table", __doc__)
    flags.add_argument("results", nargs="+", metavar="RESULT.json", help="results files")
    flags.add_argument("--csv", action="store_true", help="CSV, one line for each metric of each file")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        files = [read_file(path) for path in dict.fromkeys(flags.results)]
        print(as_csv(files) if flags.csv else results_table(files), end="" if flags.csv else "\n")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
