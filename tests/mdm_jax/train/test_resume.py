"""Runs that are killed at any moment and started again end with the same bits as one that was left alone."""

import dataclasses
import random
import signal
import time
from pathlib import Path

import pytest
from running import Workshop, assert_same, checkpoints, ended, outcome, result, rows, wait_until, workshop

from mdm_jax.files.results import Status
from mdm_jax.spec import Family, RunSpec
from mdm_jax.train.seal import SEAL_FILE

FEW, MANY = 2, 20


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    return workshop(tmp_path_factory, as_for_users=True)


def with_noise(shop: Workshop, family: Family) -> RunSpec:
    """A run with dropout and lengths that are drawn for each step, so that resuming needs their random numbers too."""
    plain = shop.spec(family, steps=24)
    model = dataclasses.replace(plain.model, dropout=0.1)
    objective = dataclasses.replace(plain.objective, stochastic_length=0.5)
    return dataclasses.replace(plain, model=model, objective=objective)


def unfinished(folder: Path) -> dict[str, int]:
    """Checkpoints that are half-written or not sealed yet, with the time of their last change."""
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            if ".bad-" not in entry.name and not (entry / SEAL_FILE).exists():
                found[entry.name] = changed(entry)
        except FileNotFoundError:
            continue  # renamed in this moment
    return found


def changed(path: Path) -> int:
    """When the file or folder last changed, in nanoseconds; 0 where there is none."""
    return path.stat().st_ctime_ns if path.exists() else 0


def spent(runs: Path, spec: RunSpec) -> float:
    """Seconds from the begin of the last attempt to its last checkpoint, by the times of its files."""
    folder = runs / spec.run_id
    seal = folder / "checkpoints" / str(checkpoints(runs, spec)[-1]) / SEAL_FILE
    return seal.stat().st_mtime - (folder / "spec.json").stat().st_mtime


def wall_seconds(runs: Path, spec: RunSpec) -> float:
    """The wall time that the run has noted so far."""
    return result(runs, spec).wall_seconds or 0.0


def killed(shop: Workshop, spec: RunSpec, runs: Path, step: int, writing: bool, delay: float) -> bool:
    """Starts the run and kills it at about `step`, if `writing` inside a checkpoint; whether it was inside one."""
    folder = runs / spec.run_id
    stale, stale_result = unfinished(folder / "checkpoints"), changed(folder / "result.json")

    def new() -> list[str]:
        return [name for name, when in unfinished(folder / "checkpoints").items() if stale.get(name) != when]

    def now() -> bool:
        if changed(folder / "result.json") == stale_result:
            return False  # this attempt has not begun
        if writing:
            return any(int(name.partition(".")[0]) >= step for name in new())
        return any(row["step"] >= step for row in rows(runs, spec))

    process = shop.start(spec, runs)
    try:
        wait_until(now, process, every=0.002)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        code = ended(process).code
    assert code == -signal.SIGKILL
    return bool(new())


def kill_and_compare(shop: Workshop, spec: RunSpec, runs: Path, kills: int) -> None:
    whole = outcome(shop.undisturbed(spec), spec)  # it compiles its programs; those that are killed find them cached
    draw = random.Random(f"{spec.family.value} {kills}")
    steps = sorted(draw.randint(1, spec.schedule.steps * 2 // 3) for _ in range(kills))
    inside = sum(
        killed(shop, spec, runs, step, writing=i % 2 == 0, delay=draw.uniform(0, 0.06)) for i, step in enumerate(steps)
    )
    assert inside >= kills // 4, f"only {inside} of {kills} kills fell into the writing of a checkpoint"
    last = shop.run(spec, runs)
    assert last.code == 0, last.said
    assert result(runs, spec).attempts == kills + 1
    assert_same(outcome(runs, spec), whole)


@pytest.mark.parametrize("family", [Family.ARM, pytest.param(Family.MDM, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits(shop, tmp_path, family) -> None:
    """Plain runs are killed below."""
    kill_and_compare(shop, with_noise(shop, family), tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("family", Family)
def test_runs_killed_twenty_times_end_with_the_same_bits(shop, tmp_path, family) -> None:
    kill_and_compare(shop, shop.spec(family, steps=60, checkpoint_every=1), tmp_path, MANY)


def test_signals_stop_a_run_that_then_goes_on(shop, tmp_path) -> None:
    spec = with_noise(shop, Family.ARM)  # the run that is killed above, so that one undisturbed run serves both

    def interrupt(number: int, step: int):
        process = shop.start(spec, tmp_path)
        wait_until(lambda: any(row["step"] >= step for row in rows(tmp_path, spec)), process)
        process.send_signal(number)
        end = ended(process)
        return end, spent(tmp_path, spec)

    stopped, first_seconds = interrupt(signal.SIGTERM, 3)
    saved = checkpoints(tmp_path, spec)[-1]
    assert stopped.code == 143
    assert stopped.errors == [f"mdm_jax: stopped at step {saved}, which is saved: the same command goes on from there"]
    assert rows(tmp_path, spec)[-1]["step"] == saved < 24
    assert result(tmp_path, spec).status is Status.RUNNING
    assert wall_seconds(tmp_path, spec) >= first_seconds
    interrupted, second_seconds = interrupt(signal.SIGINT, saved + 1)
    assert interrupted.code == 130
    saved = checkpoints(tmp_path, spec)[-1]
    assert interrupted.errors == [
        f"mdm_jax: stopped at step {saved}, which is saved: the same command goes on from there"
    ]
    assert rows(tmp_path, spec)[-1]["step"] == saved < 24
    assert "Traceback" not in stopped.said + interrupted.said
    assert result(tmp_path, spec).status is Status.RUNNING
    last = shop.run(spec, tmp_path)
    assert last.code == 0
    assert "resumed at step" in last.said
    assert wall_seconds(tmp_path, spec) >= first_seconds + second_seconds + spent(tmp_path, spec)
    assert 0 < (result(tmp_path, spec).goodput or 0) < 1
    assert_same(outcome(tmp_path, spec), outcome(shop.undisturbed(spec), spec))


@pytest.mark.slow
@pytest.mark.parametrize("family", Family)
def test_programs_from_the_cache_give_the_bits_of_fresh_ones(shop, tmp_path, family) -> None:
    spec = shop.spec(family, steps=24)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    for runs in (tmp_path / "fresh", tmp_path / "cached"):
        assert shop.run(spec, runs, environment=cache).code == 0
    assert_same(outcome(tmp_path / "fresh", spec), outcome(tmp_path / "cached", spec))
