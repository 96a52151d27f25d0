"""The settings with which training is fastest on a CPU. They change the result only by the order of sums."""

import dataclasses

import jax

from mdm_jax.devices.precision import platform
from mdm_jax.spec import FlopConvention, HardwareSpec, LayerLoop, Remat, RunSpec
from mdm_jax.spec.counting import step_flops

LARGE = 1 << 18
"""The numbers in the hidden states `B L D` of one device from which a step's activations do not fit into the caches."""
MICROBATCH_TOKENS = 1024
"""The fewest tokens of a microbatch on each device: work for all cores, and activations that stay in the cache."""
MOST_HIDDEN_NUMBERS = 1 << 21
"""The most numbers in a microbatch's hidden states, over all layers, for which every result is kept for the backward
pass. All results are about twenty times as many numbers: 170 MB."""
MOST_UNROLLED = 8
"""The most layers that are unrolled unasked. The compiler needs half a second for each."""
SMALL_FLOPS = 3 * 10**8
"""The most FLOPs of a step whose cost on the host, about a millisecond, is worth sharing with other steps."""
MOST_STEPS_IN_A_CALL = 16
"""A limit, so that the batches of a call take little memory, and a run that is asked to stop does so soon."""


def steps_in_a_call(spec: RunSpec) -> int:
    """How many steps one call of the compiled program makes at most.

    On a CPU, the host's work for a call (batch, dispatch, threads that wake up) takes longer than the step of a tiny
    model. So such a model makes several steps in a call. They are the steps between two rows of the metrics, or fewer.
    With `hardware.cpu_tuning = false`, and for all other models, it is one step.
    """
    small = step_flops(spec, FlopConvention.EXACT) <= SMALL_FLOPS
    if not _is_on(spec.hardware) or not small or jax.process_count() > 1:
        return 1
    return min(MOST_STEPS_IN_A_CALL, spec.hardware.log_every)


def tuned(spec: RunSpec) -> RunSpec:
    """The run with the settings for the devices of the ambient mesh: its own, unless they are CPUs.

    On a CPU, a large step splits its batch into microbatches of at least MICROBATCH_TOKENS, so that activations stay in
    the cache. If a microbatch is small in all layers together, every result is kept for the backward pass, and the
    loop over the layers is unrolled. Otherwise the step computes everything except matrix products again
    (`remat = dots`), which needs less memory. Settings of the run that need even less stay, also those of some layers
    (`remat_layers`). With `hardware.cpu_tuning = false` all settings stay.
    """
    hardware, model = spec.hardware, spec.model
    tokens = spec.optim.global_batch * spec.data.seq_len // hardware.row_shards
    large = tokens * model.d_model >= LARGE
    if not _is_on(hardware) or not large:
        return spec
    microbatches = _microbatches(spec.optim.global_batch, tokens, hardware)
    hidden_numbers = tokens // microbatches * model.d_model * model.n_layers
    small = hidden_numbers <= MOST_HIDDEN_NUMBERS and model.n_layers <= MOST_UNROLLED
    if small and hardware.remat is Remat.NONE:
        hardware = dataclasses.replace(hardware, layers=LayerLoop.UNROLL)
    else:
        hardware = _recomputing(hardware)
    return dataclasses.replace(spec, hardware=dataclasses.replace(hardware, microbatches=microbatches))


def _is_on(hardware: HardwareSpec) -> bool:
    """Whether the run may be tuned, and the devices of the ambient mesh are CPUs."""
    return hardware.cpu_tuning and platform() == "cpu"


def _recomputing(hardware: HardwareSpec) -> HardwareSpec:
    """The hardware with `dots` for the layers whose policy is `none`."""
    if hardware.remat in (Remat.NONE, Remat.DOTS):
        return dataclasses.replace(hardware, remat=Remat.DOTS, remat_layers=0)
    if hardware.remat_layers and hardware.remat_rest is Remat.NONE:
        return dataclasses.replace(hardware, remat_rest=Remat.DOTS)
    return hardware


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
