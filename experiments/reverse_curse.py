r"""The reverse curse: both families trained on the same text, in which "A is B" is stated, are asked "B is A".

    python -m mdm_jax.tasks.reverse_curse make --out data/reverse_curse --facts 6 --repeats 100 --general pydoc \
        --general-bytes 600000 --validation-fraction 0.2
    python -m mdm_jax.data.prepare --config experiments/reverse_curse.py
    python -m isoflop.plan --config experiments/reverse_curse.py --out runs/reverse_curse
    python -m isoflop.run runs/reverse_curse --jobs 2
    python -m mdm_jax.tasks.reverse_curse evaluate runs/reverse_curse --tests data/reverse_curse/tests.jsonl \
        --out runs/reverse_curse/answers

Four relations (person, parent, company, hierarchy) have 18 facts each: six that are trained forward, six backward, and
six in both directions. Three quarters of the bytes are statements, and the rest is Python documentation. The models are
trained from scratch, both families with the same compute, batches and seeds. A vocabulary of 1024 pieces makes most
names one or two tokens. (First trials with bytes, at smaller budgets, taught an MDM not even the trained direction.)

Hardware: two CPU cores, busy with other work. Time: the six runs took 8 minutes in sum, and the answers 2.
Result, of facts trained in one direction, over three seeds and 48 facts (experiments/results/reverse_curse):

    asked              measure      ARM             MDM             MDM less ARM
    trained direction  exact match  .961 ± .016     .965 ± .018     +.005 ± .024
    reversed           exact match  .006 ± .007     .086 ± .049     +.080 ± .048
    reversed           preference   .503 ± .027     .712 ± .058     +.210 ± .073

Preference is 1/2 without knowledge of the fact. The errors are standard errors over seeds and facts together. The ARM
has the reverse curse in full. The MDM knows part of what it read backwards: its preference is above 1/2 in all four
relations, by more than two errors in two of them (hierarchy .92, person .74), but it rarely writes the right answer.
Both families mostly write names that stood at such places in training. So the published contrast is reproduced in rank
and not in exact match: SMDM (1.1B parameters, fine-tuned) writes 92% and 37% of the reversed answers in its two sets.
With guidance of 0.8 the MDM writes .111 ± .053 of them.
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
