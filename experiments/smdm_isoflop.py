r"""The sweep of SMDM (Nie et al. 2024, arXiv 2410.18514): both families at its five FLOP budgets.

    python -m mdm_jax.data.prepare --config experiments/smdm_isoflop.py
    python -m isoflop.plan --config experiments/smdm_isoflop.py --hardware v5e:16 \
        --set run.hardware.mesh_data=16 --out runs/smdm_isoflop
    python -m isoflop.preflight runs/smdm_isoflop --topology v5e:4x4
    python -m mdm_jax.main --plan runs/smdm_isoflop --run-id RUN_ID --distributed     # each run, on every host
    python -m analysis.report runs/smdm_isoflop

Budgets are 6e18 to 1e20 FLOPs (6ND), rows 2048 tokens, batches 256 rows, in bfloat16. The learning rate is that of the
released code, 2e-4; sweep.recipe=smdm_paper takes the printed 4e-4. The paper names the 30 sizes that it trained, but
not the budgets of each size. Here each curve has seven of these sizes, within a factor of four of the optimum that the
paper's laws expect; the MDM's optima are half as large as the ARM's. Steps are int(C / (6 N B L)), as in the paper.

You provide the corpus: SlimPajama-627B as JSONL below data/slimpajama (in any number of files; .zst and .gz are read),
and a sentencepiece model of 32000 tokens at data/llama2-tokenizer.model. The largest run reads 118 billion tokens.
Planning and the preflight need neither corpus nor tokenizer.

At equal budgets only one budget of each family lies inside the other's losses. So the gap is read from the power laws,
as in the paper, and the plan warns of it. `--overlap mdm` keeps the MDM's budgets and gives the ARM the budgets of
equal expected loss. The gap is then interpolated, and the sweep needs little more than half the FLOPs.

Hardware: a mesh of sixteen TPU chips, which are several hosts: docs/sweeps.md says how to run on them.
Time, estimated at an assumed MFU of 40%: 12 700 chip-hours of v5e, which are 33 days on one v5e:4x4. The 70 runs are
independent. On v5p it is 5 500 chip-hours, on H100 2 600.
Result, expected: nobody has run this file. The paper finds L = 45.53 C^-.06416 for the ARM and 50.21 C^-.06248 for the
MDM (2.37 and 2.83 nats at 1e20), a gap of about 16 in compute, and an optimal MDM of about half the ARM's size.
"""

from typing import Any

import ml_collections

from isoflop.sweep import default_sweep
from mdm_jax.config import default_run

BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20)


def get_config() -> ml_collections.ConfigDict:
    """The sweep: five budgets of each family, sizes by the placement rule on SMDM's ladder."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    run, sweep = config.run, config.sweep
    run.data.corpus = {"source": "jsonl", "path": "data/slimpajama/**/*.jsonl*", "text_field": "text", "max_bytes": 0}
    run.data.tokenizer = {"kind": "sentencepiece_file", "vocab_size": 32000, "path": "data/llama2-tokenizer.model"}
    run.data.directory = "data/slimpajama-llama2"
    run.data.seq_len = 2048
    run.data.validation_fraction = 1e-4
    run.model.vocab_size = 32000
    run.model.compute_dtype = "bfloat16"
    run.evaluation.eval_tokens = 1 << 20
    run.evaluation.mc_samples = 128
    run.hardware.mesh_data = 16
    run.hardware.microbatches = 4
    run.hardware.remat = "full"
    sweep.recipe = "smdm_code"
    sweep.placement.budgets = BUDGETS
    return config.lock()
