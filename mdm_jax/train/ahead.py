"""Ahead-of-time compilation of a run's train step, for devices that this machine need not have.

    python -m mdm_jax.train.ahead < job.json

`jax.experimental.topologies` describes the devices of a TPU slice to the TPU compiler, which is part of `libtpu`; no
TPU is needed. It compiles the step that the run would execute, with shapes in place of arrays. The command reads one
job and prints the compiler's answer. `isoflop.preflight` starts a process for each job, so that a crash of the compiler
ends only one job.
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from mdm_jax.devices.sharding import BATCH_L, abstract_arrays, run_mesh
from mdm_jax.spec import RunSpec, from_json
from mdm_jax.spec.validation import build, to_dict
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import make_state
from mdm_jax.train.step import compile_step

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
TOO_LARGE = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Job:
    """A run to compile, and the devices to compile it for."""

    spec: str
    """The run's line in the plan."""
    topology: str = ""
    """TPU slice, such as `v5e:4x4`; empty for this machine's own devices."""
    chip_config_name: str = ""
    chips_per_host_bounds: tuple[int, ...] = ()
    num_slices: int = 1
    hlo: str = ""
    """File for the text of the optimised program; empty for none."""

    def devices(self) -> Sequence[Any]:
        """Descriptions of the slice's devices, or this machine's own devices."""
        if not self.topology:
            return jax.devices()
        options: dict[str, Any] = {"chip_config_name": self.chip_config_name} if self.chip_config_name else {}
        if self.chips_per_host_bounds:
            options["chips_per_host_bounds"] = self.chips_per_host_bounds
        if self.num_slices > 1:
            options["num_slices"] = self.num_slices
        return topologies.get_topology_desc(self.topology, "tpu", **options).devices


@dataclass(frozen=True)
class Answer:
    """The compiler's answer: the program's memory on each device, or the reason why it does not fit."""

    device_kind: str = ""
    lower_seconds: float = 0.0
    compile_seconds: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes on each device: arguments, outputs, temporaries, aliased (outputs that reuse arguments' memory), peak."""
    refused: str = ""
    """The compiler's message if the program does not fit."""
    needed_bytes: float = 0.0
    """Bytes on each device that a refused program needs; 0 if unknown."""


def lower_step(spec: RunSpec, devices: Sequence[Any]) -> jax.stages.Lowered:
    """The run's train step, lowered for these devices.

    Raises:
        ValueError: the mesh of `spec.hardware` has another number of devices.
    """
    mesh = run_mesh(spec, devices)
    batch_BL = spec.optim.global_batch, spec.data.seq_len
    tokens_BL = jax.ShapeDtypeStruct(batch_BL, jnp.int32, sharding=NamedSharding(mesh, BATCH_L))
    rate = learning_rate(spec.optim, spec.schedule)
    with jax.set_mesh(mesh):
        return compile_step(spec).lower(abstract_arrays(mesh, lambda: make_state(spec)), tokens_BL, rate)


def compile_job(job: Job) -> Answer:
    """The compiler's answer. A program that is too large for the devices is an answer and not an error.

    Raises:
        ValueError: the job's spec is malformed, or its mesh does not fit the devices.
    """
    spec, devices, start = from_json(job.spec), job.devices(), time.perf_counter()
    lowered = lower_step(spec, devices)
    between = time.perf_counter()
    timed = {"device_kind": devices[0].device_kind, "lower_seconds": round(between - start, 3)}
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if TOO_LARGE not in str(error):
            raise
        seconds = round(time.perf_counter() - between, 3)
        line = next(line for line in str(error).splitlines() if TOO_LARGE in line)
        return Answer(compile_seconds=seconds, refused=line, needed_bytes=needed_bytes(line), **timed)
    seconds = round(time.perf_counter() - between, 3)
    if job.hlo:
        Path(job.hlo).write_text(compiled.as_text() or "")
    return Answer(compile_seconds=seconds, memory=_memory(compiled), **timed)


def needed_bytes(refusal: str) -> float:
    """Bytes that a refused program needs (`Used 30.98G of 15.75G hbm`, `(192.50G) exceeds available HBM`), or 0."""
    amount = re.search(r"Used ([\d.]+)([KMGT]?) of|\(([\d.]+)([KMGT]?)\) exceeds", refusal)
    return float(amount[1] or amount[3]) * UNITS[amount[2] or amount[4] or ""] if amount else 0.0


def _memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    stats = compiled.memory_analysis()
    assert stats is not None, "every backend that we compile for reports its memory"
    names = {"arguments": "argument", "outputs": "output", "temporaries": "temp", "aliased": "alias"}
    memory = {name: int(getattr(stats, f"{xla}_size_in_bytes")) for name, xla in names.items()}
    return memory | {"peak": int(getattr(stats, "peak_memory_in_bytes", 0))}


if __name__ == "__main__":
    answer = compile_job(build(Job, json.load(sys.stdin)))
    print(json.dumps(to_dict(answer)))
