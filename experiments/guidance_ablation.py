r"""Guidance of MDMs on requests for a day: prompts dropped in training, guidance scale, supervised or unsupervised.

    python -m mdm_jax.tasks.guidance.dates --train data/dates/train.jsonl --test data/dates/test.jsonl --test-pairs 300
    python -m mdm_jax.data.prepare --config experiments/guidance_ablation.py
    python -m isoflop.plan --config experiments/guidance_ablation.py --out runs/guidance
    python -m isoflop.plan --config experiments/guidance_scored.py --out runs/guidance_scored
    python -m isoflop.plan --config experiments/guidance_random.py --out runs/guidance_random
    python -m isoflop.run runs/guidance           # and runs/guidance_scored, runs/guidance_random
    python -m mdm_jax.tasks.guidance runs/guidance runs/guidance_scored runs/guidance_random \
        --pairs data/dates/test.jsonl --check dates --scales=-0.5,0,0.25,0.5,1,2,4 --temperatures 1,0 \
        --out experiments/results/guidance_ablation

A request such as `a summer day of 1987` is answered with a date, and every date that fits is right. All runs have two
layers of width 40 and the same 2431 steps of 4 pairs, with three seeds. Standard guidance drops prompts: .1, .25 or .5
of them. Unsupervised guidance drops none: the runs begin with an MDM that was trained on text with every token masked
(3e12 FLOPs), so that it knows rows without a prompt. `guidance_scored` also masks the prompts of the pairs, and
`guidance_random` begins with random weights.

Hardware: one busy core of two. Time: 9 minutes of it, 3.5 for the 21 runs and 5.5 for the answers.
Result, as shares of right answers with standard errors over seeds: guidance does not help here. The largest gain over
w = 0 is .023 +- .020 (w = .25, temperature 1, random weights, no prompts dropped), and no gain reaches 2.1 errors. A
negative scale costs up to .50 +- .08. Large scales draw bytes that no date has: at w = 2 and temperature 1 they spoil
10 to 97% of the answers. Dropped prompts cost right answers at equal steps: .456 +- .044, .423 +- .024, .149 +- .119
and .050 +- .018 for 0, .1, .25 and .5 (temperature 1, w = 0; experiments/results/README.md).
"""

from collections.abc import Sequence
from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run

SHARES = (0.0, 0.1, 0.25, 0.5)
BUDGET = 1.5e11
START = "experiments/results/cpu_overnight/mdm-2x40.safetensors"


def get_config() -> ml_collections.ConfigDict:
    """The sweep: a curve for each share of dropped prompts."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.corpus.source = "pairs"
    config.run.data.corpus.path = "data/dates/train.jsonl"
    config.run.data.directory = "data/dates/prepared"
    config.run.data.seq_len = 50
    config.run.start.path = START
    config.run.evaluation.eval_tokens = 16_000
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.seeds = (0, 1, 2)
    config.sweep.curves = curves_of(SHARES)
    return config.lock()


def curves_of(shares: Sequence[float]) -> list[dict[str, Any]]:
    """A curve for each share of dropped prompts, at one size and one budget."""
    return [curve("mdm", BUDGET, "2x40", objective={"drop_prompt": share}) for share in shares]
