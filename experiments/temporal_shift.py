r"""Temporal shift on Debian changelogs: both families at equal compute and at about equal loss, three seeds each.

    python -m mdm_jax.tasks.temporal split --changelogs --until 2016-01-01 --known-groups --held-out 0.2 \
        --most-text-bytes 4000 --out data/changelogs
    python -m mdm_jax.data.prepare --config experiments/temporal_shift.py
    python -m isoflop.plan --config experiments/temporal_shift.py --out runs/temporal_shift
    python -m isoflop.run runs/temporal_shift
    python -m mdm_jax.tasks.temporal evaluate runs/temporal_shift/runs/* --slices data/changelogs --draws 16 \
        --base-years 4 --out runs/temporal_shift/shift

A Debian or Ubuntu system has the texts in /usr/share/doc; which ones depends on the packages that are installed. Since
about 2019, most packages cut old entries from the changelog that they install. So the split ends in 2016, and
`--known-groups` leaves out packages without training texts: what the slices are about changes less. The slices have
texts of 121 groups of source packages.

Hardware: two CPU cores, shared with other work. Time: 5 minutes for the 12 runs, 1 for the evaluation.
Result: at equal compute (1e12 FLOPs) the MDM degrades more slowly, as SMDM (Nie et al. 2024, arXiv 2410.18514) reports.
The loss of the ARM grows by .90% of its level a year [.12, 1.98], that of the MDM by -.10% [-.46, .41]. The difference
is -1.00 [-1.70, -.42], and -1.10 [-1.70, -.56] with a level for each package. At about equal loss there is no
difference: an ARM with a hundredth of the compute grows by -.17% a year [-.51, .30], and the difference is .07
[-.07, .23]. So the family need not be the cause: a model with a lower loss may have more to lose. An MDM with the loss
of the large ARM was not trained (experiments/results/README.md).
"""

from typing import Any

import ml_collections

from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run

SEEDS = [0, 1, 2]


def get_config() -> ml_collections.ConfigDict:
    """The sweep: an MDM and an ARM of one size at equal compute, and two ARMs with a loss near the MDM's."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.data.corpus.source = "jsonl"
    config.run.data.corpus.path = "data/changelogs/train.jsonl"
    config.run.data.directory = "data/changelogs-bytes"
    config.run.data.seq_len = 128
    config.run.evaluation.eval_tokens = 8192
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    config.sweep.curves = [
        curve("mdm", 1e12, "2x40", seeds=SEEDS),
        curve("arm", 1e12, "2x40", seeds=SEEDS),
        curve("arm", 2.5e10, "1x20", seeds=SEEDS),
        curve("arm", 1e10, "1x16", seeds=SEEDS),
    ]
    return config.lock()
