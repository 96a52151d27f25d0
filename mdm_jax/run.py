"""One run from its spec to its result: checks before anything compiles, training, the final evaluation, `result.json`.

A run's folder holds `spec.json`, `metrics/`, `checkpoints/` and `result.json`. The result is there from the first
second, with status `running`, and says at the end how the run went, whatever happened.

A run with a parent begins from the parent's last checkpoint, which lies in the folder beside its own; its metrics begin
there too. Once it has a checkpoint of its own, it needs the parent no more.
"""

import functools
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
import numpy as np

from mdm_jax.accelerators import peak_flops_per_second
from mdm_jax.checkpoint import Checkpoints, read_step
from mdm_jax.counting import step_flops
from mdm_jax.data.pipeline import TrainingRows, evaluation_rows, open_manifest, training_rows, unique_tokens
from mdm_jax.data.tokenizer import load_tokenizer
from mdm_jax.evaluate.nelbo import Evaluation, evaluate, usable_rows
from mdm_jax.lineage import read_parent
from mdm_jax.manifest import Manifest
from mdm_jax.metrics import MetricsWriter
from mdm_jax.results import RunResult, Status, read_result, result_of, write_result
from mdm_jax.seal import Identity
from mdm_jax.second_try import confirmed
from mdm_jax.sharding import make_mesh
from mdm_jax.spec import FlopConvention, RunSpec, to_json
from mdm_jax.step_folders import steps_in
from mdm_jax.storage import Path, refuse_link, write_atomic
from mdm_jax.train.loop import Diverged, Watch, train
from mdm_jax.train.state import TrainState, init_state
from mdm_jax.tree import require

REPORTED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Record:
    """The run's row while it grows, and the only writer of `result.json`."""

    def __init__(self, spec: RunSpec, folder: Path):
        """Reads what earlier attempts have left.

        Raises:
            ValueError: the run's folder is a link, so that what is written there would lie elsewhere.
            OSError: an earlier result cannot be read now.
        """
        refuse_link(folder)
        self._spec, self._folder, self._started = spec, folder, time.monotonic()
        self._known: dict[str, Any] = {"versions": _versions(), "git_sha": _git_sha()}
        before = self._before()
        self._known["attempts"] = 1 + (before.attempts if before else 0)
        self.data_hash_before = before.data_hash if before else ""
        self._known["data_hash"] = self.data_hash_before
        self._seconds_before = (before.wall_seconds if before else None) or 0.0
        self._in_steps = self._in_steps_before = self._seconds_before * ((before.goodput if before else None) or 0.0)
        self._known["mfu"] = self._mfu_before = before.mfu if before else None

    def _before(self) -> RunResult | None:
        try:
            return read_result(self._folder / "result.json")
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    @property
    def attempts(self) -> int:
        """Attempts so far, with this one."""
        return self._known["attempts"]

    @property
    def seconds(self) -> float:
        """Wall time of all attempts; of one that was killed, the part until its last checkpoint."""
        return self._seconds_before + time.monotonic() - self._started

    def spent(self, watch: Watch) -> None:
        """Learns what the run has cost until its last checkpoint, over all attempts."""
        self._in_steps = self._in_steps_before + watch.seconds_in_steps
        self.learn(peak_memory_bytes=_peak_memory_bytes())
        peak = peak_flops_per_second(self._known["device"])
        if peak is not None and self._in_steps > 0:
            hardware = self._spec.hardware
            timed = watch.steps_timed * step_flops(self._spec, FlopConvention.EXACT)
            at_peak = timed / (peak * hardware.mesh_data * hardware.mesh_model)
            before = self._in_steps_before * (self._mfu_before or 0.0)
            self.learn(mfu=round((before + at_peak) / self._in_steps, 6))

    def learn(self, **columns: Any) -> None:
        """Adds columns of the run table."""
        self._known |= columns

    def write(self, status: Status, reason: str = "") -> RunResult:
        """Writes the row as known by now (on the first process alone).

        Raises:
            OSError: the disk is full.
        """
        seconds = self.seconds
        cost = {"wall_seconds": round(seconds, 3), "goodput": round(self._in_steps / seconds, 6)}
        row = result_of(self._spec, status, excluded_reason=reason, **cost, **self._known)
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
    eval_SL = eval_SL[: usable_rows(spec, len(eval_SL))]
    text_bytes = load_tokenizer(spec.data.directory, manifest).text_bytes(eval_SL.reshape(-1))
    rows = training_rows(spec.data, spec.optim.global_batch, spec.seed)
    if spec.cell.parent_run_id and not steps_in(folder / "checkpoints"):
        read_parent(spec, folder, manifest.data_hash)
    mesh = make_mesh(spec.hardware.mesh_data, spec.hardware.mesh_model)
    record.learn(**_where(spec), **_what(spec, manifest))
    if jax.process_index() == 0:
        with _naming(folder / "spec.json"):
            write_atomic(folder / "spec.json", to_json(spec) + "\n")
    record.write(Status.RUNNING)
    watch.saved = lambda: _note_cost(record, watch)
    attempt = functools.partial(_train_and_evaluate, spec, folder, manifest.data_hash, mesh, rows, eval_SL, watch)
    try:
        with jax.set_mesh(mesh):
            measured = confirmed(attempt, folder, record.attempts, watch.say)
    except Diverged as error:
        record.write(Status.DIVERGED, str(error))
        raise
    record.learn(**_loss_columns(measured, text_bytes))
    record.spent(watch)
    return record.write(Status.OK)


def _note_cost(record: Record, watch: Watch) -> None:
    """Keeps what was spent until a checkpoint, for the attempt after a kill."""
    record.spent(watch)
    record.write(Status.RUNNING)


def _train_and_evaluate(
    spec: RunSpec,
    folder: Path,
    data_hash: str,
    mesh: jax.sharding.Mesh,
    rows: TrainingRows,
    eval_SL: np.ndarray,
    watch: Watch,
) -> Evaluation:
    state = _train(spec, folder, data_hash, mesh, rows, watch)
    measured = evaluate(state.evaluated, spec, eval_SL, mesh)
    if not math.isfinite(measured.loss):
        raise Diverged(spec.schedule.steps, "final loss")
    return measured


def _train(
    spec: RunSpec, folder: Path, data_hash: str, mesh: jax.sharding.Mesh, rows: TrainingRows, watch: Watch
) -> TrainState:
    checkpoints = Checkpoints(folder / "checkpoints", Identity(spec.spec_hash, data_hash))
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
        _check_step(restored, step, folder)
        watch.say(f"resumed at step {step}")
        return restored, step
    if not spec.cell.parent_run_id:
        return fresh, 0
    parent = read_parent(spec, folder, data_hash)
    step = parent.schedule.steps
    home = folder.parent / parent.run_id
    state = read_step(home / "checkpoints", step, fresh, Identity(parent.spec_hash, data_hash))
    _check_step(state, step, home)
    watch.say(f"begun at step {step} of {parent.run_id}")
    return state, step


def _check_step(state: TrainState, step: int, folder: Path) -> None:
    """Returns if the state is that of the step after which its folder is named; a seal of format 1 does not say."""
    name, held = f"{folder / 'checkpoints' / str(step)}: the state's step", int(state.step)
    require(held == step, name, held, f"{step}: give the folder its name back, or remove it")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says which file an error of the disk kept from being written; the system does not."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} not written: {error.strerror or error}") from error


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


def _loss_columns(measured: Evaluation, text_bytes: int) -> dict[str, float | None]:
    bits = measured.loss * measured.tokens / math.log(2) / text_bytes if text_bytes else None
    losses = {"loss": measured.loss, "loss_se_mc": measured.se_mc, "loss_se_data": measured.se_data}
    return {**losses, "bits_per_byte": bits}


def _peak_memory_bytes() -> float:
    stats = jax.local_devices()[0].memory_stats() or {}
    return float(stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


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
