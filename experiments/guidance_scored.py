"""The runs of experiments/guidance_ablation.py whose prompts are scored like the responses, as in pre-training.

See that file for the commands, the cost and the result. Such a row has three times as many scored tokens, and the
responses are learned more slowly.
"""

from typing import Any

import ml_collections

from experiments.guidance_ablation import BUDGET
from experiments.guidance_ablation import get_config as ablation
from isoflop.sweep import curve


def get_config() -> ml_collections.ConfigDict:
    """The sweep: one curve. Prompts cannot be dropped and scored at once."""
    config: Any = ablation().unlock()
    config.run.data.score_prompt = True
    config.sweep.curves = [curve("mdm", BUDGET, "2x40")]
    return config.lock()
