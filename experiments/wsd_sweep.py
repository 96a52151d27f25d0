"""Both families with WSD trunks: each size is trained once to its largest budget, and every budget adds a cooldown.

    python -m mdm_jax.data.prepare --config experiments/wsd_sweep.py
    python -m isoflop.plan --config experiments/wsd_sweep.py --out runs/wsd
    python -m isoflop.run runs/wsd --jobs 2
    python -m analysis.report runs/wsd

The cells that a cosine would train one by one share their constant learning rate (`isoflop/trunks.py`); the plan prints
what that saves. A larger budget that is added to the curves later costs one more segment and one cooldown a size. The
recipe must not look at the budget: `tiny_trunk` has one batch and one rate for each size. For the same cells with a
cosine each, to compare the laws, plan into another directory with `--set run.schedule.kind=cosine`. Laws from constant
rates and cooldowns agree with tuned ones (arXiv 2512.10858, a factor 1.0245 in loss; Hagele et al. 2024, arXiv
2405.18392, no loss against a cosine of the same length).

Hardware: two CPU cores. Time: about 12 minutes of CPU, so under 10 with both idle.
Result: trunks train 76% of the FLOPs that a run for each cell would; 70 runs, and all seven curves have an interior
minimum. Three flat MDM curves with one seed give a wide gap: 138 [36, 3180] at a loss of 2.676 under 6ND, 76 [23, 1640]
under exact FLOPs (on version 1 of the corpus, with intervals that ignore scatter between budgets).
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: seven curves of five sizes, most of them at every budget of their family: there a trunk saves."""
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
