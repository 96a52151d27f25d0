r"""The reverse curse: both families trained on the same text, in which "A is B" is stated, are asked "B is A".

    python -m mdm_jax.tasks.reverse_curse make --out data/reverse_curse --facts 6 --repeats 100 --general pydoc \
        --general-bytes 600000 --validation-fraction 0.2
    python -m mdm_jax.data.prepare --config experiments/reverse_curse.py
    python -m isoflop.plan --config experiments/reverse_curse.py --out runs/reverse_curse
    python -m isoflop.run runs/reverse_curse --jobs 2
    python -m mdm_jax.tasks.reverse_curse evaluate runs/reverse_curse --tests data/reverse_curse/tests.jsonl \
        --out runs/reverse_curse/answers

Four relations (person, parent, company, hierarchy) have 18 facts each: six that are trained forward, six backward, and
six in both directions. Statements make up three quarters of the bytes, and Python documentation the rest. The models
are trained from scratch. A vocabulary of 1024 pieces makes most names one or two tokens: with bytes, an MDM of this
compute does not learn the trained direction.
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
    config.run.data.tokenizer.kind = "sentencepiece"
    config.run.data.tokenizer.vocab_size = 1024
    config.run.model.vocab_size = 1024
    config.run.data.seq_len = 32
    config.run.evaluation.eval_tokens = 1 << 12
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.seeds = (0, 1, 2)
    config.sweep.curves = [curve("arm", 3e12, "2x48"), curve("mdm", 3e12, "2x48")]
    return config.lock()
