"""A step's roofline: the least time that compute, memory and interconnect each need. The longest binds.

Compute is `exact` FLOPs (counting.py) plus what the remat policy computes again, at the chip's peak. XLA's own counts
are not used, because they count a loop's body once. Interconnect is what the compiled program's collectives send.
Memory traffic is estimated from below. The optimiser reads and writes the state once. Every pass over a layer reads the
gathered weights once, and reads and writes the inputs and outputs of the matrix products once. The logits are read and
written once, too. A real step may not overlap the three, so the longest is a lower bound, not a forecast.
"""

from dataclasses import dataclass

from isoflop.preflight.topology import Chip
from mdm_jax.spec import ComputeDtype, Remat, RunSpec
from mdm_jax.spec.counting import count_parameters, forward_flops, scored_positions, trunk_flops

STATE_TRAFFIC = 7 * 4
"""Bytes a parameter in one step: AdamW reads weight, gradient and two moments, and writes three, in float32."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Roofline:
    """Seconds that one step needs of each resource at its peak. All devices are alike."""

    compute: float
    memory: float
    interconnect: float
    useful_seconds: float
    """Seconds of one device's `exact` FLOPs at its peak, without recomputation."""

    @property
    def seconds(self) -> float:
        """The bound: the longest of the three."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def binds(self) -> str:
        """`compute`, `memory` or `interconnect`."""
        terms = {"compute": self.compute, "memory": self.memory, "interconnect": self.interconnect}
        return max(terms, key=lambda name: terms[name])

    @property
    def mfu(self) -> float:
        """The highest MFU that the bound allows."""
        return self.useful_seconds / self.seconds


def roofline(spec: RunSpec, chip: Chip, sent_bytes: float) -> Roofline:
    """The roofline of the run's step on its mesh of these chips.

    Args:
        sent_bytes: bytes that each device sends over the interconnect in one step.
    """
    devices = spec.hardware.mesh_data * spec.hardware.mesh_model
    flops = 3 * forward_flops(spec.model, spec.objective, spec.optim.global_batch, spec.data.seq_len)
    return Roofline(
        compute=(flops + recomputed_flops(spec)) / devices / chip.flops_per_second,
        memory=memory_bytes(spec) / chip.hbm_bytes_per_second,
        interconnect=sent_bytes / chip.ici_bytes_per_second,
        useful_seconds=flops / devices / chip.flops_per_second,
    )


def recomputed_flops(spec: RunSpec) -> int:
    """FLOPs of the matrix products that the backward pass repeats: all of the trunk's, attention's, or none."""
    batch, length = spec.optim.global_batch, spec.data.seq_len
    trunk = trunk_flops(spec.model, spec.objective, batch, length)
    passes = 1 + spec.objective.reconstructs
    products = 2 * passes * count_parameters(spec.model).non_embedding * batch * length
    return {Remat.NONE: 0, Remat.DOTS: max(0, trunk - products), Remat.FULL: trunk}[spec.hardware.remat]


def memory_bytes(spec: RunSpec) -> float:
    """Bytes that one device moves to and from its memory in a step, estimated from below."""
    m, hardware = spec.model, spec.hardware
    count = count_parameters(m)
    data, model = hardware.mesh_data, hardware.mesh_model
    width = 2 if m.compute_dtype is ComputeDtype.BFLOAT16 else FLOAT32_BYTES
    passes = 3 if hardware.remat is Remat.FULL else 2
    state = count.total * STATE_TRAFFIC / (data * model)
    gathered = count.total / model * width * hardware.microbatches * (passes + 1)
    tokens = spec.optim.global_batch * spec.data.seq_len / data
    bytes_per_token = m.n_layers * (4 * m.d_model + (7 * m.d_model + 4 * m.d_ffn) / model) * width * 2 * (passes + 1)
    scored = scored_positions(spec.objective, spec.optim.global_batch, spec.data.seq_len) / data
    logits = scored * m.vocab_size / model * (2 * FLOAT32_BYTES + 2 * width)
    return state + gathered + tokens * bytes_per_token + logits
