"""A full disk ends a run with exit code 42 and one line, leaves what was saved, and the run goes on when there is room.

The disk is a real one where the test may mount it (a tmpfs of some kB), and everywhere a limit on the size of the
files that the process may write, which the system reports in the same way.
"""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from limited import NO_BYTECODE
from running import (
    Ended,
    Workshop,
    assert_same,
    checkpoints,
    ended,
    killed_at,
    outcome,
    result,
    rows,
    wait_until,
)

from mdm_jax.files.lock import RUN_LOCK
from mdm_jax.files.results import Status
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Family, RunSpec
from mdm_jax.train.seal import Identity, step_fault

ARM = Family.ARM


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 280 kB: one checkpoint and its metrics fit, two do not."""
    mount(tmp_path / "disk", "size=280k", "none", "-t", "tmpfs")
    yield tmp_path / "disk"
    subprocess.run(["umount", "--lazy", tmp_path / "disk"], check=True)


def mount(at: Path, options: str, *what: str) -> None:
    at.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", *what, "-o", options, at], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk is not permitted here: {error}")


def run_limited(shop: Workshop, spec: RunSpec, runs: Path, largest_file: int) -> Ended:
    """The run's end, where none of its files may become larger than so many bytes."""
    process = shop.start(spec, runs, environment=NO_BYTECODE)
    if not hasattr(resource, "prlimit"):
        process.kill()
        pytest.skip("this system cannot limit another process")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest_file, largest_file))  # long before it can write
    return ended(process)


def test_a_full_disk_at_a_checkpoint(shop, whole, disk) -> None:
    spec = shop.spec(ARM)
    full = shop.run(spec, disk)
    folder = disk / spec.run_id / "checkpoints"
    assert full.code == 42
    assert full.errors == [f"mdm_jax: checkpoint {folder / '4'} not written: No space left on device"]
    assert "Traceback" not in full.said
    assert checkpoints(disk, spec) == [2]
    assert step_fault(as_path(folder / "2"), 2, Identity(spec.spec_hash, result(disk, spec).data_hash)) == ""
    assert result(disk, spec).status is Status.RUNNING
    mount(disk, "remount,size=8m")
    assert "resumed at step 2" in shop.run(spec, disk).said
    assert_same(outcome(disk, spec), outcome(whole, spec))


def test_a_full_disk_at_the_result_and_at_the_log(shop, whole, disk) -> None:
    spec = shop.spec(ARM)
    mount(disk, "remount,size=8m")
    killed_at(whole, disk, spec, 12)
    process = shop.start(spec, disk)
    wait_until((disk / spec.run_id / "result.json").exists, process)  # the run has begun, and evaluates next
    filler = disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
        file.write(bytes(9 << 20))
    full = ended(process)
    assert full.code == 42
    assert full.errors == [f"mdm_jax: {disk / spec.run_id / 'result.json'} not written: No space left on device"]
    assert result(disk, spec).status is Status.RUNNING
    with (disk / "log.txt").open("w") as log:  # takes not a byte
        assert shop.run(spec, disk, stderr=log, stdout=log).code == 42
    assert (disk / "log.txt").read_text() == ""
    filler.unlink()
    assert shop.run(spec, disk).code == 0
    assert_same(outcome(disk, spec), outcome(whole, spec))


@pytest.mark.slow
def test_a_file_size_limit_at_a_checkpoint(shop, whole, tmp_path) -> None:
    spec = shop.spec(ARM)
    folder = killed_at(whole, tmp_path, spec, 10)
    full = run_limited(shop, spec, tmp_path, 20_000)
    assert full.code == 42
    assert full.errors == [f"mdm_jax: checkpoint {folder / '12'} not written: File too large"]
    assert "Traceback" not in full.said
    assert checkpoints(tmp_path, spec) == [10]
    assert step_fault(as_path(folder / "10"), 10, Identity(spec.spec_hash, result(tmp_path, spec).data_hash)) == ""
    assert result(tmp_path, spec).status is Status.RUNNING
    assert "resumed at step 10" in shop.run(spec, tmp_path).said
    assert_same(outcome(tmp_path, spec), outcome(whole, spec))


def test_a_file_size_limit_at_the_metrics(shop, tmp_path) -> None:
    spec = shop.spec(ARM, steps=60, checkpoint_every=60)  # 60 rows take 8 kB, the files written before them 2 kB each
    full = run_limited(shop, spec, tmp_path, 4_000)
    metrics = tmp_path / spec.run_id / "metrics" / "0000000000.jsonl"
    assert full.code == 42
    assert full.errors == [f"mdm_jax: metrics {metrics} not written: File too large"]
    assert 4_000 - 200 < metrics.stat().st_size <= 4_000
    steps = [row["step"] for row in rows(tmp_path, spec)]
    assert steps == list(range(1, len(steps) + 1))  # a last line that was cut off is not read
    assert "File too large" in result(tmp_path, spec).excluded_reason


def test_a_file_size_limit_at_the_first_file(shop, tmp_path) -> None:
    spec = shop.spec(ARM)
    full = run_limited(shop, spec, tmp_path, 100)
    assert full.code == 42
    assert full.errors == [f"mdm_jax: {tmp_path / spec.run_id / 'spec.json'} not written: File too large"]
    assert [entry.name for entry in (tmp_path / spec.run_id).iterdir()] == [RUN_LOCK]
