"""The runs of experiments/guidance_ablation.py that begin with random weights, for two shares of dropped prompts.

See that file for the commands, the cost and the result.
"""

from typing import Any

import ml_collections

from experiments.guidance_ablation import curves_of
from experiments.guidance_ablation import get_config as ablation

SHARES = (0.0, 0.25)


def get_config() -> ml_collections.ConfigDict:
    """The sweep: a curve for each share, without trained weights to begin with."""
    config: Any = ablation().unlock()
    config.run.start.path = ""
    config.sweep.curves = curves_of(SHARES)
    return config.lock()
