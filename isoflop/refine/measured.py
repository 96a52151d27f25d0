"""This sweep's own speed: a fixed time for each run and FLOP/s beyond it, from the wall times of its finished runs."""

from collections.abc import Iterable

from isoflop.cost import MOST_SPEED, Machine, work_flops
from mdm_jax.spec import RunSpec

FEWEST = 4


def measured_machine(finished: Iterable[tuple[RunSpec, float]]) -> Machine | None:
    """A machine as fast as the one that ran the sweep; None where fewer than four runs measured their time.

    Least squares of relative errors of `seconds = overhead + work / speed`; without the overhead where it came out
    negative.

    Args:
        finished: runs and their wall seconds.
    """
    pairs = [(1 / wall, work_flops(run) / wall) for run, wall in finished if wall > 0]
    if len(pairs) < FEWEST:
        return None
    aa, ab, bb = (sum(p[i] * p[j] for p in pairs) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(p[0] for p in pairs), sum(p[1] for p in pairs)
    determinant = aa * bb - ab * ab
    overhead = (a * bb - b * ab) / determinant if determinant > 1e-12 * aa * bb else 0.0
    per_flop = (b * aa - a * ab) / determinant if determinant > 1e-12 * aa * bb else 0.0
    if overhead < 0 or per_flop <= 0:
        overhead, per_flop = 0.0, b / bb
    speed = min(1 / per_flop, MOST_SPEED)  # where all runs take the same time, the work's share is not determined
    return Machine().given(peak_flops_per_second=speed, run_overhead_seconds=overhead)
