"""The MDM trained with each level sampler of both forms of its NELBO, at equal compute, with three seeds.

    python -m mdm_jax.data.prepare --config experiments/level_samplers.py
    python -m isoflop.plan --config experiments/level_samplers.py --out runs/level_samplers
    python -m isoflop.run runs/level_samplers --jobs 2
    python -m benchmarks.group_differences runs/level_samplers --base count-antithetic

All samplers have the same expectation, so they train on the same loss with more or less noise. Each sampler is a group.
The runs of a size and a seed have the same initial weights, batches and learning rate in every group, so their losses
are subtracted. The last command prints the mean differences from `count-antithetic`, the default, with their standard
errors over sizes and seeds. The final losses come from the estimator `control_variate`, whose error is small.

The compute is equal as 6ND. Counted exactly, a step of antithetic counts takes fewer FLOPs than one of the other
samplers, because the head reads only the masked half of the positions.

Hardware: two CPU cores. Time: the 42 recorded runs took 27 minutes in sum, on busy cores.
Result: no sampler differs from the default by more than twice its error, .014 to .025 nats per byte
(experiments/results/README.md).
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run
from mdm_jax.spec import Estimator, LevelSampler, Variant

SAMPLERS = (
    (Variant.COUNT, LevelSampler.ANTITHETIC),
    (Variant.COUNT, LevelSampler.IID),
    (Variant.COUNT, LevelSampler.OPTIMAL),
    (Variant.CONTINUOUS, LevelSampler.IID),
    (Variant.CONTINUOUS, LevelSampler.SHIFTED),
    (Variant.CONTINUOUS, LevelSampler.STRATIFIED),
    (Variant.CONTINUOUS, LevelSampler.ANTITHETIC),
)


def get_config() -> ml_collections.ConfigDict:
    """The sweep: a curve of two sizes for each sampler, each cell with three seeds."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 64
    config.run.hardware.layers = "unroll"
    config.run.evaluation.estimator = Estimator.CONTROL_VARIATE.value
    config.sweep.recipe = "tiny"
    config.sweep.seeds = (0, 1, 2)
    config.sweep.curves = [
        curve(
            "mdm",
            1e11,
            "1x16 2x28",
            group=f"{variant}-{levels}",
            objective={"variant": variant.value, "levels": levels.value},
        )
        for variant, levels in SAMPLERS
    ]
    return config.lock()
