"""Training curves of a sweep's runs, from the JSON lines that each run leaves in `metrics/`.

A run's part files are named by their first step and hold one row a logged step: step, loss (nats per token), lr, ….
A last line that a crash cut off is left out. A run that started from a parent's checkpoint has rows from there on; its
curve is the parent's followed by its own, as if it had been trained alone.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs.groups import check_one_group
from analysis.runs.load import numbers, read_runs, records, select, usable_runs
from mdm_jax.files.layout import METRICS_FOLDER, RUNS_FOLDER
from mdm_jax.files.storage import Path, as_path
from mdm_jax.train.metrics import metric_rows

FACTS = ("family", "params_non_embedding", "params", "budget", "lr_final_fraction", "seed", "flops_with_head")


def read_curves(sweep: str | os.PathLike[str], where: str | Sequence[str] = ()) -> pd.DataFrame:
    """One row a logged step: run_id, family, N, step, tokens, flops_6nd, flops_exact, loss, lr and the run's facts.

    Tokens and FLOPs of a step are the run's total times step / steps: batches are equal.

    Args:
        sweep: a sweep's directory, with `runs/<run_id>/metrics/`.
        where: which runs to read, see `read_runs`; their groups must be one, for an envelope would pool them.

    Raises:
        ValueError: no run has a curve, the runs are of several groups, a training loss is weighted and so no NELBO, or
            a metrics file (named) is not JSON lines.
    """
    root = as_path(sweep)
    runs = read_runs(root, where=where)
    check_one_group(usable_runs(runs))
    weighted = sorted({name for name in usable_runs(runs)["objective_variant"] if ":" in name})
    if weighted:
        raise ValueError(
            f"{sweep}: the training loss of {weighted[0]} is not the NELBO, so its curve compares with no other;"
            " read the runs' evaluations instead (python -m analysis.report)"
        )
    folder = root / RUNS_FOLDER if (root / RUNS_FOLDER).is_dir() else root
    everybody = read_runs(root) if where else runs  # a parent may be of another group
    parents = dict(zip(everybody["run_id"], everybody["parent_run_id"], strict=True))
    tables = []
    for row in records(runs):
        if row["excluded_reason"] or not (row["steps"] > 0):
            continue
        curve = _whole_curve(folder, str(row["run_id"]), parents)
        if len(curve):
            tables.append(_with_facts(curve, row))
    if not tables:
        raise ValueError(f"{sweep}: no usable run has a training curve in runs/<run_id>/metrics/*.jsonl")
    return pd.concat(tables, ignore_index=True)


def _whole_curve(folder: Path, name: str, parents: Mapping[str, str]) -> pd.DataFrame:
    """The run's curve behind those of its parents, each up to where the next begins."""
    curves: list[pd.DataFrame] = []
    seen: set[str] = set()
    first = math.inf
    while name and name not in seen and "/" not in name and name not in (".", ".."):
        seen.add(name)
        curve = _own_curve(folder / name / METRICS_FOLDER)
        curve = select(curve, curve["step"] < first) if len(curve) else curve
        if len(curve):
            first = float(numbers(curve, "step")[0])
            curves.insert(0, curve)
        name = parents.get(name, "")
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


def _own_curve(folder: Path) -> pd.DataFrame:
    """step, loss and lr of one run, by rising step; empty without metrics."""
    rows = [row for place, content in metric_rows(folder) if (row := _row(place, content))[0] > 0]
    table = pd.DataFrame(rows, columns=["step", "loss", "lr"], dtype=np.float64)
    return table.drop_duplicates("step", keep="last").sort_values("step")


def _row(place: str, content: Any) -> tuple[float, float, float]:
    try:
        step, loss, rate = (float(value) for value in (content["step"], content["loss"], content.get("lr", math.nan)))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise ValueError(f"{place} is not a row with step and loss") from None
    if not (math.isfinite(loss) and loss > 0):
        raise ValueError(f"{place} has loss {loss:g}, which no usable run has; must be above 0")
    return step, loss, rate


def _with_facts(curve: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    share = np.asarray(curve["step"], np.float64) / row["steps"]
    facts = {name: [row[name]] * len(curve) for name in FACTS if name in row}
    amounts = {name: row[name] * share for name in ("tokens", "flops_6nd", "flops_exact", "flops_with_head")}
    return curve.assign(run_id=row["run_id"], **(facts | amounts))
