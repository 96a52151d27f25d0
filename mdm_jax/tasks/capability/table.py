"""The table of all models' answers as CSV: one row for each model, task and size.

The columns `right` and `corrected` have the right answers of each group of questions, between blanks, so that a
comparison can draw the questions anew. The other columns say the same as means with standard errors over the groups.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mdm_jax.files.results import csv_text, unescaped
from mdm_jax.files.storage import Path
from mdm_jax.spec.validation import require
from mdm_jax.tasks.capability.measure import RUN_COLUMNS, Measured
from mdm_jax.tasks.capability.questions import Answers, Task

COLUMNS = (
    *("model", "family", "params_non_embedding", *RUN_COLUMNS, "task", "size", "questions", "chance"),
    *("accuracy", "accuracy_se", "corrected_accuracy", "corrected_accuracy_se", "right", "corrected"),
)
MOST_BYTES = 1 << 28
MOST_GROUPS = 1 << 16


def accuracy(right_G: np.ndarray, chance: float) -> tuple[float, float]:
    """The share of right answers, and its standard error over the groups; NaN for a single group."""
    share_G = right_G * chance
    error = float(share_G.std(ddof=1)) / math.sqrt(len(share_G)) if len(share_G) > 1 else math.nan
    return float(share_G.mean()), error


def table_csv(rows: Sequence[Measured]) -> str:
    """The rows as CSV. An unknown number is an empty field."""
    return csv_text([COLUMNS, *(_cells(row) for row in rows)])


def _cells(row: Measured) -> list[Any]:
    shares = (*accuracy(row.answers.right_G, row.chance), *accuracy(row.answers.corrected_G, row.chance))
    means = ["" if math.isnan(share) else f"{share:.4f}" for share in shares]
    groups = [" ".join(f"{right:.6g}" for right in one) for one in (row.answers.right_G, row.answers.corrected_G)]
    known = [row.run[column] for column in RUN_COLUMNS]
    about = [row.model, row.family, row.params_non_embedding, *known, row.task.value, row.size, row.questions]
    return [*about, f"{row.chance:.6g}", *means, *groups]


def read_table(path: Path) -> list[Measured]:
    """The rows of a table that `table_csv` wrote.

    Raises:
        ValueError: the file is too large, or a column or a cell (named, with its line) is absent or malformed.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    require(len(content) <= MOST_BYTES, f"{path}: bytes", len(content), f"at most {MOST_BYTES}")
    lines = csv.DictReader(io.StringIO(content.decode(errors="replace"), newline=""))
    absent = [column for column in COLUMNS if column not in (lines.fieldnames or ())]
    require(not absent, f"{path}: columns", f"without {', '.join(absent)}", "those of a table of capabilities")
    rows = []
    try:
        for cells in lines:
            rows.append(_row({name: cells[name] for name in COLUMNS}))
    except (ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise ValueError(f"{path} line {lines.line_num}: {error}") from None
    require(bool(rows), f"{path}: rows", 0, "at least one")
    return rows


def refuse_copies(rows: Sequence[Measured]) -> None:
    """Returns if no model answers a task of one size twice.

    Raises:
        ValueError: one does, as when two tables have it.
    """
    seen: set[tuple[str, str, int]] = set()
    for row in rows:
        place = (row.model, row.task.value, row.size)
        what = f"{row.model}: rows of {row.task} {row.size}"
        require(place not in seen, what, "several", "one: a model is there twice")
        seen.add(place)


def _row(cells: dict[str, str]) -> Measured:
    run = {column: float(cells[column]) if cells[column] else None for column in RUN_COLUMNS}
    for column, number in run.items():
        require(number is None or 0 < number < math.inf, column, number, "above 0, and finite")
    chance, family = float(cells["chance"]), cells["family"]
    require(0 < chance <= 1, "chance", chance, "above 0, and at most 1")
    require(family in ("arm", "mdm"), "family", family, "arm or mdm")
    per_group = round(1 / chance)
    answers = Answers(*(_groups(cells, name, per_group) for name in ("right", "corrected")))
    same = len(answers.right_G) == len(answers.corrected_G)
    require(same, "groups in right", len(answers.right_G), f"{len(answers.corrected_G)}, those in corrected")
    about = (unescaped(cells["model"]), family, int(float(cells["params_non_embedding"])), run)
    answered = (Task(cells["task"]), int(cells["size"]), 1 / per_group, cells["questions"], answers)
    return Measured(*about, *answered)


def _groups(cells: dict[str, str], name: str, most: int) -> np.ndarray:
    right_G = np.array(cells[name].split(), np.float64)
    require(1 <= len(right_G) <= MOST_GROUPS, f"groups in {name}", len(right_G), f"from 1 to {MOST_GROUPS}")
    inside = bool(((right_G >= 0) & (right_G <= most)).all())
    require(inside, name, cells[name][:40], f"numbers from 0 to {most}")
    return right_G
