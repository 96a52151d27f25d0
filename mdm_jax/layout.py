"""A sweep's folder: the names of its files and folders, and the steps that a run has saved.

```
SWEEP/plan.jsonl                    one sealed RunSpec on each line
SWEEP/runs/<run_id>/spec.json       the run's own spec
                    metrics/        losses of the training steps, in part files
                    checkpoints/    a folder for each saved step
                    result.json     the run's row of the run table
```
"""

import re

from mdm_jax.files.storage import Path, entries, refuse_link

PLAN_FILE = "plan.jsonl"
RUNS_FOLDER = "runs"
SPEC_FILE = "spec.json"
METRICS_FOLDER = "metrics"
CHECKPOINTS_FOLDER = "checkpoints"
RESULT_FILE = "result.json"


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
