"""Two processes of one run: when one is lost or fails, the other ends soon, and the restart of both goes on."""

import dataclasses
import itertools
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from limited import NO_BYTECODE
from running import Ended, Workshop, checkpoints, ended, free_address, result, rows, start_two, wait_until

from mdm_jax.files.lock import RUN_LOCK, is_held
from mdm_jax.files.results import Status
from mdm_jax.spec import Family, RunSpec

SECONDS = 30
"""What is promised of the one that is left; 1 to 6 s are measured, of 20 s until a heartbeat is missed."""


def long_run(shop: Workshop) -> RunSpec:
    spec = shop.spec(Family.ARM, steps=300, mesh_data=2)
    return dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, batch=4, eval_tokens=256))


def children(process: subprocess.Popen) -> list[int]:
    """The process ids of those that the process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def kill_machine(process: subprocess.Popen) -> None:
    """Kills the process and the one that it supervises, as the loss of a machine does."""
    for pid in [*children(process), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=SECONDS)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def survivor(processes: list[subprocess.Popen], lost: int) -> Ended:
    """How the other process ends after one is lost, which it does in time."""
    begun = time.monotonic()
    kill_machine(processes[lost])
    end = ended(processes[1 - lost])
    assert time.monotonic() - begun < SECONDS
    return end


def at_step(runs: Path, spec: RunSpec, step: int) -> Callable[[], bool]:
    return lambda: any(row["step"] >= step for row in rows(runs, spec))


@pytest.mark.parametrize("killed", [(1,), pytest.param((1, 0), marks=pytest.mark.slow)], ids=["one", "either"])
def test_whichever_process_is_killed_the_other_ends_in_time_and_both_go_on(shop, tmp_path, killed) -> None:
    spec, resumed_at = long_run(shop), [0]
    for lost in killed:
        processes = start_two(shop, spec, tmp_path)
        wait_until(at_step(tmp_path, spec, resumed_at[-1] + 6), processes[0])
        end = survivor(processes, lost)
        assert end.code == 42, end.said
        assert result(tmp_path, spec).status is Status.RUNNING
        resumed_at.append(checkpoints(tmp_path, spec)[-1])
    assert all(a < b for a, b in itertools.pairwise([*resumed_at, spec.schedule.steps]))
    processes = start_two(shop, spec, tmp_path)
    wait_until(at_step(tmp_path, spec, resumed_at[-1] + 6), processes[0])
    processes[1].send_signal(signal.SIGTERM)
    ends = [ended(process) for process in processes]
    assert [end.code for end in ends] == [143, 143], [end.said for end in ends]
    assert all(f"resumed at step {resumed_at[-1]}" in end.said for end in ends)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_lost_in_the_evaluation(shop, tmp_path, lost) -> None:
    spec = shop.spec(Family.MDM, mesh_data=2)
    spec = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, mc_samples=3000))
    processes = start_two(shop, spec, tmp_path)
    wait_until(lambda: checkpoints(tmp_path, spec)[-1:] == [spec.schedule.steps], processes[0])
    time.sleep(2)
    end = survivor(processes, lost)
    assert end.code == 42, end.said
    assert result(tmp_path, spec).status is Status.RUNNING
    assert [ended(process).code for process in start_two(shop, spec, tmp_path)] == [0, 0]


@pytest.mark.slow
def test_one_process_that_is_asked_to_stop_in_the_evaluation_takes_the_other_along(shop, tmp_path) -> None:
    spec = shop.spec(Family.MDM, mesh_data=2)
    spec = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, mc_samples=3000))
    processes = start_two(shop, spec, tmp_path)
    wait_until(lambda: checkpoints(tmp_path, spec)[-1:] == [spec.schedule.steps], processes[0])
    time.sleep(2)
    processes[0].send_signal(signal.SIGTERM)
    assert [ended(process).code for process in processes] == [143, 143]
    ends = [ended(process) for process in start_two(shop, spec, tmp_path)]
    assert [end.code for end in ends] == [0, 0]
    assert all("evaluation resumed at batch" in end.said for end in ends)


@pytest.mark.slow
@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_that_fails_one_process_ends_both(shop, tmp_path, full) -> None:
    """The limit on the size of its files fails one process's writes as a full disk does."""
    spec = shop.spec(Family.ARM, mesh_data=2)
    processes = start_two(shop, spec, tmp_path, environment=NO_BYTECODE)
    resource.prlimit(processes[full].pid, resource.RLIMIT_FSIZE, (4096, 4096))  # before its child, which inherits it
    ends = [ended(process) for process in processes]
    assert [end.code for end in ends] == [42, 42], [end.said for end in ends]
    (reason,) = ends[full].errors
    assert "File too large" in reason
    assert ends[1 - full].errors == [f"mdm_jax: process {full}: {reason.removeprefix('mdm_jax: ')}"]
    assert result(tmp_path, spec).status is Status.RUNNING
    assert "File too large" in result(tmp_path, spec).excluded_reason
    assert [ended(process).code for process in start_two(shop, spec, tmp_path)] == [0, 0]


def test_a_process_that_jax_aborts_is_worth_a_retry(shop, tmp_path) -> None:
    """jax ends a process so, from a thread of its own, when it misses another one."""
    flags = ["--coordinator", free_address(), "--processes", "2", "--process-index", "1"]
    supervisor = shop.start(shop.spec(Family.ARM, mesh_data=2), tmp_path, *flags)
    wait_until(lambda: bool(children(supervisor)), supervisor)
    os.kill(children(supervisor)[0], signal.SIGABRT)
    end = ended(supervisor)
    assert end.code == 42, end.said
    assert end.errors == ["mdm_jax: ended by SIGABRT, as when another process is lost: the same command goes on"]


def test_a_supervisor_that_is_killed_takes_its_run_along(shop, tmp_path) -> None:
    """The folder is free again, though the process that trains was not killed itself."""
    spec = shop.spec(Family.ARM, mesh_data=2)
    processes = start_two(shop, spec, tmp_path)
    folder = tmp_path / spec.run_id
    wait_until(lambda: folder.is_dir() and is_held(folder, RUN_LOCK), processes[0])
    processes[0].kill()
    ended(processes[0])
    assert ended(processes[1]).code == 42
    deadline = time.monotonic() + SECONDS
    while is_held(folder, RUN_LOCK):
        assert time.monotonic() < deadline
        time.sleep(0.05)
