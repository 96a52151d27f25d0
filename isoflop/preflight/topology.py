"""TPU slices by name: chips, memory that a program may use, and the peaks of compute, memory and interconnect.

Compute and bandwidths are from Google's documentation of each generation (docs.cloud.google.com/tpu/docs/v4, v5e, v5p,
v6e: "key specifications"). Its interconnect bandwidth adds both directions of all links of a chip; a chip sends half of
that. Usable memory is the most that libtpu 0.0.42 allows a program; the runtime uses the rest.
"""

import math
import re
from dataclasses import dataclass, replace

from mdm_jax.devices.accelerators import DEVICES, GIB
from mdm_jax.spec.validation import require

GB_PER_SECOND = 1e9
MOST_SLICES = 1024


@dataclass(frozen=True)
class Chip:
    """One generation's chip, the unit that a mesh counts."""

    name: str
    hbm_bytes: float
    """Memory that a program may use."""
    hbm_bytes_per_second: float
    ici_bytes_per_second: float
    """Bytes that a chip sends over all its links together."""
    shapes: tuple[str, ...]
    """The shapes of its slices, smallest first."""
    config: str = ""
    """The compiler's name of the chip with its cores joined, if that is not its default."""

    @property
    def flops_per_second(self) -> float:
        """Peak, dense bfloat16."""
        return DEVICES[self.name].flops_per_second


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 30.75 * GIB, 1228 * GB_PER_SECOND, 300 * GB_PER_SECOND, CUBIC, "megacore"),
        Chip("v5e", 15.75 * GIB, 819 * GB_PER_SECOND, 200 * GB_PER_SECOND, FLAT),
        Chip("v5p", 95.74 * GIB, 2765 * GB_PER_SECOND, 600 * GB_PER_SECOND, CUBIC),
        Chip("v6e", 31.25 * GIB, 1640 * GB_PER_SECOND, 400 * GB_PER_SECOND, FLAT),
    )
}


@dataclass(frozen=True)
class Topology:
    """One slice, or several equal ones: boxes of chips of one generation. Each chip is a device of the mesh."""

    chip: Chip
    shape: str
    slices: int = 1
    """Slices that a data-centre network connects."""

    @property
    def slice_name(self) -> str:
        """The compiler's name of one slice."""
        return f"{self.chip.name}:{self.shape}"

    @property
    def name(self) -> str:
        return self.slice_name if self.slices == 1 else f"{self.slices} slices of {self.slice_name}"

    @property
    def devices_of_slice(self) -> int:
        return math.prod(int(side) for side in self.shape.split("x"))

    @property
    def devices(self) -> int:
        return self.slices * self.devices_of_slice

    @property
    def mesh(self) -> str:
        """The mesh that splits the weights over all devices of a slice, and has a replica in each slice."""
        replicas = f"{self.slices}x" if self.slices > 1 else ""
        return f"{replicas}{self.devices_of_slice}x1"

    @property
    def compiler_options(self) -> dict[str, object]:
        """Options that the TPU compiler needs in addition to the name."""
        options: dict[str, object] = {}
        if self.chip.config:
            options["chip_config_name"] = self.chip.config
        if self.devices_of_slice == 1:
            options["chips_per_host_bounds"] = [1, 1, 1]
        if self.slices > 1:
            options["num_slices"] = self.slices
        return options

    def larger(self) -> "Topology | None":
        """As many slices of the chip's next larger shape; None if there is no larger one."""
        following = self.chip.shapes.index(self.shape) + 1
        if following == len(self.chip.shapes):
            return None
        return replace(self, shape=self.chip.shapes[following])


def find_topology(name: str, slices: int = 1) -> Topology:
    """The slice of that name, such as v5e:4x4, or several of them.

    Raises:
        ValueError: there is no such slice (the known ones are listed), or `slices` is not from 1 to MOST_SLICES.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name.strip().lower())
    chip = CHIPS.get(match[1]) if match else None
    if match is None or chip is None or match[2] not in chip.shapes:
        known = "; ".join(f"{chip.name}:{{{','.join(chip.shapes)}}}" for chip in CHIPS.values())
        raise ValueError(f"topology {name!r}: must be one of {known}")
    require(1 <= slices <= MOST_SLICES, "--slices", slices, f"from 1 to {MOST_SLICES}")
    return Topology(chip, match[2], slices)


def find_mesh(text: str) -> tuple[int, int, int]:
    """`(replica, data, model)` of DATAxMODEL, such as 16x1, or of REPLICAxDATAxMODEL, such as 2x16x1.

    Raises:
        ValueError: another form, or a size below 1.
    """
    match = re.fullmatch(r"(?:([1-9]\d{0,5})x)?([1-9]\d{0,5})x([1-9]\d{0,5})", text.strip().lower())
    if match is None:
        raise ValueError(f"mesh {text!r}: must be DATAxMODEL, such as 16x1, or REPLICAxDATAxMODEL, such as 2x16x1")
    return int(match[1] or 1), int(match[2]), int(match[3])
