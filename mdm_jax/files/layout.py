"""A sweep's folder: the names of its files and folders, the lines of its plan, and the steps that a run has saved.

```
SWEEP/plan.jsonl                    one sealed RunSpec on each line
SWEEP/runs/<run_id>/spec.json       the run's own spec
                    metrics/        losses of the training steps, in part files
                    checkpoints/    a folder for each saved step
                    profile/        jax's profile of the steps that --profile names
                    result.json     the run's row of the run table
```
"""

import re
from dataclasses import dataclass
from typing import Any

from mdm_jax.files.sealed_json import Damaged, Newer, numbered_lines, unseal
from mdm_jax.files.storage import Path, entries, is_file, refuse_link
from mdm_jax.spec import SCHEMA_VERSION, SEALED_SINCE, RunSpec, from_json

PLAN_FILE = "plan.jsonl"
RUNS_FOLDER = "runs"
SPEC_FILE = "spec.json"
METRICS_FOLDER = "metrics"
CHECKPOINTS_FOLDER = "checkpoints"
PROFILE_FOLDER = "profile"
SEAL_FILE = "sha256.json"
"""The seal of a checkpoint, in the checkpoint's own folder; see `train/seal.py`."""
RESULT_FILE = "result.json"
PLAN_AGAIN = "give the same python -m isoflop.plan command again to write it anew"


@dataclass(frozen=True)
class PlanLine:
    """One line of a plan. `tree` and `run` check it."""

    place: str
    """File and line, for messages."""
    text: str

    def tree(self) -> dict[str, Any]:
        """The line's JSON object.

        Raises:
            Damaged: the line is not a JSON object, or its seal does not match the content.
        """
        try:
            return unseal(self.text, SEALED_SINCE)
        except Damaged as error:
            raise Damaged(f"{self.place}: half-written or damaged ({error}); {PLAN_AGAIN}") from None

    def run(self) -> RunSpec:
        """The line's run.

        Raises:
            Damaged: see `tree`.
            Newer: a newer version of mdm-jax wrote the line.
            ValueError: the object is not the spec of a run.
        """
        try:
            return from_json(self.text)
        except ValueError as error:
            version = self.tree().get("schema_version")
            if not isinstance(version, int) or version <= SCHEMA_VERSION:
                raise ValueError(f"{self.place}: {error}; {PLAN_AGAIN}") from None
        known = f"schema_version = {version}, and this mdm-jax knows {SCHEMA_VERSION}"
        raise Newer(f"{self.place}: {known}: a newer one wrote the plan; update it")


def plan_lines(path: Path) -> list[PlanLine]:
    """The lines of a plan that are not blank; none if the file is absent.

    Raises:
        OSError: the file cannot be read now.
    """
    lines = numbered_lines(path.read_bytes()) if is_file(path) else []
    return [PlanLine(f"{path} line {number}", line) for number, line in lines]


def read_spec(folder: Path) -> RunSpec:
    """The spec of the run in a folder.

    Raises:
        ValueError: its file (named) is damaged, or is not the spec of a run.
        OSError: the file is absent, or cannot be read now.
    """
    file = folder / SPEC_FILE
    try:
        return from_json(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def steps_in(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints in a folder, newest first; empty if there are none. A checkpoint may be damaged.

    Raises:
        ValueError: the folder, or a step in it, is a link.
        OSError: the folder cannot be read now.
    """
    refuse_link(checkpoints)
    steps = [entry for entry in entries(checkpoints) if re.fullmatch(r"0|[1-9]\d*", entry.name, re.ASCII)]
    for step in steps:
        refuse_link(step)
    return sorted((int(step.name) for step in steps), reverse=True)
