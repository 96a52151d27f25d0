"""A larger sweep for two CPU cores than the quickstart: budgets over a factor of 1000, and six to nine sizes a curve.

    python -m mdm_jax.data.prepare --config experiments/cpu_overnight.py
    python -m isoflop.plan --config experiments/cpu_overnight.py --out runs/cpu_overnight
    python -m isoflop.run runs/cpu_overnight --jobs 2
    python -m mdm_jax.evaluate.likelihood runs/cpu_overnight --jobs 2
    python -m analysis.report runs/cpu_overnight

Rows are 128 bytes. All cells but four train on less than one epoch of the default corpus. The curves near the losses
that both families reach have two seeds. The sweep can be stopped and started at any time. To extend it, add a curve at
a larger budget and plan again: finished runs stay. The fourth command evaluates each MDM by two exact likelihoods, from
left to right and in the order of confidence, and the report shows the gap under each.

Hardware: two CPU cores. Time: the recorded runs took 91 minutes in sum, two at a time, and the likelihoods about 15
minutes.
Result, at a loss of 2.523 nats per byte: a gap of 63 [38, 120] under 6ND and 42 [28, 77] under exact FLOPs. Under exact
FLOPs it is 40 [25, 75] by the likelihood from left to right, and 40 [26, 73] in the order of confidence
(experiments/results/README.md).
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: ten curves of six to nine sizes, larger at larger budgets."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 128
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.curves = [
        curve("arm", 3e9, "1x4 1x8 1x12 1x16 1x20 1x24", seeds=[0, 1]),
        curve("arm", 1e10, "1x4 1x8 1x12 1x16 1x24 2x20 2x28", seeds=[0, 1]),
        curve("arm", 3e10, "1x8 1x12 1x16 1x20 1x24 2x20 2x28 2x40", seeds=[0, 1]),
        curve("arm", 1e11, "1x16 1x24 2x20 2x28 2x40 2x56"),
        curve("arm", 3e11, "1x24 2x20 2x28 2x40 2x56 2x72"),
        curve("arm", 1e12, "2x20 2x28 2x40 2x56 2x80 3x80"),
        curve("mdm", 1e11, "1x8 1x12 1x16 1x24 2x20 2x28 2x40", seeds=[0, 1]),
        curve("mdm", 3e11, "1x16 1x24 2x20 2x28 2x40 2x56", seeds=[0, 1]),
        curve("mdm", 1e12, "1x24 2x20 2x28 2x40 2x56 2x72", seeds=[0, 1]),
        curve("mdm", 3e12, "2x20 2x24 2x32 2x40 2x48 2x56 2x64 2x72 3x80"),
    ]
    return config.lock()
