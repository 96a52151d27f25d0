"""MDLM's ablation of the training loss at small scale: what each simplification of the D3PM loss is worth.

    python -m mdm_jax.data.prepare --config experiments/ablation_objective.py
    python -m isoflop.plan --config experiments/ablation_objective.py --out runs/ablation_objective
    python -m isoflop.run runs/ablation_objective --jobs 2
    python -m benchmarks.group_differences runs/ablation_objective --base count

The rows are those of MDLM (Sahoo et al. 2024, arXiv 2406.07524, the ablation on LM1B), each with one change from the
row before, and the count form, which is the default here:

| group             | training loss                                                          | MDLM's perplexity |
|-------------------|------------------------------------------------------------------------|-------------------|
| `count`           | the NELBO in its count form                                            | (not in MDLM)     |
| `continuous`      | the continuous NELBO, stratified times, log-linear noise (Eq. 10)      | 27.04             |
| `steps`           | T = 1000 steps (Eq. 8)                                                 | 27.19             |
| `no_carry_over`   | Eq. 9 without carry-over: the reconstruction of clean tokens is added  | 28.56             |
| `no_zero_masking` | and without zero masking: the head has a column for MASK               | 28.51             |

MDLM reports the bound that each row trains on. Here every run ends with the same evaluation, the NELBO in its count
form over V tokens with carry-over (the estimator `control_variate`). So the rows differ only by what training on them
has done to the weights. A cell has the same initial weights and batches in every group. All groups take the same number
of steps. The last two groups read every batch twice (the clean tokens too), so they cost twice as much under `exact`
FLOPs.

Hardware: two CPU cores. Time: 15 runs of 20 to 60 seconds each on an idle core. Result: not run in full yet.
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run

STEPS = {"levels": "stratified", "time_steps": 1000}
LOSSES: dict[str, dict[str, Any]] = {
    "count": {},
    "continuous": {"variant": "continuous", "levels": "stratified"},
    "steps": {"variant": "steps", **STEPS},
    "no_carry_over": {"variant": "d3pm", "carry_over": False, **STEPS},
    "no_zero_masking": {"variant": "d3pm", "carry_over": False, "zero_masking": False, **STEPS},
}


def get_config() -> ml_collections.ConfigDict:
    """The sweep: one cell with six seeds for each training loss."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.seq_len = 64
    config.run.hardware.layers = "unroll"
    config.run.evaluation.estimator = "control_variate"
    config.sweep.recipe = "tiny"
    config.sweep.seeds = (0, 1, 2, 3, 4, 5)
    config.sweep.curves = [curve("mdm", 2e11, "1x24", group=name, objective=loss) for name, loss in LOSSES.items()]
    return config.lock()
