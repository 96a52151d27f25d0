r"""Does N* grow as C^.51 or C^.63? FLOP accounting x learning-rate rule, for the masked diffusion model.

    python -m mdm_jax.data.prepare --config experiments/flop_accounting.py
    python -m isoflop.plan --config experiments/flop_accounting.py --hardware v5e:4 --out runs/flop_accounting
    python -m isoflop.run runs/flop_accounting
    python -m analysis.fit runs/flop_accounting --where group=exact-tuned --convention exact

Papers that train the same kind of model report exponents from .51 to .63: SMDM .63 (Nie et al. 2024: 6 N D without the
head, one rate), Quokka .50 (arXiv 2510.03280), GIDD scaling about .57 (arXiv 2512.10858). For autoregressive models
Porian et al. (arXiv 2406.19146) traced such a disagreement to three things: the head's FLOPs, the warm-up, and a rate
that is not tuned to the size. Two of them are crossed here, four ways of counting with three rules of the rate, and
each of the twelve combinations is a group with curves of its own:

    smdm_6nd | with_head | exact | chinchilla     how the budget is counted (mdm_jax/counting.py)
    one_rate    2e-4 at every size, as SMDM trains (recipe smdm_code)
    by_width    2e-4 at width 1024, inversely to the width (recipe smdm_width)
    tuned       the best of .45, 1.35 and 4.05 times that, cell by cell

Counting matters here because the models are small: at the smallest budget a step of the optimal model costs 2.3 (with
the head), 3.4 (exact) or 6.8 times (Chinchilla's count) what 6 N D says, at the largest 1.4, 1.9 and 2.6 times. Each
curve has nine sizes by rule within a factor of 4.5 of where its optimum is expected, between two estimates that agree
within a factor of 2.5: SMDM's optimum at its smallest budget carried down by C^.57, the middle of the exponents in
question, and the size at which the convention buys that much 6 N D.

The corpus is yours: JSONL below data/slimpajama and a sentencepiece model of 32000 tokens, as in smdm_isoflop.py. The
longest run reads 21 billion tokens. To try the machinery on a CPU, shrink it; the twelve groups stay:

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m isoflop.plan --config experiments/flop_accounting.py --out runs/small --data data/pydoc-bytes \
        --seq-len 64 --batch 8 --budgets 1e10,3e10 --sizes 1x8,1x12,1x16,1x20,1x24 \
        --set run.hardware.mesh_data=1 run.hardware.microbatches=1 run.model.compute_dtype=float32 \
        run.evaluation.eval_tokens=65536 run.evaluation.mc_samples=4

Hardware: four chips of v5e; the 720 runs are independent, so more slices finish sooner. Time, estimated at an MFU of
40%: 8.5 days on one slice, 810 chip-hours. Models this narrow will reach less.
Result, expected: nobody has run this file. If counting and tuning explain the papers, the exponent is largest for
smdm_6nd-one_rate, smallest for a tuned group with the head counted, and the twelve span most of .51 to .63.
"""

from typing import Any

import ml_collections

from isoflop.ladder import ladder_between
from isoflop.sweep import default_sweep, product
from mdm_jax.config import default_run
from mdm_jax.spec import FlopConvention

BUDGETS = (2e16, 6e16, 2e17, 6e17)
CENTRES = {"smdm_6nd": 0.9, "with_head": 0.7, "exact": 0.6, "chinchilla": 0.5}
"""The centre of a convention's curves, over where 6 N D's optimum would be with the same number of FLOPs."""
RATES: dict[str, dict[str, Any]] = {
    "one_rate": {"recipe": "smdm_code"},
    "by_width": {"recipe": "smdm_width"},
    "tuned": {"recipe": "smdm_width", "lr_multipliers": [0.45, 1.35, 4.05]},
}
"""The multipliers are not 1 and give no width the rate of `one_rate`: a run belongs to one group."""


def sizes(convention: str, budget: float) -> list[str]:
    """Nine sizes within a factor of 4.5 of a curve's middle: SMDM's optimum at 6e18 FLOPs, carried down by C^.57."""
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
