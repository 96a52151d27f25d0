"""The quickstart's larger sibling: budgets over a factor of 300, up to seven sizes a curve, a night on two CPU cores.

    python -m mdm_jax.data.prepare --config experiments/cpu_overnight.py
    python -m isoflop.plan --config experiments/cpu_overnight.py --out runs/cpu_overnight
    python -m isoflop.run runs/cpu_overnight
    python -m analysis.report runs/cpu_overnight

Longer rows than the quickstart's (128 bytes), and less than two epochs over the default corpus for nearly all cells, so
that the laws are those of fresh data. It can be stopped and started at any point.

Hardware: two CPU cores. Time: see the last line of the plan.
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: ten curves of six sizes, which move up with the budget."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 128
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.curves = [
        curve("arm", 1e10, "1x8 1x12 1x16 1x24 2x20 2x28"),
        curve("arm", 3e10, "1x12 1x16 1x24 2x20 2x28 2x40"),
        curve("arm", 1e11, "1x16 1x24 2x20 2x28 2x40 2x56"),
        curve("arm", 3e11, "1x24 2x20 2x28 2x40 2x56 2x72"),
        curve("arm", 1e12, "2x20 2x28 2x40 2x56 2x80 3x80"),
        curve("mdm", 1e11, "1x12 1x16 1x24 2x20 2x28 2x40"),
        curve("mdm", 3e11, "1x16 1x24 2x20 2x28 2x40 2x56"),
        curve("mdm", 1e12, "1x24 2x20 2x28 2x40 2x56 2x72"),
        curve("mdm", 3e12, "2x24 2x32 2x40 2x56 2x72 3x80"),
        curve("mdm", 1e13, "2x40 2x48 2x64 2x80 3x80 3x96"),
    ]
    return config.lock()
