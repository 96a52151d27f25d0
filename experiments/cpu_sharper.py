"""The compute gap of tiny models, sharper: denser budgets around the common losses, and three to eight seeds there.

    python -m mdm_jax.data.prepare --config experiments/cpu_sharper.py
    python -m isoflop.plan --config experiments/cpu_sharper.py --out runs/cpu_sharper
    python -m isoflop.run runs/cpu_sharper --jobs 2
    python -m mdm_jax.evaluate.likelihood runs/cpu_sharper --jobs 2
    python -m analysis.report runs/cpu_sharper

Models, corpus and recipe are those of experiments/cpu_overnight.py, whose intervals this sweep shortens. A run there
scatters by about .05 nats around its curve, so the curves that decide the gap have more runs here. There is a budget
more at each end, and between the budgets of the ARM around the common loss, where its curves bend.

Hardware: two CPU cores. Time: the recorded runs took 131 minutes in sum, two at a time, beside other work, and the
likelihoods about 50 minutes.
Result, at a loss of 2.468 nats per byte: a gap of 67 [58, 79] under 6ND and 37 [31, 45] under exact FLOPs. The ARM's
minima follow a bend, where it learns to look beyond the neighbouring byte (experiments/results/README.md).
"""

from typing import Any

import ml_collections

from experiments import cpu_overnight
from isoflop.sweep import curve


def get_config() -> ml_collections.ConfigDict:
    """The sweep of `cpu_overnight` with eighteen curves of five to eight sizes, larger at larger budgets."""
    config: Any = cpu_overnight.get_config()
    with config.unlocked():
        config.sweep.curves = [
            curve("arm", 1e9, "1x4 1x8 1x12 1x16 1x20", seeds=[0, 1, 2]),
            curve("arm", 3e9, "1x4 1x8 1x12 1x16 1x20 1x24", seeds=[0, 1, 2]),
            curve("arm", 5.5e9, "1x4 1x8 1x12 1x16 1x20 1x24", seeds=[0, 1, 2]),
            curve("arm", 1e10, "1x4 1x8 1x12 1x16 1x24 2x20 2x28", seeds=[0, 1, 2, 3]),
            curve("arm", 1.7e10, "1x8 1x12 1x16 1x20 1x24 2x20 2x28", seeds=[*range(8)]),
            curve("arm", 3e10, "1x8 1x12 1x16 1x20 1x24 2x20 2x28 2x40", seeds=[0, 1, 2, 3]),
            curve("arm", 1e11, "1x16 1x24 2x20 2x28 2x40 2x56", seeds=[0, 1]),
            curve("arm", 3e11, "1x24 2x20 2x28 2x40 2x56 2x72"),
            curve("arm", 1e12, "2x20 2x28 2x40 2x56 2x80 3x80"),
            curve("arm", 3e12, "2x40 2x56 2x72 3x80 4x96"),
            curve("mdm", 3e10, "1x4 1x8 1x12 1x16 1x24 2x20", seeds=[0, 1]),
            curve("mdm", 1e11, "1x8 1x12 1x16 1x24 2x20 2x28 2x40", seeds=[0, 1]),
            curve("mdm", 3e11, "1x16 1x24 2x20 2x28 2x40 2x56", seeds=[0, 1, 2]),
            curve("mdm", 5.5e11, "1x16 1x24 2x20 2x28 2x40 2x56", seeds=[0, 1, 2]),
            curve("mdm", 1e12, "1x24 2x20 2x28 2x40 2x56 2x72", seeds=[*range(7)]),
            curve("mdm", 1.7e12, "1x24 2x20 2x28 2x40 2x56 2x72", seeds=[0, 1, 2]),
            curve("mdm", 3e12, "2x20 2x28 2x40 2x56 2x72 3x80"),
            curve("mdm", 1e13, "2x40 2x56 2x72 3x80 4x96"),
        ]
    return config
