"""The MDM trained with four weightings of its noise levels at equal compute, and one ARM to compare them with.

    python -m mdm_jax.data.prepare --config experiments/objective_weights.py
    python -m isoflop.plan --config experiments/objective_weights.py --out runs/objective_weights
    python -m isoflop.run runs/objective_weights --jobs 2
    python -m analysis.report runs/objective_weights --where group=low_variance

Each weighting (`mdm_jax/objectives/weighting.py`) is a group with the same budgets, sizes, seeds and learning rates.
All groups are compared by the NELBO that their runs end with. A cell has the same initial weights, batches and masks in
every group, so losses are subtracted cell by cell. The ARM has no group. The report reads one group and the ARM.

The literature disagrees about plain cross-entropy (`low_variance`). arXiv 2602.15014 finds that it needs 12% fewer
FLOPs for the same NELBO, with a smaller N*. Quokka (arXiv 2510.03280) finds that it ends worse than the NELBO. arXiv
2605.13026 finds that noise levels drawn from a bell learn up to four times as fast. Those models have 1e7 parameters
and more; these have thousands.

Hardware: two CPU cores. Time: with one seed (sweep.seeds=[0]) the recorded runs took 72 minutes in sum, two at a time
on busy cores; the plan has two seeds.
Result, with one seed and on version 1 of the corpus: mean difference from `elbo` over 15 cells at equal compute, in
nats per byte: `low_variance` -.004 +- .009, `clipped` -.045 +- .009, `bell` -.053 +- .013. A difference of .013 nats is
worth about 10% of the compute. A part of the difference is due to the learning rate (experiments/results/README.md). To
give each weighting its best rate, set sweep.lr_multipliers=[0.5,1,1.6].
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep, product
from mdm_jax.config import default_run
from mdm_jax.spec import Weighting


def get_config() -> ml_collections.ConfigDict:
    """The sweep: three curves of five sizes for each weighting and for the ARM, each cell with two seeds."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 64
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.seeds = (0, 1)
    curves = product(["arm"], [2e9, 4e9, 1e10], "1x8 1x12 1x16 1x20 1x24")
    for weighting in Weighting:
        own = {"group": weighting.value, "objective": {"weighting": weighting.value}}
        curves += [
            curve("mdm", 8e10, "1x12 1x16 1x24 2x20 2x28", **own),
            curve("mdm", 2e11, "1x12 1x16 1x24 2x20 2x28", **own),
            curve("mdm", 4.5e11, "1x16 1x24 2x20 2x28 2x40", **own),
        ]
    config.sweep.curves = curves
    return config.lock()
