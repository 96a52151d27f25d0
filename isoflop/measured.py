"""The speed of this sweep's own machine, from the wall times of its finished runs."""

import math
from collections.abc import Iterable

import numpy as np

from isoflop.cost import MOST_SPEED, Machine
from mdm_jax.spec import RunSpec

PRIOR = 0.5
"""Weight of the assumed machine, in runs: half a run for the level of the times, and this share for each part."""
LEAST_SHARE = 0.1
"""No part of a run's time falls below this share of the assumed one: few runs cannot tell the parts apart."""


def measured_machine(finished: Iterable[tuple[RunSpec, float]], assumed: Machine | None = None) -> Machine | None:
    """The machine whose estimates are nearest to the times of the finished runs; None where no run has measured any.

    First all assumed times are scaled by the mean ratio of measured to assumed ones. Then least squares of relative
    errors corrects the three parts of a run's time (fixed, per step, per FLOP) one by one, as far as the runs tell them
    apart: without that a ridge keeps them at the scaled assumption.

    Args:
        finished: runs and their wall seconds.
        assumed: what is believed before anything is measured; the default machine if left out.
    """
    assumed = assumed or Machine()
    timed = [(assumed.parts(run), wall) for run, wall in finished if wall > 0]
    if not timed:
        return None
    level = math.exp(sum(math.log(wall / sum(parts)) for parts, wall in timed) / (len(timed) + PRIOR))
    relative = [[level * part / wall for part in parts] for parts, wall in timed]
    rows = np.concatenate([np.array(relative), PRIOR * np.eye(3)])
    targets = np.array([1.0] * len(timed) + [PRIOR] * 3)
    shares = np.maximum(np.linalg.lstsq(rows, targets, rcond=None)[0], LEAST_SHARE)
    overhead, step, work = (float(level * share) for share in shares)
    return assumed.given(
        run_overhead_seconds=assumed.run_overhead_seconds * overhead,
        step_seconds=assumed.step_seconds * step,
        peak_flops_per_second=min(assumed.peak_flops_per_second / work, MOST_SPEED),
    )
