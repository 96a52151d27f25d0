"""The named choices of a spec: every field of it that takes one of a few words has its enum here."""

import enum


class Family(enum.StrEnum):
    """Masked diffusion or autoregressive."""

    MDM = "mdm"
    ARM = "arm"


class Attention(enum.StrEnum):
    """Which positions a token sees: all, or those up to its own."""

    BIDIRECTIONAL = "bidirectional"
    CAUSAL = "causal"


class Variant(enum.StrEnum):
    """Which training loss: two unbiased forms of the MDM's NELBO, and the ARM's likelihood."""

    COUNT = "count"
    CONTINUOUS = "continuous"
    NLL = "nll"


class NoiseSchedule(enum.StrEnum):
    """How the masked share grows with time in the continuous form; see `objectives/noise.py`."""

    LOG_LINEAR = "log_linear"
    COSINE = "cosine"


class LevelSampler(enum.StrEnum):
    """How noise levels are spread over a batch: SMDM trains iid, SMDM and MD4 evaluate shifted, MDLM stratifies."""

    ANTITHETIC = "antithetic"
    IID = "iid"
    SHIFTED = "shifted"
    STRATIFIED = "stratified"


class Weighting(enum.StrEnum):
    """How the MDM's training loss weighs noise levels against each other; see `objectives/weighting.py`."""

    ELBO = "elbo"
    LOW_VARIANCE = "low_variance"
    CLIPPED = "clipped"
    BELL = "bell"


class ScheduleKind(enum.StrEnum):
    """Learning rate after the warm-up: cosine decay, or stable with a cooldown (WSD)."""

    COSINE = "cosine"
    WSD = "wsd"


class LayerLoop(enum.StrEnum):
    """One compiled layer for all, or every layer written out (faster on CPUs by 0 to 6%)."""

    SCAN = "scan"
    UNROLL = "unroll"


class Remat(enum.StrEnum):
    """What the backward pass recomputes: nothing, everything but matrix products' outputs, or the whole layer."""

    NONE = "none"
    DOTS = "dots"
    FULL = "full"


class ComputeDtype(enum.StrEnum):
    """The number format of matrix products; weights, softmax, norms and losses stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Float32Precision(enum.StrEnum):
    """How exactly products of float32 numbers are computed; it changes nothing for bfloat16, or on a CPU.

    `highest` is float32 throughout: six passes of a TPU's bfloat16 units. `default` is the device's fastest: one pass
    over operands rounded to bfloat16 on a TPU, TensorFloat-32 on NVIDIA GPUs from Ampere on. XLA's precision between
    them is not offered: the TPU's attention kernel does not take it.
    """

    HIGHEST = "highest"
    DEFAULT = "default"


class CorpusSource(enum.StrEnum):
    """The source of the text; `pydoc` is the documentation that every installation has."""

    PYDOC = "pydoc"
    TEXT = "text"
    JSONL = "jsonl"
    PARQUET = "parquet"
    TFDS = "tfds"


class TokenizerKind(enum.StrEnum):
    """Bytes, sentencepiece trained on the corpus, or a sentencepiece model file."""

    BYTES = "bytes"
    SENTENCEPIECE = "sentencepiece"
    SENTENCEPIECE_FILE = "sentencepiece_file"


class FlopConvention(enum.StrEnum):
    """See `counting.py` for the definitions."""

    SMDM_6ND = "smdm_6nd"
    WITH_HEAD = "with_head"
    EXACT = "exact"
    CHINCHILLA = "chinchilla"
