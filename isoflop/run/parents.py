"""Which run starts from which: a plan's parents are checked before anything runs."""

from collections.abc import Sequence

from mdm_jax.run.parent import check_parent
from mdm_jax.spec import RunSpec


def check_parents(runs: Sequence[RunSpec]) -> Sequence[RunSpec]:
    """The runs of a plan, if each parent is one of them and can be what its child starts from.

    A parent takes fewer steps than its child, so that there are no cycles.

    Raises:
        ValueError: a parent is not in the plan, or is another run; both are named.
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
