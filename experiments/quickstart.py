"""Both families on the docstrings and manuals of this Python installation, in minutes: what `make demo` runs.

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m isoflop.plan --config experiments/quickstart.py --out runs/quickstart
    python -m isoflop.run runs/quickstart --jobs 2
    python -m analysis.report runs/quickstart

Four curves of each family. An MDM needs far more FLOPs than an ARM for the same loss, so its budgets lie that much
higher: the two families' loss ranges overlap, and the compute gap is interpolated, not extrapolated. Rows are 64 bytes
and batches small, because the optimal models have thousands of parameters and need many steps.

Hardware: two CPU cores. Time: about 13 minutes of CPU, under 9 of the wall with both cores half busy elsewhere.
Result: every budget with an interior minimum, and a gap of 87 [46, 128] at a loss of 2.55 under 6ND, 50 [26, 72] under
exact FLOPs (experiments/results/quickstart).
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: eight curves of six or seven sizes, each reaching beyond its expected optimum on both sides."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 64
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.curves = [
        curve("arm", 4e9, "1x8 1x12 1x16 1x20 1x24 2x20 2x28"),
        curve("arm", 1e10, "1x8 1x12 1x16 1x24 2x20 2x24 2x32"),
        curve("arm", 2.5e10, "1x12 1x16 1x24 2x20 2x24 2x32 2x40"),
        curve("arm", 6e10, "1x16 1x24 2x20 2x24 2x32 2x40 2x56"),
        curve("mdm", 8e10, "1x8 1x12 1x16 1x24 2x20 2x28"),
        curve("mdm", 2e11, "1x12 1x16 1x24 2x20 2x28 2x40"),
        curve("mdm", 4.5e11, "1x16 1x24 2x20 2x28 2x40 2x56"),
        curve("mdm", 1e12, "1x24 2x20 2x28 2x32 2x40 2x64"),
    ]
    return config.lock()
