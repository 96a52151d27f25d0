"""Both families on the genome of a bacterium, one nucleotide a token: an IsoFLOP sweep and its compute gap.

    mkdir -p data && cp /usr/share/doc/bowtie/examples/genomes/NC_008253.fna.gz data/
    python -m mdm_jax.data.prepare --config experiments/ecoli_isoflop.py
    python -m isoflop.plan --config experiments/ecoli_isoflop.py --out runs/ecoli_isoflop
    python -m isoflop.run runs/ecoli_isoflop --jobs 2
    python -m analysis.report runs/ecoli_isoflop

The genome is that of Escherichia coli 536 (NC_008253, 4.9 million letters). Debian has it in the package
`bowtie-examples`. Another FASTA file serves as well: `--set run.data.corpus.path=FILE` for the first two commands. A
tenth of the genome, in regions of 8192 letters, is the validation text, and half of the training rows are reverse
complements.

A genome is close to random. A uniform guess of four letters costs 1.386 nats. On the evaluation's tokens, Markov chains
that were counted on both strands of the training text and interpolated reach 1.376 nats with one letter of context,
1.363 with two, 1.355 with three, 1.344 with six and 1.337 with twelve. So all losses of interest lie within .04 nats.
Rows are 32 letters, because a dozen letters have most of what can be predicted. In first trials with rows of 128
letters and the recipe's own rates, MDMs of 5e11 FLOPs ended at 1.379 to 1.385. The evaluation uses `control_variate`:
its Monte Carlo error is at most .0004 nats. Learning rates matter more than in text: an MDM of width 40 and 2e11 FLOPs
ended at 1.374 with a rate of .002 and at 1.385 with .004. So most cells have two or three rates, and the best stands.

Hardware: two CPU cores, shared with other work. Time: the 127 recorded runs took 26 minutes in sum.
Result: all ten curves have an interior minimum. The gap is 602 [204, 1.1e7] under 6ND and 483 [166, 5.2e6] under exact
FLOPs, at a loss of 1.366 nats per letter. The interval is wide because four times the compute improves
both families by only .003 to .005 nats there, and the runs scatter by .002 (experiments/results/README.md).
"""

from typing import Any

import ml_collections

from isoflop.ladder import Size
from isoflop.sweep import curve, default_sweep
from mdm_jax.config import default_run
from mdm_jax.spec import NUCLEOTIDES_VOCAB_SIZE, CorpusSource, Estimator, TokenizerKind
from mdm_jax.spec.validation import to_dict


def genome_sweep(seq_len: int) -> Any:
    """A sweep without curves on the prepared genome, in rows of `seq_len` letters."""
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    data = config.run.data
    data.corpus.source, data.corpus.path = CorpusSource.FASTA.value, "data/NC_008253.fna.gz"
    data.tokenizer.kind = TokenizerKind.NUCLEOTIDES.value
    data.tokenizer.vocab_size = config.run.model.vocab_size = NUCLEOTIDES_VOCAB_SIZE
    data.seq_len, data.validation_fraction, data.reverse_complement = seq_len, 0.1, True
    data.directory = "data/ecoli"
    config.run.evaluation.estimator = Estimator.CONTROL_VARIATE.value
    config.run.hardware.layers = "unroll"
    config.sweep.recipe = "tiny"
    return config


def get_config() -> ml_collections.ConfigDict:
    """The sweep: ten curves of four to seven sizes, most cells with two or three learning rates."""
    config = genome_sweep(seq_len=32)
    config.run.evaluation.batch = 256
    config.sweep.lr_multipliers = (0.2, 0.4)
    arm: Any = {"lr_multipliers": [0.35, 1.0, 2.0]}
    config.sweep.own_sizes = [to_dict(Size("w2", 1, 1, 2, 8)), to_dict(Size("w4", 1, 1, 4, 4))]
    config.sweep.curves = [
        curve("arm", 1e9, "w2 w4 1x4 1x8 1x12 1x16", **arm),
        curve("arm", 1.7e9, "w2 w4 1x4 1x8 1x12 1x16", **arm),
        curve("arm", 3e9, "1x4 1x8 1x12 1x16", **arm),
        curve("arm", 5.5e9, "1x4 1x8 1x12 1x16 1x24", **arm),
        curve("arm", 1e10, "1x4 1x8 1x12 1x16 1x24", **arm),
        curve("arm", 3e10, "1x8 1x12 1x16 1x24 2x28", **arm),
        curve("mdm", 6e10, "1x8 1x12 1x16 1x24 2x28 2x40 2x56"),
        curve("mdm", 2e11, "1x12 1x16 1x24 2x28 2x40"),
        curve("mdm", 6e11, "1x16 1x24 2x28 2x40 2x56", lr_multipliers=[0.3]),
        curve("mdm", 1.5e12, "1x24 2x28 2x40 2x48 2x64", lr_multipliers=[0.3]),
    ]
    return config.lock()
