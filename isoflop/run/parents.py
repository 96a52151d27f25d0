"""Checks the parents of a plan's runs before anything is trained."""

from collections.abc import Sequence

from mdm_jax.run.parent import check_parent
from mdm_jax.spec import RunSpec


def check_parents(runs: Sequence[RunSpec]) -> Sequence[RunSpec]:
    """The runs of a plan, unchanged. Each parent must be in the plan, and its child must be able to start from it.

    A parent takes fewer steps than its child, so there are no cycles.

    Raises:
        ValueError: a parent is not in the plan, or the child cannot start from it; both are named.
    """
    by_id = {run.run_id: run for run in runs}
    for run in runs:
        parent = run.cell.parent_run_id
        if parent and parent not in by_id:
            fix = "give the same python -m isoflop.plan command again"
            raise ValueError(f"run {run.run_id}: its parent {parent} is not in the plan; {fix}")
        if parent:
            check_parent(run, by_id[parent])
    return runs
