"""The reverse curse: both families trained on the same text, in which "A is B" is stated, are asked "B is A".

python -m mdm_jax.tasks.reverse_curse make --out data/reverse_curse --facts 12 --repeats 60 --per-document 4
  --general pydoc --general-bytes 2000000 --validation-fraction 0.2        (one command)
python -m mdm_jax.data.prepare --config experiments/reverse_curse.py
python -m isoflop.plan --config experiments/reverse_curse.py --out runs/reverse_curse
python -m isoflop.run runs/reverse_curse --jobs 2
python -m mdm_jax.tasks.reverse_curse evaluate runs/reverse_curse --out runs/reverse_curse/answers
  --tests data/reverse_curse/tests.jsonl --each 1                          (one command)

Result: see below.
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run


def get_config() -> ml_collections.ConfigDict:
    """The sweep: one size at one budget for each family, with three seeds."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.corpus.source = "jsonl"
    config.run.data.corpus.path = "data/reverse_curse/corpus.jsonl"
    config.run.data.directory = "data/reverse_curse_prepared"
    config.run.data.validation_fraction = 0.2
    config.run.data.seq_len = 128
    config.run.evaluation.eval_tokens = 1 << 15
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.seeds = (0, 1, 2)
    config.sweep.curves = [curve("arm", 2.4e12, "2x64"), curve("mdm", 2.4e12, "2x64")]
    return config.lock()
