"""A signal is answered in every phase: at once where nothing is lost, and otherwise after what was done is saved."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from running import ROOT, Workshop, checkpoints, ended, killed_at, result, wait_until

from mdm_jax.evaluate.partial_losses import PARTIAL_FILE, PartialLosses
from mdm_jax.files.results import Status
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Family, RunSpec


def drawing_long(spec: RunSpec) -> RunSpec:
    """The run with an evaluation of some seconds; it is another run, since a run's loss depends on its draws."""
    return dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, mc_samples=1200))


def start_evaluation(shop: Workshop, spec: RunSpec, runs: Path) -> subprocess.Popen:
    """The process, which has just begun to evaluate."""
    process = shop.start(spec, runs, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("evaluation "):
            return process
    raise AssertionError(f"ended with {process.wait()}")


def test_a_stopped_evaluation_goes_on_to_the_same_bits(shop, tmp_path) -> None:
    spec = drawing_long(shop.spec(Family.MDM))
    whole = shop.undisturbed(spec)
    killed_at(whole, tmp_path, spec, spec.schedule.steps)
    process = start_evaluation(shop, spec, tmp_path)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    stopped = ended(process)
    assert stopped.code == 143, stopped.said
    assert "of the evaluation, which is saved" in stopped.errors[0]
    assert result(tmp_path, spec).status is Status.RUNNING
    kept = (tmp_path / spec.run_id / PARTIAL_FILE).read_bytes()
    assert len(kept.partition(b"\n")[2]) >= 4 * spec.evaluation.batch
    last = shop.run(spec, tmp_path)
    assert last.code == 0, last.said
    assert "evaluation resumed at batch " in last.said
    assert not (tmp_path / spec.run_id / PARTIAL_FILE).exists()
    one, other = result(tmp_path, spec), result(whole, spec)
    assert (one.loss, one.loss_se_mc, one.loss_se_data) == (other.loss, other.loss_se_mc, other.loss_se_data)


def test_losses_that_are_damaged_or_of_something_else_are_not_taken_over(tmp_path) -> None:
    path, losses = as_path(tmp_path / PARTIAL_FILE), np.arange(8, dtype=np.float32)
    kept = PartialLosses(path, "these weights", batch=4)
    assert len(kept.read()) == 0
    kept.write(losses)
    np.testing.assert_array_equal(kept.read(), losses)
    assert len(PartialLosses(path, "other weights", batch=4).read()) == 0
    assert len(PartialLosses(path, "these weights", batch=3).read()) == 0
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert len(kept.read()) == 0, f"byte {at} is changed"
        path.write_bytes(whole[:at])
        assert len(kept.read()) == 0, f"cut at byte {at}"
    path.write_bytes(b"[" * 100_000)
    assert len(kept.read()) == 0


def test_a_compilation_is_left_at_once(shop, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    nothing_cached = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    process = shop.start(spec, tmp_path, environment=nothing_cached)
    wait_until(lambda: result(tmp_path, spec).status is Status.RUNNING, process)
    process.send_signal(signal.SIGTERM)
    stopped = ended(process)
    assert stopped.code == 143
    assert stopped.errors == ["mdm_jax: asked to stop: the same command goes on from what was saved last"]
    folder = tmp_path / spec.run_id
    assert not (folder / "checkpoints").exists() or checkpoints(tmp_path, spec) == []
    assert result(tmp_path, spec).status is Status.RUNNING


def deaf(phase: str) -> subprocess.Popen:
    program = [sys.executable, str(ROOT / "tests/programs/deaf.py"), phase]
    process = subprocess.Popen(program, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def test_a_busy_main_thread_does_not_delay_the_end() -> None:
    """Four processes that wait at the same time."""
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130}
    asked = {(phase, n): deaf(phase) for phase in ("NOTHING_NEW", "EVALUATING") for n in codes}
    for (_, number), process in asked.items():
        process.send_signal(number)
    for (phase, number), process in asked.items():
        assert process.wait(timeout=60) == codes[number], (phase, number)


def test_in_training_the_main_thread_saves_first_and_a_second_interrupt_is_the_end() -> None:
    process = deaf("TRAINING")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.5)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 143
