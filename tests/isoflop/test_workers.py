"""Workers: many runs in one process, each as if it had the process alone, and every end as of a process of its own."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from imitated_runs import make_sweep
from running import Workshop, assert_same, outcome, workshop

from isoflop.planfile import write_plan
from isoflop.run.__main__ import run_sweep
from isoflop.run.process import Processes
from isoflop.run.runner import Policy
from isoflop.run.workers import Worker, Workers
from mdm_jax.files.results import RunResult, Status, result_of, write_result
from mdm_jax.run.orders import Answer, Order, read_answer, read_order
from mdm_jax.run.peak_memory import forget_peak_memory, peak_memory_bytes
from mdm_jax.spec import Family, RunSpec


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return workshop(tmp_path_factory)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, shop: Workshop) -> None:
    for name, value in shop.environment(RunSpec()).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def finished(tmp_path) -> list[RunSpec]:
    """A sweep with a run that is done, one that diverged, and one that cannot be: its data are not there."""
    runs = make_sweep(tmp_path, ["ok"] * 3)
    for run, status in zip(runs, (Status.OK, Status.DIVERGED), strict=False):
        (tmp_path / "runs" / run.run_id).mkdir(parents=True)
        write_result(tmp_path / "runs" / run.run_id / "result.json", result_of(run, status, loss=2.0))
    return runs


def arguments(directory: Path, run: RunSpec) -> tuple[str, ...]:
    return "--plan", str(directory), "--run-id", run.run_id


@pytest.fixture
def workers(tmp_path) -> Iterator[Workers]:
    found = Workers(Processes(os.environ, 1, None), lambda run: arguments(tmp_path, run))
    yield found
    found.close()


def ended(workers: Workers, directory: Path, run: RunSpec, attempt: int = 1) -> tuple[int, subprocess.Popen, str]:
    """The exit code of a run, the process that executed it, and the last line of its log."""
    child = workers.start(run, directory / "runs" / run.run_id, attempt, 0)
    while (code := child.poll()) is None:
        threading.Event().wait(0.02)
    workers.release(child)
    assert child.poll() == code
    return code, child.process, child.last_log_line()


def test_lines_are_read_as_they_were_written() -> None:
    order, answer = Order(("--plan", "a\nb"), "/log é"), Answer(143, False)
    assert read_order(order.line()) == order
    assert read_answer(answer.line()) == answer
    assert order.line().count(b"\n") == answer.line().count(b"\n") == 1


def test_a_process_executes_runs_until_one_does_not_end_well(tmp_path, workers, finished) -> None:
    done, diverged, _ = finished
    codes, processes, said = zip(*(ended(workers, tmp_path, run) for run in (done, done, diverged, done)), strict=True)
    assert codes == (0, 0, 3, 0)
    first, second, third, fourth = processes
    assert first is second is third is not fourth
    assert third.returncode is not None
    assert fourth.poll() is None
    assert all(line.endswith("is finished: see result.json there") for line in said)
    log = (tmp_path / "runs" / done.run_id / "log.txt").read_text().splitlines()
    assert log[::2] == ["# attempt 1"] * 3
    assert log[1::2] == [said[0]] * 3  # none of the other run's
    assert ended(workers, tmp_path, done, attempt=2)[1] is not fourth


def test_the_death_of_a_worker_is_the_end_of_its_run_alone(tmp_path, workers, finished) -> None:
    done = finished[0]
    child = workers.start(done, tmp_path / "runs" / done.run_id, 1, 0)
    while not workers.of_slot[0].is_free:
        threading.Event().wait(0.02)
    child.process.kill()  # after the answer, which counts
    child.process.wait()
    assert child.poll() == 0
    workers.release(child)
    child = workers.start(done, tmp_path / "runs" / done.run_id, 1, 0)
    child.process.send_signal(signal.SIGSTOP)  # before it has read its order
    child.process.kill()
    child.process.wait()
    assert child.poll() == -signal.SIGKILL
    workers.release(child)
    assert not workers.of_slot
    assert ended(workers, tmp_path, done)[0] == 0


def test_the_runs_of_a_killed_runner_come_to_their_end(tmp_path, finished) -> None:
    ours, theirs = os.pipe()
    log = tmp_path / "log"
    command = [sys.executable, "-m", "mdm_jax.run.worker", str(theirs)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs])
    os.close(theirs)
    found = Worker(process, ours)
    found.order(Order(arguments(tmp_path, finished[0]), str(log)))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == 0
    assert found.poll() == 0
    assert "is finished" in log.read_text()
    found.end()


def test_a_worker_that_is_dead_before_its_order_is_one_that_ended(tmp_path) -> None:
    ours, theirs = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"], stdin=subprocess.PIPE)
    os.close(theirs)
    process.wait()
    found = Worker(process, ours)
    found.order(Order(("--plan", str(tmp_path)), str(tmp_path / "log")))
    assert found.poll() == 5
    found.end()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets the peak of a process")
def test_the_peak_memory_is_that_of_the_present_run() -> None:
    forget_peak_memory()
    before = peak_memory_bytes()
    held = b"x" * (1 << 28)
    assert peak_memory_bytes() > before + (1 << 27)
    del held
    forget_peak_memory()
    assert peak_memory_bytes() < before + (1 << 27)


def sweep(directory: Path, runs: Sequence[RunSpec], **policy) -> list[RunResult]:
    directory.mkdir()
    write_plan(directory, runs)
    return run_sweep(directory, policy=Policy(**policy))


def test_a_run_is_the_same_alone_and_after_another_in_a_worker(tmp_path, shop, monkeypatch) -> None:
    """The other run has another seed, learning rate and length; both use the same programs."""
    run = shop.spec(Family.MDM)
    longer = dataclasses.replace(run.schedule, steps=14)
    before = dataclasses.replace(run, seed=1, schedule=longer, optim=dataclasses.replace(run.optim, lr_peak=0.02))
    alone = shop.undisturbed(run)
    # Other tests add programs to the shop's cache meanwhile, and its hidden files are half-written.
    cache = shutil.copytree(shop.cache, tmp_path / "cache", ignore=shutil.ignore_patterns(".*"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    programs = sorted(path.name for path in cache.iterdir())
    rows = sweep(tmp_path / "sweep", [run, before])
    assert [row.status for row in rows] == [Status.OK, Status.OK]
    assert_same(outcome(tmp_path / "sweep/runs", run), outcome(alone, run))
    assert rows[0].loss != rows[1].loss
    assert sorted(path.name for path in cache.iterdir()) == programs
    log = (tmp_path / "sweep/runs" / run.run_id / "log.txt").read_text()
    assert log.startswith("# attempt 1\n")
    assert log.count(run.run_id) >= 2
    assert before.run_id not in log


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_worker_that_a_signal_ends_is_replaced_and_its_run_goes_on(tmp_path, shop, number) -> None:
    """Slow: three runs in two processes. A worker that ends by itself after SIGTERM has saved its run."""
    run = shop.spec(Family.ARM, steps=4000, checkpoint_every=200)
    first = shop.spec(Family.ARM, steps=4001, checkpoint_every=200)
    alone, directory = shop.undisturbed(run), tmp_path / "sweep"
    saved = directory / "runs" / run.run_id / "checkpoints" / "200"

    def interrupt() -> None:
        """Ends the process that holds the run, as soon as the run has saved a step."""
        while not saved.exists():
            threading.Event().wait(0.01)
        holder = (directory / "runs" / run.run_id / ".lock").read_text()
        os.kill(int(holder.partition('"holder": ')[2].partition(",")[0]), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    rows = sweep(directory, [run, first], retries_after=(0.1,))
    thread.join()
    assert [(row.status, row.attempts) for row in rows] == [(Status.OK, 2), (Status.OK, 1)]
    assert_same(outcome(directory / "runs", run), outcome(alone, run))
