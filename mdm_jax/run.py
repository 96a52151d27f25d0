"""One run from its spec to its result: checks before anything compiles, training, the final evaluation, `result.json`.

A run's folder holds `spec.json`, `metrics/`, `checkpoints/` and `result.json`. The result is there from the first
second, with status `running`, and says at the end how the run went, whatever happened.

A run with a parent begins from the parent's last checkpoint, which lies in the folder beside its own; its metrics begin
there too. Once it has a checkpoint of its own, it needs the parent no more.
"""

import importlib.metadata
import math
import pathlib
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from mdm_jax.checkpoint import Checkpoints, read_step, steps_in
from mdm_jax.data.pipeline import TrainingRows, evaluation_rows, open_manifest, training_rows, unique_tokens
from mdm_jax.evaluate.nelbo import Evaluation, evaluate, usable_rows
from mdm_jax.lineage import read_parent
from mdm_jax.manifest import Manifest
from mdm_jax.metrics import MetricsWriter
from mdm_jax.results import RunResult, Status, read_result, result_of, write_result
from mdm_jax.sharding import make_mesh
from mdm_jax.spec import RunSpec, to_json
from mdm_jax.storage import Path, write_atomic
from mdm_jax.train.loop import Diverged, Watch, train
from mdm_jax.train.state import TrainState, init_state
from mdm_jax.tree import require

REPORTED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Record:
    """The run's row while it grows, and the only writer of `result.json`."""

    def __init__(self, spec: RunSpec, folder: Path):
        self._spec, self._folder, self._started = spec, folder, time.monotonic()
        self._known: dict[str, Any] = {"versions": _versions(), "git_sha": _git_sha()}
        before = self._before()
        self._known["attempts"] = 1 + (before.attempts if before else 0)
        self.data_hash_before = before.data_hash if before else ""
        self._known["data_hash"] = self.data_hash_before

    def _before(self) -> RunResult | None:
        try:
            return read_result(self._folder / "result.json")
        except (OSError, ValueError):
            return None

    @property
    def seconds(self) -> float:
        """Since this attempt began."""
        return time.monotonic() - self._started

    def learn(self, **columns: Any) -> None:
        """Adds columns of the run table."""
        self._known |= columns

    def write(self, status: Status, reason: str = "") -> RunResult:
        """Writes the row as known by now (on the first process alone).

        Raises:
            OSError: the disk is full.
        """
        row = result_of(self._spec, status, excluded_reason=reason, wall_seconds=round(self.seconds, 3), **self._known)
        if jax.process_index() == 0:
            with _naming(self._folder / "result.json"):
                write_result(self._folder / "result.json", row)
        return row


def execute(spec: RunSpec, folder: Path, record: Record, watch: Watch) -> RunResult:
    """Trains and evaluates the run in `folder`, from its newest whole checkpoint, or else from its parent's last.

    Raises:
        ValueError: data, vocabulary, mesh, evaluation or parent do not fit the spec; nothing has been compiled by then,
            unless it is the parent's checkpoint that is damaged.
        ParentNotReady: the parent is not trained to its end yet.
        Diverged, Preempted: see `train`; `result.json` says so.
        OSError: the disk is full or not readable; what was saved before remains.
    """
    manifest = open_manifest(spec.data)
    _check_same_data(record.data_hash_before, manifest)
    eval_SL = evaluation_rows(spec.data, spec.evaluation.eval_tokens)
    usable_rows(spec, len(eval_SL))
    rows = training_rows(spec.data, spec.optim.global_batch, spec.seed)
    if spec.cell.parent_run_id and not steps_in(folder / "checkpoints"):
        read_parent(spec, folder, manifest.data_hash)
    mesh = make_mesh(spec.hardware.mesh_data, spec.hardware.mesh_model)
    record.learn(**_where(spec), **_what(spec, manifest))
    if jax.process_index() == 0:
        with _naming(folder / "spec.json"):
            write_atomic(folder / "spec.json", to_json(spec) + "\n")
    record.write(Status.RUNNING)
    with jax.set_mesh(mesh):
        try:
            state = _train(spec, folder, manifest.data_hash, mesh, rows, watch)
        except Diverged as error:
            record.write(Status.DIVERGED, str(error))
            raise
        measured = evaluate(state.evaluated, spec, eval_SL, mesh)
    record.learn(**_loss_columns(measured, manifest), **_cost_columns(watch, record))
    if not math.isfinite(measured.loss):
        record.learn(loss=None, loss_se_mc=None, loss_se_data=None, bits_per_byte=None)
        record.write(Status.DIVERGED, "diverged: final loss not finite")
        raise Diverged(spec.schedule.steps)
    return record.write(Status.OK)


def _train(
    spec: RunSpec, folder: Path, data_hash: str, mesh: jax.sharding.Mesh, rows: TrainingRows, watch: Watch
) -> TrainState:
    checkpoints = Checkpoints(folder / "checkpoints")
    state, step = _begin(spec, folder, checkpoints, data_hash, watch)
    metrics = MetricsWriter(folder / "metrics", step) if jax.process_index() == 0 else None
    try:
        return train(state, spec, mesh, rows, checkpoints, metrics, watch)
    finally:
        if metrics is not None:
            metrics.close()
        checkpoints.close()


def _begin(
    spec: RunSpec, folder: Path, checkpoints: Checkpoints, data_hash: str, watch: Watch
) -> tuple[TrainState, int]:
    """The state to go on from and its step: the newest whole one of the run, its parent's last, or a fresh one."""
    fresh = init_state(spec)
    restored, step, passed = checkpoints.restore(fresh)
    for line in passed:
        watch.say(line)
    if restored is not None:
        watch.say(f"resumed at step {step}")
        return restored, step
    if not spec.cell.parent_run_id:
        return fresh, 0
    parent = read_parent(spec, folder, data_hash)
    step = parent.schedule.steps
    state = read_step(folder.parent / parent.run_id / "checkpoints", step, fresh)
    watch.say(f"begun at step {step} of {parent.run_id}")
    return state, step


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says which file an error of the disk kept from being written; the system does not."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} not written: {error.strerror}") from error


def _check_same_data(before: str, manifest: Manifest) -> None:
    same = before in ("", manifest.data_hash)
    bound = f"{before}, with which this run was begun: restore that data or remove the run's folder"
    require(same, "data_hash", manifest.data_hash, bound)


def _what(spec: RunSpec, manifest: Manifest) -> dict[str, Any]:
    unique = float(unique_tokens(spec.data))
    hashes = {"data_hash": manifest.data_hash, "tokenizer_hash": manifest.tokenizer_hash}
    return {**hashes, "unique_tokens": unique, "epochs": spec.train_tokens / unique}


def _where(spec: RunSpec) -> dict[str, str]:
    devices, hw = jax.devices(), spec.hardware
    mesh = f"{hw.mesh_data}x{hw.mesh_model}"
    return {
        "device": devices[0].device_kind,
        "topology": f"{mesh} {devices[0].platform}, {jax.process_count()} processes",
    }


def _loss_columns(measured: Evaluation, manifest: Manifest) -> dict[str, float]:
    bits = measured.loss / math.log(2) / manifest.validation.bytes_per_token
    losses = {"loss": measured.loss, "loss_se_mc": measured.se_mc, "loss_se_data": measured.se_data}
    return {**losses, "bits_per_byte": bits}


def _cost_columns(watch: Watch, record: Record) -> dict[str, float]:
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"goodput": round(watch.seconds_in_steps / record.seconds, 4), "peak_memory_bytes": float(peak)}


def _versions() -> str:
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in REPORTED_PACKAGES)


def _git_sha() -> str:
    """The commit of the checkout that the program runs from; empty for an installed package."""
    here = pathlib.Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
