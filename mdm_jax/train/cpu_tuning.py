"""The settings with which the train step is fastest on a CPU. They change the result only by the order of sums."""

import dataclasses

from mdm_jax.devices.precision import platform
from mdm_jax.spec import HardwareSpec, Remat, RunSpec

LARGE = 1 << 18
"""The numbers in the hidden states `B L D` of one device from which a step's activations do not fit into the caches."""
MICROBATCH_TOKENS = 1024
"""The fewest tokens of a microbatch on each device: work for all cores, and activations that stay in the cache."""


def tuned(spec: RunSpec) -> RunSpec:
    """The run with the settings for the devices of the ambient mesh: its own, unless they are CPUs.

    On a CPU, a large step computes everything except matrix products again in the backward pass (`remat = dots`). It
    also splits its batch into microbatches of at least MICROBATCH_TOKENS. Both keep activations out of the main memory,
    whose pages the system must otherwise fill with zeros in each step. Settings of the run that need even less memory
    stay. With `hardware.cpu_tuning = false` all settings stay.
    """
    hardware = spec.hardware
    tokens = spec.optim.global_batch * spec.data.seq_len // hardware.row_shards
    large = tokens * spec.model.d_model >= LARGE
    if not hardware.cpu_tuning or not large or platform() != "cpu":
        return spec
    remat = Remat.DOTS if hardware.remat is Remat.NONE else hardware.remat
    microbatches = _microbatches(spec.optim.global_batch, tokens, hardware)
    return dataclasses.replace(spec, hardware=dataclasses.replace(hardware, remat=remat, microbatches=microbatches))


def _microbatches(batch: int, tokens: int, hardware: HardwareSpec) -> int:
    """The largest number of microbatches that have MICROBATCH_TOKENS on each device and whole pairs of rows.

    If the run's own number is larger, that is returned.

    Args:
        batch: B, over all devices.
        tokens: tokens of a step on each device.
        hardware: the run's own settings.
    """
    pairs = batch // (2 * hardware.row_shards)
    most = max(1, tokens // MICROBATCH_TOKENS)
    return max(hardware.microbatches, *(m for m in range(1, most + 1) if pairs % m == 0))
