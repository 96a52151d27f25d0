"""Published figures of accelerators, for the planner's costs and for a run's MFU."""

from dataclasses import dataclass

GB = 1e9
GIB = 2.0**30
LANES = 128
"""Lanes of a TPU's vector registers. Its attention kernel accepts rows of a multiple of this many tokens."""


@dataclass(frozen=True)
class Device:
    """The vendor's figures for one device."""

    flops_per_second: float
    """Peak, dense bfloat16."""
    memory_bytes: float
    source: str
    jax_names: tuple[str, ...]
    """The values of `device_kind` in old and new versions of jax."""


DEVICES = {
    "v4": Device(275e12, 32 * GIB, "Google Cloud TPU v4 documentation: 275 TFLOP/s, 32 GiB a chip", ("TPU v4",)),
    "v5e": Device(
        197e12, 16 * GB, "Google Cloud TPU v5e documentation: 197 TFLOP/s, 16 GB a chip", ("TPU v5 lite", "TPU v5e")
    ),
    "v5p": Device(
        459e12, 95 * GB, "Google Cloud TPU v5p documentation: 459 TFLOP/s, 95 GB a chip", ("TPU v5", "TPU v5p")
    ),
    "v6e": Device(
        918e12,
        32 * GB,
        "Google Cloud TPU v6e (Trillium) documentation: 918 TFLOP/s, 32 GB a chip",
        ("TPU v6 lite", "TPU v6e"),
    ),
    "h100": Device(
        989.4e12,
        80 * GB,
        "NVIDIA H100 SXM data sheet: 989.4 TFLOP/s dense (half the sparse), 80 GB",
        ("NVIDIA H100 80GB HBM3",),
    ),
    "h200": Device(
        989.4e12,
        141 * GB,
        "NVIDIA H200 SXM data sheet: 989.4 TFLOP/s dense (half the sparse), 141 GB",
        ("NVIDIA H200",),
    ),
}


def peak_flops_per_second(device_kind: str) -> float | None:
    """Peak of one device in dense bfloat16 FLOP/s; None for a CPU, or a device that is not listed.

    Args:
        device_kind: jax's exact name; "TPU v4 lite", "NVIDIA H100 PCIe" and "NVIDIA H200 NVL" are other devices.
    """
    return next((device.flops_per_second for device in DEVICES.values() if device_kind in device.jax_names), None)
