"""RunSpec: all settings of one training run, frozen, and its JSON.

A plan is a file with one RunSpec a line. A run's folder keeps its RunSpec as `spec.json`. `run_id` is a hash of the
fields that change the result. Fields marked `NOT_HASHED` only say where and how fast the run goes.
"""

import dataclasses
import functools
import hashlib
import json
import math
from dataclasses import dataclass, field

from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.spec.data_spec import BYTES_VOCAB_SIZE, DataSpec
from mdm_jax.spec.fine_tuning_spec import StartSpec, check_rows
from mdm_jax.spec.hardware_spec import HardwareSpec
from mdm_jax.spec.kinds import (
    Attention,
    ComputeDtype,
    Estimator,
    Family,
    Float32Precision,
    FlopConvention,
    Likelihood,
    ScheduleKind,
)
from mdm_jax.spec.objective_spec import ObjectiveSpec, evaluated_loss
from mdm_jax.spec.validation import HASHED_IF_SET, NOT_HASHED, build, require, to_dict

SCHEMA_VERSION = 2
SEALED_SINCE = 2
"""The first schema version with a `sha256`. Plan lines and spec.json of version 1 have none and are still read."""
NORM_EPS, ROPE_BASE = 1e-5, 1e4
"""Constants of the trunk: epsilon of RMSNorm, and base of the rotary frequencies."""
EXACT_LIKELIHOODS = (Likelihood.LEFT_TO_RIGHT, Likelihood.CONFIDENCE)
"""The likelihoods that a run can be evaluated by besides its loss: each is exact, and has columns in the run table."""
MOST_GROUP_DRAWS = 16
"""Most draws in a group of the estimator `control_variate`."""
LEAST_GROUPS = 2
"""Groups of draws of a row that a standard error needs."""
MOST_BUDGET = 1e30
"""FLOPs. The largest training runs known took less than 1e27."""


@dataclass(frozen=True)
class ModelSpec:
    """The trunk of SMDM: pre-norm RMSNorm, SwiGLU, RoPE, no biases, untied head."""

    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 2
    d_ffn: int = 256
    vocab_size: int = BYTES_VOCAB_SIZE
    attention: Attention = Attention.BIDIRECTIONAL
    compute_dtype: ComputeDtype = ComputeDtype.FLOAT32
    float32_precision: Float32Precision = field(default=Float32Precision.HIGHEST, metadata=HASHED_IF_SET)
    """Used only where `compute_dtype` is float32."""
    float32_residual: bool = field(default=False, metadata=HASHED_IF_SET)
    """Whether the sum of the layers' results, the residual stream, is float32 although `compute_dtype` is bfloat16.

    The model rounds less and needs more memory: what a layer keeps of its input has twice the bytes.
    """
    dropout: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Share of zeros in training, after the embedding and on both residual branches of each layer."""
    time_conditioning: bool = field(default=False, metadata=HASHED_IF_SET)
    """Whether the share of masked tokens is an input of the MDM (see `model/conditioning.py`)."""
    mask_column: bool = field(default=False, metadata=HASHED_IF_SET)
    """Whether the head has a column for MASK, for a loss without zero masking. Evaluations leave it out."""

    def __post_init__(self) -> None:
        for name, most in (("n_layers", 1024), ("d_model", 1 << 16), ("n_heads", 1024), ("d_ffn", 1 << 18)):
            value = getattr(self, name)
            require(1 <= value <= most, f"model.{name}", value, f"from 1 to {most}")
        require(2 <= self.vocab_size <= 1 << 24, "model.vocab_size", self.vocab_size, "from 2 to 2^24")
        whole = self.d_model % self.n_heads == 0 and (self.d_model // self.n_heads) % 2 == 0
        require(
            whole, "model.d_model", self.d_model, f"a multiple of 2 * n_heads = {2 * self.n_heads} (RoPE turns pairs)"
        )
        fits = self.compute_dtype is ComputeDtype.FLOAT32 or self.float32_precision is Float32Precision.HIGHEST
        bound = f"highest (the default) unless compute_dtype is float32: it is {self.compute_dtype.value}"
        require(fits, "model.float32_precision", self.float32_precision.value, bound)
        fits = self.compute_dtype is not ComputeDtype.FLOAT32 or not self.float32_residual
        require(fits, "model.float32_residual", True, "false (the default) unless compute_dtype is bfloat16")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and below 1")
        for name in ("time_conditioning", "mask_column"):
            fits = self.attention is Attention.BIDIRECTIONAL or not getattr(self, name)
            require(fits, f"model.{name}", True, "false for the ARM: it has no MASK")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def d_time(self) -> int:
        """Width of the time conditioning: an even quarter of `d_model`, at least 8."""
        return max(8, self.d_model // 8 * 2)


@dataclass(frozen=True)
class OptimSpec:
    """AdamW as in SMDM: decoupled decay of every weight, global gradient clip. `global_batch` is in sequences."""

    lr_peak: float = 2e-3
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    global_batch: int = 16
    ema_decay: float = 0.0
    """Decay a step of the weights' moving average, which is evaluated in their place; 0 keeps no average."""

    def __post_init__(self) -> None:
        require(0 < self.lr_peak < 10, "optim.lr_peak", self.lr_peak, "between 0 and 10")
        for name in ("b1", "b2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "at least 0 and below 1")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        require(self.clip_norm > 0, "optim.clip_norm", self.clip_norm, "above 0 (1e9 never clips)")
        even = 2 <= self.global_batch <= 1 << 20 and self.global_batch % 2 == 0
        require(even, "optim.global_batch", self.global_batch, "even, from 2 to 2^20 sequences (counts come in pairs)")


@dataclass(frozen=True)
class ScheduleSpec:
    """Learning rate over steps: linear warm-up, then cosine decay, or constant with a linear cooldown (WSD)."""

    kind: ScheduleKind = ScheduleKind.COSINE
    steps: int = 1000
    warmup_steps: int = 100
    lr_final_fraction: float = 0.1
    cooldown_steps: int = 0

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1 << 31, "schedule.steps", self.steps, "at least 1")
        warm = 0 <= self.warmup_steps <= self.steps
        require(warm, "schedule.warmup_steps", self.warmup_steps, f"from 0 to steps = {self.steps}")
        require(0 <= self.lr_final_fraction <= 1, "schedule.lr_final_fraction", self.lr_final_fraction, "from 0 to 1")
        most = self.steps - self.warmup_steps if self.kind is ScheduleKind.WSD else 0
        fits = 0 <= self.cooldown_steps <= most
        require(fits, "schedule.cooldown_steps", self.cooldown_steps, f"from 0 to {most} ({self.kind.value} schedule)")


@dataclass(frozen=True)
class EvaluationSpec:
    """The final evaluation: the first `eval_tokens` of the validation split, the same for every size and family."""

    eval_tokens: int = 65536
    mc_samples: int = 16
    """Monte Carlo draws of the NELBO over all evaluation tokens; with `max_se` the most. The ARM needs one pass."""
    batch: int = 64
    """Sequences of a forward pass."""
    likelihoods: tuple[Likelihood, ...] = field(default=(), metadata=NOT_HASHED)
    """Exact likelihoods of the same tokens, besides the loss. They add columns to the run's row and change none."""
    estimator: Estimator = field(default=Estimator.COUNTS, metadata=HASHED_IF_SET)
    max_se: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Monte Carlo error in nats per token at which an MDM gets no more draws; 0 makes all draws."""

    def __post_init__(self) -> None:
        require(self.eval_tokens >= 2, "evaluation.eval_tokens", self.eval_tokens, "at least two sequences' tokens")
        two = 2 <= self.mc_samples <= 1 << 20
        require(two, "evaluation.mc_samples", self.mc_samples, "at least 2 (a standard error needs two)")
        require(self.batch >= 2 and self.batch % 2 == 0, "evaluation.batch", self.batch, "even, at least 2 sequences")
        asked = [one.value for one in self.likelihoods]
        fine = len(set(asked)) == len(asked) and set(asked) <= set(EXACT_LIKELIHOODS)
        require(fine, "evaluation.likelihoods", asked, f"some of {', '.join(EXACT_LIKELIHOODS)}, each once")
        if self.estimator is Estimator.CONTROL_VARIATE:
            bound = f"a multiple of {MOST_GROUP_DRAWS} for the estimator control_variate"
            require(self.mc_samples % MOST_GROUP_DRAWS == 0, "evaluation.mc_samples", self.mc_samples, bound)
        require(0 <= self.max_se < math.inf, "evaluation.max_se", self.max_se, "0, or an error in nats per token")
        if self.max_se:
            fits = self.estimator is Estimator.CONTROL_VARIATE
            bound = "0 (the default) unless evaluation.estimator = control_variate, whose errors few draws tell well"
            require(fits, "evaluation.max_se", self.max_se, bound)
            least = (LEAST_GROUPS + 1) * MOST_GROUP_DRAWS
            bound = f"at least {least} with evaluation.max_se, which first looks at {LEAST_GROUPS} groups of draws"
            require(self.mc_samples >= least, "evaluation.mc_samples", self.mc_samples, bound)

    @property
    def group_draws(self) -> int:
        """Draws of a row that an MDM's evaluation takes together; a standard error needs two groups of them."""
        together = self.estimator is Estimator.CONTROL_VARIATE
        return min(MOST_GROUP_DRAWS, self.mc_samples // LEAST_GROUPS) if together else 1


@dataclass(frozen=True)
class CellSpec:
    """The run's place in a sweep. `budget` is in FLOPs under `convention`; `size` is the name of the model size."""

    budget: float | None = None
    convention: FlopConvention = FlopConvention.SMDM_6ND
    size: str = ""
    parent_run_id: str = ""
    """The run whose last checkpoint this run starts from; empty for a run without a parent."""
    group: str = ""
    """Label of what the sweep compares. No fit mixes runs of different groups."""
    parent_steps: int = 0
    """The number of steps that the parent was trained for."""
    segment: bool = False
    """Whether the run is a segment of a trunk. A segment ends before the learning rate decays, and enters no fit."""
    refined: bool = False
    """Whether a refinement added the run. The experiment file does not have it, and planning again keeps it."""
    recipe: str = ""
    """Name of the recipe that chose the learning rate, batch and warm-up; empty without a recipe."""

    def __post_init__(self) -> None:
        spent = self.budget is None or 0 < self.budget <= MOST_BUDGET
        require(spent, "cell.budget", self.budget, f"above 0 and at most {MOST_BUDGET:g} FLOPs")
        fits = self.parent_steps == 0 or (self.parent_steps > 0 and bool(self.parent_run_id))
        require(fits, "cell.parent_steps", self.parent_steps, "0, or above 0 and given with cell.parent_run_id")


@dataclass(frozen=True)
class RunSpec:
    """One training run."""

    model: ModelSpec = ModelSpec()
    objective: ObjectiveSpec = field(default=ObjectiveSpec())
    data: DataSpec = field(default=DataSpec())
    optim: OptimSpec = OptimSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    hardware: HardwareSpec = field(default=HardwareSpec(), metadata=NOT_HASHED)
    cell: CellSpec = field(default=CellSpec(), metadata=NOT_HASHED)
    seed: int = 0
    start: StartSpec = field(default=StartSpec(), metadata=HASHED_IF_SET)

    def __post_init__(self) -> None:
        causal = self.model.attention is Attention.CAUSAL
        right = causal == (self.family is Family.ARM)
        require(right, "model.attention", self.model.attention.value, "causal for the ARM, bidirectional for the MDM")
        require(0 <= self.seed < 1 << 31, "seed", self.seed, "from 0 to 2^31 - 1")
        fits = self.model.mask_column is not self.objective.zero_masking
        bound = "true if objective.zero_masking is false, and false (the default) otherwise"
        require(fits, "model.mask_column", self.model.mask_column, bound)
        same = self.model.vocab_size == self.data.tokenizer.vocab_size
        vocab = self.data.tokenizer.vocab_size
        require(same, "model.vocab_size", self.model.vocab_size, f"data.tokenizer.vocab_size = {vocab}")
        timed, measured = self.model.time_conditioning, self.evaluation
        check_rows(self.data.rows, self.objective, timed, measured.estimator, measured.likelihoods)
        self._check_hardware()

    def _check_hardware(self) -> None:
        hw, batch = self.hardware, self.optim.global_batch
        unit = 2 * hw.row_shards
        few = hw.remat_layers <= self.model.n_layers
        bound = f"at most model.n_layers = {self.model.n_layers} (0 is all layers)"
        require(few, "hardware.remat_layers", hw.remat_layers, bound)
        fits = batch % (unit * hw.microbatches) == 0
        factors = "2 * mesh_replica * mesh_data" if hw.mesh_replica > 1 else "2 * mesh_data"
        bound = f"so that {factors} * microbatches = {unit * hw.microbatches} divides global_batch = {batch}"
        require(fits, "hardware.microbatches", hw.microbatches, bound)
        rows_unit = max(unit, self.evaluation.group_draws * hw.row_shards)
        fits = self.evaluation.batch % rows_unit == 0
        require(fits, "evaluation.batch", self.evaluation.batch, f"a multiple of {rows_unit}")
        for name in ("n_heads", "d_ffn"):
            value = getattr(self.model, name)
            bound = f"a divisor of model.{name} = {value}"
            require(value % hw.mesh_model == 0, "hardware.mesh_model", hw.mesh_model, bound)

    @property
    def mesh_shape(self) -> tuple[int, int, int]:
        """`(replica, data, model)`: the sizes of the mesh's axes.

        `data` x `model` devices must divide the width, because they share each weight. So `data` is the largest
        divisor of `mesh_data` with which they do, and the other factor of `mesh_data` is more replicas. For example,
        the 48M model has 576 channels: 128 devices are 2 replicas of 64.
        """
        hw = self.hardware
        data = math.gcd(hw.mesh_data, self.model.d_model // hw.mesh_model)
        return hw.row_shards // data, data, hw.mesh_model

    @property
    def family(self) -> Family:
        return self.objective.family

    @property
    def most_draws(self) -> int:
        """The most Monte Carlo draws of the final evaluation; 1 for the ARM, whose loss has no such error."""
        return 1 if self.family is Family.ARM else self.evaluation.mc_samples

    @property
    def draws_until_error(self) -> bool:
        """Whether the final evaluation draws until its error is small enough: the spec leaves their number open."""
        return self.family is Family.MDM and self.evaluation.max_se > 0

    @property
    def train_tokens(self) -> int:
        """Tokens of all training steps, repeats included; with a stochastic length the expected number.

        The padding of pairs counts as tokens.
        """
        rows, length = self.schedule.steps * self.optim.global_batch, self.data.seq_len
        short = self.objective.stochastic_length
        return rows * length if not short else round(rows * ((1 - short) * length + short * (length + 1) / 2))

    @property
    def loss_label(self) -> str:
        """The run table's `objective_variant`: the objective's label, and the model's settings that change the loss."""
        label = self.objective.label
        extra = [f"dropout{self.model.dropout:g}"] * (self.model.dropout > 0) + ["timed"] * self.model.time_conditioning
        return label + "".join((":" if ":" not in label and i == 0 else ",") + x for i, x in enumerate(extra))

    @functools.cached_property
    def spec_hash(self) -> str:
        """SHA-256 (hex) of the fields that change the result."""
        text = json.dumps(to_dict(self, hashed_only=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Name of the run's folder. Family and shape are for people; no program parses the name."""
        return f"{self.family.value}-{self.model.n_layers}x{self.model.d_model}-{self.spec_hash[:12]}"


def pair(spec: RunSpec, family: Family) -> RunSpec:
    """The same run in the given family: only `objective` and `model.attention` change.

    What the family does not have is switched off: `model.mask_column`, and `model.time_conditioning` for the ARM.
    """
    attention = Attention.CAUSAL if family is Family.ARM else Attention.BIDIRECTIONAL
    timed = spec.model.time_conditioning and family is Family.MDM
    model = dataclasses.replace(spec.model, attention=attention, time_conditioning=timed, mask_column=False)
    return dataclasses.replace(spec, objective=evaluated_loss(family), model=model)


def to_json(spec: RunSpec) -> str:
    """One line of JSON, with its schema version and run_id first and its seal last."""
    return json.dumps(seal({"schema_version": SCHEMA_VERSION, "run_id": spec.run_id, **to_dict(spec)}))


def from_json(text: str) -> RunSpec:
    """RunSpec of one line of JSON.

    Raises:
        Damaged: the line is not a JSON object, or its seal is absent or does not match the content.
        ValueError: the schema version is unknown, a field is unknown or has a wrong type, or the run_id does not match
            the content.
    """
    tree = unseal(text, SEALED_SINCE)
    version, run_id = tree.pop("schema_version", None), tree.pop("run_id", None)
    known = type(version) is int and 1 <= version <= SCHEMA_VERSION
    require(known, "schema_version", version, f"1 to {SCHEMA_VERSION}: made by another version of mdm-jax")
    spec = build(RunSpec, tree)
    require(run_id == spec.run_id, "run_id", run_id, f"{spec.run_id}, the hash of the content: was the line edited?")
    return spec
