r"""An MDM and an ARM of the E. coli genome, and what their trunks know about sequences without a label.

    python -m mdm_jax.data.prepare --config experiments/ecoli_isoflop.py
    python -m isoflop.plan --config experiments/ecoli_classify.py --out runs/ecoli_classify
    python -m isoflop.run runs/ecoli_classify --jobs 2
    python -m mdm_jax.tasks.classify.decoys data/NC_008253.fna.gz --kind shuffled --out data/shuffled --length 64 \
        --train 8000 --test 3000 --validation-fraction 0.1
    python -m mdm_jax.tasks.classify runs/ecoli_classify/runs/mdm-* runs/ecoli_classify/runs/arm-* \
        data/shuffled/train.fasta --test data/shuffled/test.fasta --out runs/classified_shuffled --epochs 4 --lr 1e-3

`experiments/ecoli_isoflop.py` says how to get the genome. Both models have 51k parameters without embedding and head,
rows of 64 letters, and 1.5e12 FLOPs. They end at 1.364 (MDM) and 1.347 (ARM) nats per letter. The task tells pieces of
64 letters from pieces whose letters are shuffled such that the counts of neighbouring pairs stay. It needs patterns of
three letters or more, such as codons. Test pieces lie in regions that neither the models nor the heads have seen. The
trunks with fresh weights have the same shape, learning rate and number of steps.

Hardware: two CPU cores, shared with other work. Time: 3 minutes for the two models, and 3.5 minutes of CPU time for the
classifications (6 minutes on the busy cores).
Result, accuracy on 3000 test pieces, with 95% intervals over pieces and three seeds of the fine-tuning: MDM .668 [.647,
.690], ARM .715 [.694, .737], and fresh weights .498 [.486, .509] as an MDM and .510 [.488, .532] as an ARM. So both
trunks know what fresh weights do not learn from 8000 pieces in four passes, and the ARM's, which has the lower loss, is
better by .047 [.031, .062]. Each family has one trained model, so the difference between the families does not include
the luck of a training run (experiments/results/README.md).
"""

import ml_collections

from experiments.ecoli_isoflop import genome_sweep
from isoflop.sweep import curve


def get_config() -> ml_collections.ConfigDict:
    """Two runs of one size, one of each family."""
    config = genome_sweep(seq_len=64)
    config.sweep.lr_multipliers = (0.35,)
    config.sweep.curves = [curve(family, 1.5e12, "2x40") for family in ("arm", "mdm")]
    return config.lock()
