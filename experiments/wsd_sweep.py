"""Both families with WSD trunks: each size is trained once to its largest budget, and each budget adds a cooldown.

    python -m mdm_jax.data.prepare --config experiments/wsd_sweep.py
    python -m isoflop.plan --config experiments/wsd_sweep.py --out runs/wsd
    python -m isoflop.run runs/wsd --jobs 2
    python -m analysis.report runs/wsd

With a cosine schedule, every cell is a run of its own. With WSD, the cells of one size share the part at a constant
learning rate (`isoflop/trunks.py`). The plan prints what that saves. A larger budget that is added later costs one
segment and one cooldown for each size. The recipe must not depend on the budget: `tiny_trunk` has one batch and one
rate for each size. To compare with cosine schedules, plan the same cells into another folder with `--set
run.schedule.kind=cosine`. Published laws from constant rates and cooldowns agree with tuned ones: arXiv 2512.10858
finds a factor 1.0245 in loss, and Hagele et al. 2024 (arXiv 2405.18392) no loss against a cosine of the same length.

Hardware: two CPU cores. Time: the planner expects 19 minutes with one run at a time.
Result: the trunks need 76% of the FLOPs that a run for each cell would need. On version 1 of the corpus all seven
curves had an interior minimum. The three MDM curves were flat and had one seed each, so the interval of the gap was
very wide.
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: seven curves of five sizes. Most sizes stand at several budgets, where a trunk saves compute."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 64
    config.run.schedule.kind = "wsd"
    config.run.evaluation.mc_samples = 8
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny_trunk"
    config.sweep.cooldown_fraction = 0.2
    config.sweep.curves = [
        curve("arm", 2e9, "1x8 1x12 1x16 1x20 1x24"),
        curve("arm", 4e9, "1x8 1x12 1x16 1x20 1x24"),
        curve("arm", 1e10, "1x8 1x12 1x16 1x20 1x24"),
        curve("arm", 2.5e10, "1x12 1x16 1x20 1x24 2x20"),
        curve("mdm", 1e11, "1x12 1x16 1x24 2x20 2x28"),
        curve("mdm", 2.5e11, "1x16 1x24 2x20 2x28 2x40"),
        curve("mdm", 6e11, "1x24 2x20 2x28 2x40 2x56"),
    ]
    return config.lock()
