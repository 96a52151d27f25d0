"""Compiles a run's real train step in a separate process, for a TPU slice or for CPU devices of this host.

The process is `mdm_jax.train.ahead`. It sees no accelerator (`JAX_PLATFORMS=cpu`): the TPU compiler of `libtpu` needs
none, and an accelerator of this machine stays free.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from isoflop.preflight.collectives import by_kind, read_collectives
from isoflop.preflight.topology import Topology
from mdm_jax.command import describe_exit
from mdm_jax.spec import Remat, RunSpec, ScheduleSpec, to_json
from mdm_jax.spec.programs import step_program

NO_TPU_QUERIES = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""Turns off libtpu's look-up of this machine's slice, and its lock, which guards an accelerator that is not used."""
MOST_REASON_LETTERS = 400


@dataclass(frozen=True)
class Setting:
    """Settings that may change to make a run fit. The result stays the same up to the order of float sums."""

    remat: Remat
    microbatches: int
    remat_layers: int = 0
    remat_rest: Remat = Remat.NONE

    @classmethod
    def planned(cls, run: RunSpec) -> "Setting":
        """The run's own setting."""
        hardware = run.hardware
        return cls(hardware.remat, hardware.microbatches, hardware.remat_layers, hardware.remat_rest)

    def of(self, run: RunSpec) -> RunSpec:
        """The run with this setting.

        Raises:
            ValueError: the microbatches do not divide its batch.
        """
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(run, hardware=dataclasses.replace(run.hardware, **own))

    def __str__(self) -> str:
        mix = f" hardware.remat_layers={self.remat_layers} hardware.remat_rest={self.remat_rest.value}"
        remat = f"hardware.remat={self.remat.value}{mix if self.remat_layers else ''}"
        return f"{remat} hardware.microbatches={self.microbatches}"


@dataclass(frozen=True)
class Compiled:
    """The compiler's answer for one setting."""

    setting: Setting
    device_kind: str = ""
    compile_seconds: float = 0.0
    hbm_bytes: float = 0.0
    """Arguments + temporaries + outputs - aliased of one device; if the compiler refused, what it asked for."""
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    """The parts of that figure, and `peak`, as `memory_analysis()` gives them."""
    collectives: dict[str, dict[str, float | int]] = dataclasses.field(default_factory=dict)
    """Maps each kind to `times`, its executions in one step, and `sent_bytes` of one device in one step."""
    refused: str = ""
    """The compiler's message if the program does not fit."""
    failed: str = ""
    """Why there is no answer: the compiler crashed, or took too long."""

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends in one step."""
        return sum((float(kind["sent_bytes"]) for kind in self.collectives.values()), 0.0)

    def fits(self, limit_bytes: float) -> bool:
        """Whether it compiled and needs no more than the limit."""
        return not self.refused and not self.failed and self.hbm_bytes <= limit_bytes


def program_of(run: RunSpec) -> RunSpec:
    """The run with fixed values for all that does not change its compiled step. The kind of the schedule changes it."""
    return dataclasses.replace(step_program(run), schedule=ScheduleSpec(kind=run.schedule.kind))


def compile_run(run: RunSpec, topology: Topology | None, time_limit: float) -> Compiled:
    """The compiler's answer for the run's step.

    Args:
        topology: None compiles for as many CPU devices of this host as the run's mesh has.
        time_limit: seconds after which the compiler is stopped.
    """
    setting = Setting.planned(run)
    devices = run.hardware.devices
    with tempfile.TemporaryDirectory(prefix="preflight-") as scratch:
        hlo = Path(scratch, "step.hlo")
        job = {"spec": to_json(run), "hlo": str(hlo)}
        if topology is not None:
            job |= {"topology": topology.slice_name, **topology.compiler_options}
        environment = {**os.environ, **NO_TPU_QUERIES, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mdm_jax.train.ahead"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=time_limit,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return Compiled(setting, failed=f"the compiler was stopped after {time_limit:g} s (--time-limit)")
        if done.returncode:
            return Compiled(setting, failed=f"the compiler ended with {_reason(done)}")
        answer = json.loads(done.stdout.splitlines()[-1])
        text = hlo.read_text() if hlo.is_file() else ""
    return _compiled(setting, answer, text, devices)


def _compiled(setting: Setting, answer: dict, hlo: str, devices: int) -> Compiled:
    memory = answer["memory"]
    needed = answer["needed_bytes"]
    if memory:
        needed = float(memory["arguments"] + memory["temporaries"] + memory["outputs"] - memory["aliased"])
    return Compiled(
        setting=setting,
        device_kind=answer["device_kind"],
        compile_seconds=answer["lower_seconds"] + answer["compile_seconds"],
        hbm_bytes=needed,
        memory=memory,
        collectives=by_kind(read_collectives(hlo, devices)),
        refused=answer["refused"],
    )


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"{describe_exit(done.returncode)}: {words[-1][:MOST_REASON_LETTERS] if words else 'no output'}"
