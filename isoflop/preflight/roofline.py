"""A step's roofline: the least time that compute, memory, interconnect and host link each need. The longest binds.

Compute is `exact` FLOPs (counting.py) plus what the remat policy computes again, at the chip's peak. XLA's own counts
are not used, because they count a loop's body once. Interconnect is what the compiled program's collectives send.
Memory traffic is estimated from below. The optimiser reads and writes the state once. Every pass over a layer reads the
gathered weights once, and reads and writes the inputs and outputs of the matrix products once. The logits are read and
written once, too. The residual stream, whose number format is an option, is not counted. The host link carries what the
policy `offload` moves to the host and back. A real step may not overlap the four, so the longest is a lower bound, not
a forecast.
"""

from dataclasses import dataclass

from isoflop.preflight.topology import Chip
from mdm_jax.devices.accelerators import LANES
from mdm_jax.spec import ComputeDtype, Remat, RunSpec
from mdm_jax.spec.counting import count_parameters, forward_flops, scored_positions, trunk_flops

STATE_TRAFFIC = 7 * 4
"""Bytes a parameter in one step: AdamW reads weight, gradient and two moments, and writes three, in float32."""
FLOAT32_BYTES = 4
HOST_BYTES_PER_SECOND = 16e9
"""Bytes that one chip moves to the host in a second, or from it. The two do not overlap.

This is an assumption (PCIe 4.0 with 8 lanes), because Google publishes no figure.
"""


@dataclass(frozen=True)
class Roofline:
    """Seconds that one step needs of each resource at its peak. All devices are alike."""

    compute: float
    memory: float
    interconnect: float
    host: float
    useful_seconds: float
    """Seconds of one device's `exact` FLOPs at its peak, without recomputation."""

    @property
    def seconds(self) -> float:
        """The bound: the longest of the four."""
        return max(self.compute, self.memory, self.interconnect, self.host)

    @property
    def binds(self) -> str:
        """`compute`, `memory`, `interconnect` or `host`."""
        return max(("compute", "memory", "interconnect", "host"), key=lambda name: getattr(self, name))

    @property
    def mfu(self) -> float:
        """The highest MFU that the bound allows."""
        return self.useful_seconds / self.seconds


def roofline(spec: RunSpec, chip: Chip, sent_bytes: float) -> Roofline:
    """The roofline of the run's step on its mesh of these chips.

    Args:
        sent_bytes: bytes that each device sends over the interconnect in one step.
    """
    devices = spec.hardware.devices
    flops = 3 * forward_flops(spec.model, spec.objective, spec.optim.global_batch, spec.data.seq_len)
    return Roofline(
        compute=(flops + recomputed_flops(spec)) / devices / chip.flops_per_second,
        memory=memory_bytes(spec) / chip.hbm_bytes_per_second,
        interconnect=sent_bytes / chip.ici_bytes_per_second,
        host=offloaded_bytes(spec) / HOST_BYTES_PER_SECOND,
        useful_seconds=flops / devices / chip.flops_per_second,
    )


def recomputed_flops(spec: RunSpec) -> int:
    """FLOPs of the matrix products that the backward pass repeats: all of the trunk's, half of attention's, or none.

    The scores of attention, half of its products, are repeated where the TPU's kernel does not accept the row length.
    """
    batch, length = spec.optim.global_batch, spec.data.seq_len
    trunk = trunk_flops(spec.model, spec.objective, batch, length)
    passes = 1 + spec.objective.reconstructs
    products = 2 * passes * count_parameters(spec.model).non_embedding * batch * length
    scores = 0 if length % LANES == 0 else max(0, trunk - products) // 2
    again = {Remat.NONE: 0, Remat.DOTS: scores, Remat.OFFLOAD: scores, Remat.FULL: trunk}
    layers = spec.model.n_layers
    return sum(again[remat] * count // layers for remat, count in spec.hardware.layer_policies(layers))


def offloaded_bytes(spec: RunSpec) -> float:
    """Bytes that one device moves to the host and back in a step: results of products with weights, and attention."""
    m, tokens = spec.model, spec.optim.global_batch * spec.data.seq_len / spec.hardware.row_shards
    width = 2 if m.compute_dtype is ComputeDtype.BFLOAT16 else FLOAT32_BYTES
    channels = 2 * m.d_model + (4 * m.d_model + 2 * m.d_ffn) / spec.hardware.mesh_model
    return 2 * tokens * _layers_of(Remat.OFFLOAD, spec) * channels * width * (1 + spec.objective.reconstructs)


def _layers_of(remat: Remat, spec: RunSpec) -> int:
    """The number of layers with this policy."""
    return sum(count for policy, count in spec.hardware.layer_policies(spec.model.n_layers) if policy is remat)


def memory_bytes(spec: RunSpec) -> float:
    """Bytes that one device moves to and from its memory in a step, estimated from below."""
    m, hardware = spec.model, spec.hardware
    count = count_parameters(m)
    _, data, model = spec.mesh_shape
    width = 2 if m.compute_dtype is ComputeDtype.BFLOAT16 else FLOAT32_BYTES
    passes = 2 + _layers_of(Remat.FULL, spec) / m.n_layers
    state = count.total * STATE_TRAFFIC / (data * model)
    gathered = count.total / model * width * hardware.microbatches * (passes + 1)
    tokens = spec.optim.global_batch * spec.data.seq_len / hardware.row_shards
    bytes_per_token = m.n_layers * (4 * m.d_model + (7 * m.d_model + 4 * m.d_ffn) / model) * width * 2 * (passes + 1)
    scored = scored_positions(spec.objective, spec.optim.global_batch, spec.data.seq_len) / hardware.row_shards
    logits = scored * m.vocab_size / model * (2 * FLOAT32_BYTES + 2 * width)
    return state + gathered + tokens * bytes_per_token + logits
