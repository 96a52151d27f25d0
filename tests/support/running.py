"""Runs as processes of their own: a small corpus, specs that take seconds, and what a run leaves behind."""

import dataclasses
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_corpus import prepared

from mdm_jax.files.results import RunResult, read_result
from mdm_jax.files.storage import as_path
from mdm_jax.spec import (
    DataSpec,
    EvaluationSpec,
    Family,
    HardwareSpec,
    ModelSpec,
    OptimSpec,
    RunSpec,
    ScheduleSpec,
    pair,
    to_json,
)
from mdm_jax.train.metrics import read_metrics
from mdm_jax.train.seal import SEAL_FILE

ROOT = Path(__file__).resolve().parents[2]
TIMING = ("seconds", "tokens_per_second", "flops_per_second", "seconds_waited")
SECONDS = 240
"""A process that takes longer is taken to hang; on one idle core it needs four."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    said: str

    @property
    def errors(self) -> list[str]:
        """The lines on standard error that are neither progress nor a library's warning."""
        return [line for line in self.said.splitlines() if line.startswith("mdm_jax: ")]


@dataclass(frozen=True)
class Workshop:
    """A prepared corpus, a compilation cache that the processes share, and a folder for each test's runs."""

    root: Path
    data: DataSpec
    cache: Path
    quick_to_compile: bool

    def spec(self, family: Family, steps: int = 12, **hardware: Any) -> RunSpec:
        """A run of a few seconds; the MDM keeps an average of its weights, so that both kinds of state are covered."""
        mdm = family is Family.MDM
        settings: dict[str, Any] = {"log_every": 1, "checkpoint_every": 2} | hardware
        return pair(
            RunSpec(
                model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_ffn=32),
                data=self.data,
                optim=OptimSpec(lr_peak=0.01, global_batch=4, ema_decay=0.9 if mdm else 0.0),
                schedule=ScheduleSpec(steps=steps, warmup_steps=4),
                evaluation=EvaluationSpec(eval_tokens=500, mc_samples=2, batch=16),  # 256 of them fill a batch
                hardware=HardwareSpec(**settings),
            ),
            family,
        )

    def start(
        self,
        spec: RunSpec,
        runs: Path,
        *flags: str,
        program: Sequence[str] = ("-m", "mdm_jax.main"),
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen:
        """The started process of the program; its outputs are pipes unless `options` say otherwise."""
        runs.mkdir(parents=True, exist_ok=True)
        plan = runs / "plan.jsonl"
        plan.write_text(to_json(spec) + "\n")
        command = [sys.executable, *program, "--plan", str(plan), "--run-id", spec.run_id]
        return subprocess.Popen(
            [*command, "--runs", str(runs), *flags],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": self.root} | options,
            env=self.environment(spec) | (environment or {}),
        )

    def environment(self, spec: RunSpec) -> dict[str, str]:
        devices = spec.hardware.devices
        mine = {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(self.quick_to_compile)),
        }
        if not self.quick_to_compile:
            mine["XLA_FLAGS"] = ""
        return {**os.environ, **mine}

    def run(self, spec: RunSpec, runs: Path, *flags: str, **options: Any) -> Ended:
        """The run to its end."""
        return ended(self.start(spec, runs, *flags, **options))

    def undisturbed(self, spec: RunSpec) -> Path:
        """The runs' folder of the run, done once in a session and interrupted by nobody.

        It holds this run alone: another test's run would replace its plan before the process reads it.
        """
        runs = self.root / f"undisturbed-{spec.run_id}-{spec.hardware.mesh}-{spec.hardware.checkpoint_every}"
        with locked(self.root / f"{runs.name}.lock"):
            if not (runs / spec.run_id).exists():
                end = self.run(spec, runs)
                assert end.code == 0, end.said
        return runs


def on_failing_disk(path: Path) -> dict[str, str]:
    """The environment of processes in which the first call about something below the path fails."""
    support = ROOT / "tests/support"
    return {"PYTHONPATH": f"{ROOT}:{support}:{support / 'on_failing_disk'}", "FAILING": str(path)}


def free_address() -> str:
    """An address at which a coordinator can listen: its port was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start_two(
    shop: Workshop, spec: RunSpec, runs: Path, each: Sequence[dict[str, Any]] = ({}, {}), **options: Any
) -> list[subprocess.Popen]:
    """Two processes with one device each; `each` holds the options of one alone."""
    flags = ["--coordinator", free_address(), "--processes", "2", "--process-index"]
    one_device = {"JAX_NUM_CPU_DEVICES": "1"} | options.pop("environment", {})
    return [shop.start(spec, runs, *flags, str(i), environment=one_device, **options, **each[i]) for i in range(2)]


def workshop(factory: pytest.TempPathFactory, as_for_users: bool = False) -> Workshop:
    """The session's workshop, which its test files and its test processes share.

    Args:
        factory: of temporary folders.
        as_for_users: programs are optimised as they are for users; otherwise they are compiled quickly.
    """
    session = factory.getbasetemp()
    root = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / f"workshop-{as_for_users:d}"
    root.mkdir(exist_ok=True)
    with locked(root / "data.lock"):
        return Workshop(root, prepared(root), root / "compiled", not as_for_users)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ended(process: subprocess.Popen) -> Ended:
    """The process's end, waited for; it is killed if it hangs."""
    try:
        out, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, out or "", said or "")


def result(runs: Path, spec: RunSpec) -> RunResult:
    return read_result(runs / spec.run_id / "result.json")


def checkpoints(runs: Path, spec: RunSpec) -> list[int]:
    """The sealed steps."""
    folder = runs / spec.run_id / "checkpoints"
    named = (entry for entry in folder.iterdir() if entry.name.isdecimal())
    return sorted(int(entry.name) for entry in named if (entry / SEAL_FILE).is_file())


def killed_at(whole: Path, runs: Path, spec: RunSpec, step: int) -> Path:
    """A copy of the whole run as it was just after the checkpoint at `step`; returns the checkpoints' folder."""
    folder = runs / spec.run_id
    shutil.copytree(whole / spec.run_id, folder)
    (folder / "result.json").unlink()
    for part in (folder / "metrics").iterdir():
        if int(part.stem) >= step:
            part.unlink()
    for saved in checkpoints(runs, spec):
        if saved > step:
            shutil.rmtree(folder / "checkpoints" / str(saved))
    assert checkpoints(runs, spec)[-1] == step
    return folder / "checkpoints"


def leaves(runs: Path, spec: RunSpec) -> dict[str, np.ndarray]:
    """Every array of the last step's checkpoint, by name."""
    folder = runs / spec.run_id / "checkpoints" / str(spec.schedule.steps) / "default"
    reader = ocp.PyTreeCheckpointer()
    metadata = reader.metadata(folder).item_metadata
    assert metadata is not None
    names = dict(metadata.tree)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
    return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def rows(runs: Path, spec: RunSpec) -> list[dict[str, float | int]]:
    """The metrics without what depends on the clock."""
    read = read_metrics(as_path(runs / spec.run_id / "metrics"))
    return [{name: value for name, value in row.items() if name not in TIMING} for row in read]


def outcome(runs: Path, spec: RunSpec) -> dict[str, Any]:
    """Everything that must be the same however often the run was interrupted."""
    arrays = {name: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in leaves(runs, spec).items()}
    row = dataclasses.asdict(result(runs, spec))
    for name in ("attempts", "git_sha", "goodput", "peak_memory_bytes", "wall_seconds"):
        row.pop(name)
    return {"arrays": arrays, "rows": rows(runs, spec), "result": row}


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two outcomes are the same bit for bit; what differs is named, without printing arrays."""
    assert first["result"] == second["result"]
    assert first["rows"] == second["rows"]
    assert first["arrays"].keys() == second["arrays"].keys()
    assert not [name for name in first["arrays"] if first["arrays"][name] != second["arrays"][name]]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, every: float = 0.02) -> None:
    """Returns when it has happened, which is looked for every so many seconds; the process is still at work then."""
    deadline = time.monotonic() + SECONDS

    def now() -> bool:
        try:
            return happened()
        except FileNotFoundError:
            return False  # renamed or deleted in this moment

    while not now():
        assert process.poll() is None, f"ended with {process.returncode} before it could be interrupted"
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(every)
