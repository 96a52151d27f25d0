"""Does equal loss mean equal capability? Every run of cpu_overnight answers the same multiple-choice questions.

    python -m mdm_jax.data.prepare --config experiments/capability.py
    python -m isoflop.plan --config experiments/capability.py --out runs/cpu_overnight
    python -m isoflop.run runs/cpu_overnight --jobs 2
    python -m mdm_jax.evaluate.likelihood runs/cpu_overnight --jobs 2
    python -m mdm_jax.tasks.capability runs/cpu_overnight --out runs/capability --jobs 2

The sweep is that of experiments/cpu_overnight.py: 107 runs on bytes, rows of 128. The last command asks each run 128
questions of each task and size: copying and a needle over 4, 16 and 64 bytes of text, recall among 2 to 16 pairs, 0 to
8 examples of a map of words, and the continuation of 4, 16 and 64 bytes of the validation text. It then compares the
families at equal loss. The recorded table is compared again, without the runs, by

    python -m mdm_jax.tasks.capability experiments/results/capability/table.csv --out again

with `--score plain`, `--likelihood left_to_right` or `--degree 2` for other choices.

Hardware: two CPU cores. Time: 7 minutes of CPU time for the questions, 4 s a run; 10 s for the comparison.
Result, as log odds of the MDM less those of the ARM at a loss of 2.607 nats per byte, with 95% intervals over runs and
questions: continuation -.02 [-.11, .09], needle .43 [.24, .61], few examples .39 [.24, .56]. Nothing is seen in copying
and recall, which neither family has learned. The mean of all tasks is .16 [.10, .22]. So equal loss means equal skill
in continuing real text, and not in tasks that ask for the tokens of the prompt. At equal skill in continuing, the MDM
needs 60 [37, 93] times the ARM's compute (6ND), and 67 [50, 85] times at equal loss (experiments/results/README.md).
"""

import ml_collections

from experiments import cpu_overnight


def get_config() -> ml_collections.ConfigDict:
    """The sweep whose runs are asked."""
    return cpu_overnight.get_config()
