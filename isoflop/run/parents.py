"""Which run starts from which: a plan's parents are checked before anything runs, and the longest chain goes first."""

from collections.abc import Iterable, Sequence

from isoflop.cost import work_flops
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


def chain_flops(runs: Iterable[RunSpec]) -> dict[str, int]:
    """The `exact` FLOPs from a run's start to the end of the last of the runs that wait for it in turn, by run_id."""
    after: dict[str, int] = {}
    chains: dict[str, int] = {}
    for run in sorted(runs, key=lambda run: run.schedule.steps, reverse=True):  # children before their parents
        chains[run.run_id] = chain = work_flops(run) + after.get(run.run_id, 0)
        parent = run.cell.parent_run_id
        after[parent] = max(after.get(parent, 0), chain)
    return chains
