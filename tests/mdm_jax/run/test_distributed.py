"""Two `jax.distributed` processes on CPU train to the loss of one and hand their checkpoints on."""

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
from running import (
    Ended,
    Workshop,
    assert_same,
    checkpoints,
    ended,
    killed_at,
    leaves,
    on_failing_disk,
    outcome,
    result,
    rows,
    start_two,
    wait_until,
)

from mdm_jax.files.results import Status
from mdm_jax.spec import Family, RunSpec

TOLERANCE = 1e-5


def spec_of(shop: Workshop, family: Family, steps: int = 12, **hardware: int) -> RunSpec:
    return shop.spec(family, steps, mesh_data=2, **hardware)


def run_two(shop: Workshop, spec: RunSpec, runs: Path, **options) -> list[Ended]:
    return [ended(process) for process in start_two(shop, spec, runs, **options)]


def assert_close(first: Path, second: Path, spec: RunSpec) -> None:
    """Same steps, losses, gradients, weights and result, up to the order of float sums."""
    for one, two in zip(rows(first, spec), rows(second, spec), strict=True):
        assert one == pytest.approx(two, rel=TOLERANCE)
    here, there = leaves(first, spec), leaves(second, spec)
    assert here.keys() == there.keys()
    for name, leaf in here.items():
        scale = np.abs(leaf).max()
        np.testing.assert_allclose(there[name], leaf, rtol=0, atol=TOLERANCE * scale, err_msg=name)
    assert result(first, spec).loss == pytest.approx(result(second, spec).loss, rel=TOLERANCE)
    assert result(first, spec).loss_se_mc == pytest.approx(result(second, spec).loss_se_mc, rel=1e-3)


@pytest.mark.parametrize(("data", "model"), [(1, 2), pytest.param(2, 1, marks=pytest.mark.slow)], ids=["model", "data"])
def test_two_processes_train_as_one_does(shop, tmp_path, data, model) -> None:
    """Also where the model axis spans both: each then holds all rows of the batch, and half of the weights."""
    spec = shop.spec(Family.ARM, mesh_data=data, mesh_model=model)
    ends = run_two(shop, spec, tmp_path)
    assert [end.code for end in ends] == [0, 0], [end.said for end in ends]
    assert result(tmp_path, spec).topology == f"{data}x{model} cpu, 2 processes"
    assert_close(shop.undisturbed(spec), tmp_path, spec)


@pytest.mark.slow
def test_two_processes_take_over_from_one_stop_together_and_hand_back(shop, tmp_path) -> None:
    spec = spec_of(shop, Family.MDM, steps=24, checkpoint_every=8)
    one = shop.undisturbed(spec)
    killed_at(one, tmp_path, spec, 16)
    processes = start_two(shop, spec, tmp_path)
    wait_until(lambda: any(row["step"] >= 17 for row in rows(tmp_path, spec)), processes[0])
    processes[1].send_signal(signal.SIGTERM)  # one is asked, both stop at the same step
    ends = [ended(process) for process in processes]
    assert [end.code for end in ends] == [143, 143], [end.said for end in ends]
    stopped = checkpoints(tmp_path, spec)[-1]
    assert 16 < stopped < 24
    assert all("resumed at step 16" in end.said for end in ends)
    assert result(tmp_path, spec).status is Status.RUNNING
    assert f"resumed at step {stopped}" in shop.run(spec, tmp_path).said
    assert_close(one, tmp_path, spec)


@pytest.mark.slow
def test_a_run_goes_on_with_another_mesh_or_says_that_it_cannot(shop, tmp_path) -> None:
    spec = spec_of(shop, Family.ARM)
    smaller = dataclasses.replace(spec, hardware=dataclasses.replace(spec.hardware, mesh_data=1))
    killed_at(shop.undisturbed(spec), tmp_path / "smaller", spec, 10)
    assert "resumed at step 10" in shop.run(smaller, tmp_path / "smaller").said
    assert_close(shop.undisturbed(spec), tmp_path / "smaller", spec)
    other = dataclasses.replace(spec, hardware=dataclasses.replace(spec.hardware, mesh_data=1, mesh_model=2))
    folder = killed_at(shop.undisturbed(spec), tmp_path / "other", spec, 10)
    end = shop.run(other, tmp_path / "other")
    assert end.code == 1
    assert len(end.errors) == 1
    assert f"checkpoint {folder / '10'}: " in end.errors[0]
    assert "head.value is float32 [16, 257] there and float32 [16, 258] in this run" in end.errors[0]
    assert "hardware.mesh_model" in end.errors[0]
    assert "Traceback" not in end.said
    assert checkpoints(tmp_path / "other", spec)[-1] == 10


@pytest.mark.slow
def test_a_disk_that_fails_for_the_first_process_ends_both_and_both_go_on(shop, tmp_path) -> None:
    spec = spec_of(shop, Family.ARM)
    folder = killed_at(shop.undisturbed(spec), tmp_path, spec, 10)
    ends = run_two(shop, spec, tmp_path, environment=on_failing_disk(folder / "10" / "default"))
    assert [end.code for end in ends] == [42, 42], [end.said for end in ends]
    assert "Input/output error" in ends[0].errors[0]
    assert "the first process could not use the checkpoints" in ends[1].errors[0]
    assert checkpoints(tmp_path, spec)[-1] == 10
    assert all("resumed at step 10" in end.said for end in run_two(shop, spec, tmp_path))
    assert_close(shop.undisturbed(spec), tmp_path, spec)


@pytest.mark.slow
@pytest.mark.parametrize("family", Family)
def test_two_killed_processes_go_on_with_the_same_bits(shop, tmp_path, family) -> None:
    spec = spec_of(shop, family)
    assert [end.code for end in run_two(shop, spec, tmp_path / "whole")] == [0, 0]
    for step in (1, 4, 7):
        processes = start_two(shop, spec, tmp_path / "killed")
        wait_until(lambda at=step: any(row["step"] >= at for row in rows(tmp_path / "killed", spec)), processes[0])
        for process in processes:
            process.kill()
            ended(process)
    assert [end.code for end in run_two(shop, spec, tmp_path / "killed")] == [0, 0]
    assert_same(outcome(tmp_path / "killed", spec), outcome(tmp_path / "whole", spec))
