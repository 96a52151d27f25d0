"""The speed of the machine that a sweep runs on, from the wall times of its finished runs."""

import math
from collections.abc import Iterable

import numpy as np

from isoflop.cost import MOST_SPEED, Machine
from mdm_jax.spec import RunSpec

ASSUMED_WEIGHT = 0.5
"""Weight of the assumed machine, in finished runs."""
LEAST_SHARE = 0.1
"""No part of a run's time falls below this share of the assumed one, because few runs cannot tell the parts apart."""


def measured_machine(finished: Iterable[tuple[RunSpec, float]]) -> Machine | None:
    """The machine whose estimates are nearest to the times of the finished runs; None without any time.

    First, all assumed times are scaled by the mean ratio of measured to assumed times. Then least squares of the
    relative errors corrects each of the three parts of a run's time: fixed, per step, per FLOP. A ridge penalty keeps
    the parts at the scaled assumption where the runs cannot tell them apart.

    Args:
        finished: runs and their wall seconds.
    """
    assumed = Machine()
    timed = [(assumed.time_parts(run), wall) for run, wall in finished if wall > 0]
    if not timed:
        return None
    level = math.exp(sum(math.log(wall / sum(parts)) for parts, wall in timed) / (len(timed) + ASSUMED_WEIGHT))
    relative = [[level * part / wall for part in parts] for parts, wall in timed]
    rows = np.concatenate([np.array(relative), ASSUMED_WEIGHT * np.eye(3)])
    targets = np.array([1.0] * len(timed) + [ASSUMED_WEIGHT] * 3)
    shares = np.maximum(np.linalg.lstsq(rows, targets, rcond=None)[0], LEAST_SHARE)
    overhead, step, work = (float(level * share) for share in shares)
    return assumed.with_known(
        run_overhead_seconds=assumed.run_overhead_seconds * overhead,
        step_seconds=assumed.step_seconds * step,
        peak_flops_per_second=min(assumed.peak_flops_per_second / work, MOST_SPEED),
    )
