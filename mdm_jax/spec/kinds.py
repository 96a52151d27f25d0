"""The enums of a spec: one for each field that takes one of a few words."""

import enum


class Family(enum.StrEnum):
    """Masked diffusion or autoregressive."""

    MDM = "mdm"
    ARM = "arm"


class Attention(enum.StrEnum):
    """The positions that a token sees: all, or those up to its own."""

    BIDIRECTIONAL = "bidirectional"
    CAUSAL = "causal"


class Variant(enum.StrEnum):
    """The training loss: a form of the MDM's NELBO (see `objectives/mdm.py`), or the ARM's likelihood (`nll`)."""

    COUNT = "count"
    CONTINUOUS = "continuous"
    STEPS = "steps"
    D3PM = "d3pm"
    NLL = "nll"


class NoiseSchedule(enum.StrEnum):
    """The masked share as a function of time, in every form but `count`; see `objectives/noise.py`."""

    LOG_LINEAR = "log_linear"
    COSINE = "cosine"
    COSINE_SQUARED = "cosine_squared"
    POLYNOMIAL = "polynomial"
    LINEAR = "linear"
    GEOMETRIC = "geometric"


class Cutoff(enum.StrEnum):
    """What the continuous form does at small noise: nothing, or what SMDM's or MDLM's code does there."""

    NONE = "none"
    SMDM = "smdm"
    MDLM = "mdlm"


class LevelSampler(enum.StrEnum):
    """Noise levels over a batch; see `objectives/masking.py`.

    SMDM trains with `iid`, SMDM and MD4 evaluate with `shifted`, MDLM is `stratified`.
    """

    ANTITHETIC = "antithetic"
    OPTIMAL = "optimal"
    IID = "iid"
    SHIFTED = "shifted"
    STRATIFIED = "stratified"

    @property
    def pairs_counts(self) -> bool:
        """Whether the counts of masked tokens of rows 2i and 2i+1 follow from one number."""
        return self in (LevelSampler.ANTITHETIC, LevelSampler.OPTIMAL)


class Weighting(enum.StrEnum):
    """The weight of each noise level in the MDM's training loss; see `objectives/weighting.py`."""

    ELBO = "elbo"
    LOW_VARIANCE = "low_variance"
    CLIPPED = "clipped"
    BELL = "bell"


class Likelihood(enum.StrEnum):
    """An estimate of a log-probability under a trained model; see `evaluate/likelihood/`.

    `nelbo` is a Monte Carlo estimate of an upper bound of the nats. `left_to_right` and `confidence` are exact
    likelihoods of a chain rule over single tokens. `any_order` is the value that `nelbo` estimates, without error.
    """

    NELBO = "nelbo"
    LEFT_TO_RIGHT = "left_to_right"
    CONFIDENCE = "confidence"
    ANY_ORDER = "any_order"


class Estimator(enum.StrEnum):
    """The final evaluation's estimate of an MDM's NELBO. Both have the same expectation and take the same forwards.

    `counts` draws antithetic stratified counts over each batch. `control_variate` has a smaller error: each row has its
    own strata, and other draws predict which tokens are hard; see `evaluate/control_variate.py`.
    """

    COUNTS = "counts"
    CONTROL_VARIATE = "control_variate"


class ScheduleKind(enum.StrEnum):
    """Learning rate after the warm-up: cosine decay, or constant with a cooldown at the end (WSD)."""

    COSINE = "cosine"
    WSD = "wsd"


class LayerLoop(enum.StrEnum):
    """Compile one layer and loop over it (scan), or compile every layer (unroll: 0 to 6% faster on CPUs)."""

    SCAN = "scan"
    UNROLL = "unroll"


class Remat(enum.StrEnum):
    """Recomputation in the backward pass: nothing, everything except matrix products, or the whole layer.

    `offload` recomputes as much as `dots`, and keeps the products in the host's memory; see `model/remat.py`.
    """

    NONE = "none"
    DOTS = "dots"
    OFFLOAD = "offload"
    FULL = "full"


class ComputeDtype(enum.StrEnum):
    """The number format of matrix products and of what layers pass on; weights, softmax, norms, losses are float32.

    With `model.float32_residual` the sums over the layers are float32 too.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Float32Precision(enum.StrEnum):
    """The precision of products of float32 numbers. It changes nothing for bfloat16, or on a CPU.

    `highest` computes in float32 throughout, which takes six passes of a TPU's bfloat16 units. `default` is the
    device's fastest way: a TPU rounds the operands to bfloat16, and NVIDIA GPUs since Ampere use TensorFloat-32. XLA
    has a precision between these two, which the TPU's attention kernel does not accept.
    """

    HIGHEST = "highest"
    DEFAULT = "default"


class CorpusSource(enum.StrEnum):
    """The source of the text.

    `pydoc` is the documentation of Python and of installed packages. `text` cuts text files at blank lines. `passages`
    cuts text files into 2048 to 4096 characters, with or without blank lines. `pairs` reads JSONL whose records have a
    `prompt`, which may be empty, and a `response`; each row of training is one pair. `fasta` is sequences of
    nucleotides, cut into regions of 8192 letters.
    """

    PYDOC = "pydoc"
    TEXT = "text"
    PASSAGES = "passages"
    JSONL = "jsonl"
    PARQUET = "parquet"
    TFDS = "tfds"
    PAIRS = "pairs"
    FASTA = "fasta"


class RowKind(enum.StrEnum):
    """What a row of training or evaluation is: whole tokens of text, or a pair of which all or a part is scored."""

    TEXT = "text"
    RESPONSES = "responses"
    WHOLE_PAIRS = "whole_pairs"


class TokenizerKind(enum.StrEnum):
    """Bytes, nucleotides, sentencepiece trained on the corpus, a sentencepiece model file, or a `tokenizer.json`."""

    BYTES = "bytes"
    NUCLEOTIDES = "nucleotides"
    SENTENCEPIECE = "sentencepiece"
    SENTENCEPIECE_FILE = "sentencepiece_file"
    TOKENIZER_JSON = "tokenizer_json"


class FlopConvention(enum.StrEnum):
    """See `counting.py` for the definitions."""

    SMDM_6ND = "smdm_6nd"
    WITH_HEAD = "with_head"
    EXACT = "exact"
    CHINCHILLA = "chinchilla"
