"""The MDM trained with four weightings of its noise levels at equal compute, and one ARM for all of them.

    python -m mdm_jax.data.prepare --config experiments/objective_weights.py
    python -m isoflop.plan --config experiments/objective_weights.py --out runs/objective_weights
    python -m isoflop.run runs/objective_weights --jobs 2
    python -m analysis.report runs/objective_weights --where group=low_variance

Each weighting (`mdm_jax/objectives/weighting.py`) is a group of its own with the same budgets, sizes, seeds and
learning rates; what is compared is the NELBO that they end with, whatever they were trained on. A cell's initial
weights, batches and masks are the same in every group, so differences are taken cell by cell. The report reads one
group at a time, with the ARM, which has none.

The literature disagrees about plain cross-entropy (`low_variance`): 12% fewer FLOPs for the same NELBO and a smaller N*
(arXiv 2602.15014), or worse than the NELBO in the end (Quokka, arXiv 2510.03280). Times drawn from a bell learn up to
four times as fast (arXiv 2605.13026). Those are models of 1e7 parameters and more; here they have thousands.

Hardware: two CPU cores. Time: about 25 minutes with both expected; one seed took 72 minutes of runs on busy cores.
Result, on version 1 of the corpus: with one seed (sweep.seeds=[0]), over 15 cells and against `elbo` at equal compute,
`low_variance` -.004 +- .009 nats, `clipped` -.045 +- .009, `bell` -.053 +- .013; .013 nats are worth about 10% of the
compute. Part of it is the learning rate, see experiments/results (objective_weights); sweep.lr_multipliers=[0.5,1,1.6]
gives each its own.
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
