r"""Does N* grow as C^.51 or as C^.63? Four ways to count FLOPs x three learning-rate rules, for the MDM.

    python -m mdm_jax.data.prepare --config experiments/flop_accounting.py
    python -m isoflop.plan --config experiments/flop_accounting.py --hardware v5e:4 \
        --set run.hardware.mesh_data=4 --out runs/flop_accounting
    python -m isoflop.run runs/flop_accounting
    python -m analysis.fit runs/flop_accounting --where group=exact-tuned --convention exact

Papers that train the same kind of model report different exponents of N*: SMDM .63 (Nie et al. 2024: 6 N D without the
head, one rate), Quokka .50 (arXiv 2510.03280), GIDD scaling about .57 (arXiv 2512.10858). For autoregressive models
Porian et al. (arXiv 2406.19146) explained such a disagreement by three causes: the head's FLOPs, the warm-up, and a
rate that is not tuned to the size. This experiment tests the first and the third. It combines four ways of counting
FLOPs with three rules for the learning rate. Each of the twelve combinations is a group with its own curves:

    smdm_6nd | with_head | exact | chinchilla     how the budget is counted (mdm_jax/spec/counting.py)
    one_rate    2e-4 at every size, as in SMDM (recipe smdm_code)
    by_width    2e-4 at width 1024, and inversely proportional to the width (recipe smdm_width)
    tuned       for each cell the best of .45, 1.35 and 4.05 times the rate of by_width

Counting matters because the models are small. At the smallest budget a step of the optimal model costs more than 6 N D
says: 2.3 times with the head, 3.4 times exactly, 6.8 times by Chinchilla's count. At the largest budget the factors are
1.4, 1.9 and 2.6. Each curve has nine sizes within a factor of 4.5 of its expected optimum. That optimum lies between
two estimates, which agree within a factor of 2.5. The first is SMDM's optimum at its smallest budget, scaled down by
C^.57, the middle of the published exponents. The second is the size at which the convention's budget buys as much 6ND.

You provide the corpus: JSONL below data/slimpajama and a sentencepiece model of 32000 tokens, as in smdm_isoflop.py.
The longest run reads 21 billion tokens. To try all twelve groups on a CPU, make the models small:

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m isoflop.plan --config experiments/flop_accounting.py --out runs/small --data data/pydoc-bytes \
        --seq-len 64 --batch 8 --budgets 1e10,3e10 --sizes 1x8,1x12,1x16,1x20,1x24 \
        --set run.hardware.mesh_data=1 run.hardware.microbatches=1 run.model.compute_dtype=float32 \
        run.evaluation.eval_tokens=65536 run.evaluation.mc_samples=4

Hardware: four chips of v5e. The 720 runs are independent, so more slices finish sooner.
Time, estimated at an assumed MFU of 40%: 8.5 days on one slice, 810 chip-hours.
Models so narrow will reach a lower MFU.
Result, expected: nobody has run this file. If counting and tuning explain the papers, the exponent is largest for
smdm_6nd-one_rate and smallest for a tuned group that counts the head, and the twelve exponents span most of .51 to .63.
"""

from typing import Any

import ml_collections

from isoflop.ladder import ladder_between
from isoflop.sweep import default_sweep, product
from mdm_jax.config import default_run
from mdm_jax.spec import FlopConvention

BUDGETS = (2e16, 6e16, 2e17, 6e17)
CENTRES = {"smdm_6nd": 0.9, "with_head": 0.7, "exact": 0.6, "chinchilla": 0.5}
"""The centre of a convention's curves, as a share of the optimal size under 6 N D with the same number of FLOPs."""
RATES: dict[str, dict[str, Any]] = {
    "one_rate": {"recipe": "smdm_code"},
    "by_width": {"recipe": "smdm_width"},
    "tuned": {"recipe": "smdm_width", "lr_multipliers": [0.45, 1.35, 4.05]},
}
"""No multiplier gives a width the rate of another group, because a run can belong to one group only."""


def sizes(convention: str, budget: float) -> list[str]:
    """Nine sizes within a factor of 4.5 of a curve's middle: SMDM's optimum at 6e18 FLOPs, scaled down by C^.57."""
    middle = CENTRES[convention] * 8.3e7 * (budget / 6e18) ** 0.57
    return [size.name for size in ladder_between(middle / 4.5, middle * 4.5, 1.46)]


def get_config() -> ml_collections.ConfigDict:
    """The sweep: twelve groups of four curves of nine sizes."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    run = config.run
    run.data.corpus = {"source": "jsonl", "path": "data/slimpajama/**/*.jsonl*", "text_field": "text", "max_bytes": 0}
    run.data.tokenizer = {"kind": "sentencepiece_file", "vocab_size": 32000, "path": "data/llama2-tokenizer.model"}
    run.data.directory = "data/slimpajama-llama2"
    run.data.seq_len = 2048
    run.data.validation_fraction = 1e-4
    run.model.vocab_size = 32000
    run.model.compute_dtype = "bfloat16"
    run.evaluation.eval_tokens = 1 << 20
    run.evaluation.mc_samples = 32
    run.hardware.mesh_data = 4
    run.hardware.microbatches = 4
    config.sweep.global_batch = 128
    curves = []
    for convention in FlopConvention:
        for name, rate in RATES.items():
            for budget in BUDGETS:
                own = {"group": f"{convention.value}-{name}", "convention": convention.value, **rate}
                curves += product(["mdm"], [budget], sizes(convention.value, budget), **own)
    config.sweep.curves = curves
    return config.lock()
