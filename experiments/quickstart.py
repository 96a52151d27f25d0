"""The sweep that `make demo` runs: both families on the documentation of this Python installation, in minutes.

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m isoflop.plan --config experiments/quickstart.py --out runs/quickstart
    python -m isoflop.run runs/quickstart --jobs 2
    python -m analysis.report runs/quickstart

Each family has four curves. An MDM needs far more FLOPs than an ARM for the same loss. So the MDM's budgets are larger:
the loss ranges of the two families overlap, and the compute gap is interpolated. Rows are 64 bytes and batches are
small, because the optimal models have thousands of parameters and need many steps.

Hardware: two CPU cores. Time: the recorded runs took 25 minutes in sum, two at a time.
Result: all eight budgets have an interior minimum. The gap is 87 [46, 128] under 6ND and 50 [26, 72] under exact FLOPs,
at a loss of 2.55 nats per byte (experiments/results/quickstart).
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: eight curves of six or seven sizes, with sizes on both sides of each expected optimum."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 64
    config.run.hardware.layers = "unroll"
    config.run.hardware.checkpoint_every = 5000  # 5 to 30 s of steps; every 1000 costs 4% of the sweep
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
