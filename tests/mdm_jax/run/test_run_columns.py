"""What a run says of itself: the tokens and bytes that were evaluated, and its MFU where the peak is known."""

import dataclasses
import math
import resource
import sys
import time
from pathlib import Path

import pytest
from running import result

from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.store import open_split
from mdm_jax.devices.accelerators import DEVICES, peak_flops_per_second
from mdm_jax.files.results import Status, result_of, write_result
from mdm_jax.files.storage import as_path
from mdm_jax.run.execute import Record
from mdm_jax.run.progress import describe
from mdm_jax.run.record import _peak_memory_bytes
from mdm_jax.spec import Family, FlopConvention, HardwareSpec, RunSpec
from mdm_jax.spec.counting import step_flops
from mdm_jax.train.loop import Watch, _Clock
from mdm_jax.train.metrics import read_metrics

H100 = "NVIDIA H100 80GB HBM3"


def test_the_row_says_which_tokens_were_evaluated_and_their_bits_a_byte(shop) -> None:
    spec = shop.spec(Family.ARM)
    row = result(shop.undisturbed(spec), spec)
    assert spec.evaluation.eval_tokens == 500
    assert row.eval_tokens == 256  # one batch of 16 rows of 16; 500 tokens fill no second one
    tokens = open_split(spec.data.directory, "validation").tokens(0, 256)
    text = open_corpus(spec.data).tokenizer.decode(tokens)
    assert row.loss is not None
    assert row.bits_per_byte == pytest.approx(row.loss / math.log(2) * 256 / len(text.encode()), rel=1e-12)
    whole_split = row.loss / math.log(2) / read_manifest(spec.data.directory).validation.bytes_per_token
    assert row.bits_per_byte != pytest.approx(whole_split, rel=1e-3)
    assert row.mfu is None  # a CPU has no published peak


def test_peaks_are_found_by_the_names_that_jax_gives() -> None:
    names = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}
    names |= {H100: "h100", "NVIDIA H200": "h200"}
    for name, kind in names.items():
        assert peak_flops_per_second(name) == DEVICES[kind].flops_per_second
    for other in ("cpu", "", "TPU v4 lite", "NVIDIA H100 PCIe", "NVIDIA H200 NVL", "NVIDIA A100-SXM4-80GB"):
        assert peak_flops_per_second(other) is None


def test_metrics_have_the_speed_of_the_steps_and_the_time_without_a_batch(shop) -> None:
    spec = shop.spec(Family.ARM)
    rows = read_metrics(as_path(shop.undisturbed(spec) / spec.run_id / "metrics"))
    flops_per_token = step_flops(spec, FlopConvention.EXACT) / (spec.optim.global_batch * spec.data.seq_len)
    for row in rows[1:]:
        assert row["flops_per_second"] == pytest.approx(row["tokens_per_second"] * flops_per_token, rel=1e-3)
        assert 0 <= row["seconds_waited"] <= row["seconds"]
        assert "mfu" not in row  # a CPU has no published peak


def test_the_mfu_of_a_row_is_a_share_of_the_peak_of_all_devices() -> None:
    spec = dataclasses.replace(RunSpec(), hardware=HardwareSpec(mesh_data=4, mesh_model=2))
    clock = _Clock(spec, 0, H100)
    time.sleep(0.01)
    row = clock.columns(11)
    assert row["mfu"] == pytest.approx(row["flops_per_second"] / (8 * DEVICES["h100"].flops_per_second), abs=1e-6)
    known = {"loss": 1.0, "lr": 1.0, "tokens_per_second": 5.0}
    assert describe({**known, "mfu": 0.414}).endswith("  5 tokens/s  MFU 41%")
    assert describe(known).endswith("  5 tokens/s")


def test_the_peak_memory_is_bytes_on_macos_too(monkeypatch) -> None:
    """Linux reports the peak of a process in KiB, and macOS in bytes."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _peak_memory_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attempt(folder: Path, seconds: float, steps: int) -> Record:
    """A run's record after so many seconds in so many steps on one H100."""
    record = Record(RunSpec(), as_path(folder))
    record.add_columns(device=H100)
    record.add_cost(Watch(seconds_in_steps=seconds, steps_timed=steps))
    return record


def test_costs_are_of_all_attempts(tmp_path) -> None:
    a_step = step_flops(RunSpec(), FlopConvention.EXACT) / DEVICES["h100"].flops_per_second
    first = attempt(tmp_path / "alone", 40_000 * a_step, 10_000).write(Status.RUNNING)
    assert first.mfu == pytest.approx(0.25, rel=1e-4)
    cost = {"wall_seconds": 100.0, "goodput": 0.25, "mfu": 0.5}
    write_result(tmp_path / "result.json", result_of(RunSpec(), Status.RUNNING, **cost))
    killed = Record(RunSpec(), as_path(tmp_path)).write(Status.RUNNING)  # before it has saved a checkpoint
    assert (killed.goodput, killed.mfu) == (pytest.approx(0.25, rel=0.02), 0.5)
    resumed = attempt(tmp_path, 75.0, round(0.3 * 25 / a_step)).write(Status.OK)
    assert resumed.attempts == 3
    assert 100 < (resumed.wall_seconds or 0) < 110
    assert resumed.goodput == pytest.approx(1, rel=0.1)
    assert resumed.mfu == pytest.approx((0.5 * 25 + 0.3 * 25) / 100, rel=1e-3)
