"""The benchmark of sweeps: its clock counts each second once, and its runs are real ones."""

import dataclasses
import json
from pathlib import Path

import pytest
from small_corpus import prepared

from benchmarks.sweep import WAYS, lines_of, measure, quickstart
from benchmarks.timed_run import PARTS, Parts, reporting, seconds_since_start
from isoflop.cost import work_flops
from mdm_jax.spec import EvaluationSpec, HardwareSpec, ScheduleSpec


class Clock:
    """A clock that goes on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_part_interrupts_the_one_around_it() -> None:
    clock = Clock()
    parts = Parts(clock)

    def wait(seconds: float) -> int:
        clock.now += seconds
        return 0

    def run() -> int:
        wait(1)
        with parts.part("steps"):
            wait(2)
            parts.timed("checkpoints", wait)(3)
            wait(4)
        parts.timed("evaluation", wait)(7)
        parts.move(5, "evaluation", "evaluation compiles")
        return wait(6)

    wait(100)  # until the run begins
    parts.resume()
    run()
    of_run = {"rest": 7, "steps": 6, "checkpoints": 3, "evaluation": 2, "evaluation compiles": 5}
    assert parts.end() == dict.fromkeys(PARTS, 0.0) | of_run
    run()
    assert parts.end() == dict.fromkeys(PARTS, 0.0) | of_run


def test_each_run_leaves_a_line(tmp_path) -> None:
    execute = reporting(Parts(), len, tmp_path / "parts.jsonl")
    assert [execute("abc"), execute("")] == [3, 0]
    lines = (tmp_path / "parts.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [list(PARTS)] * 2
    assert 0 < seconds_since_start() < 36000


def test_the_runs_are_of_all_costs_and_both_families() -> None:
    runs = quickstart(4, Path("text"))
    assert len(runs) == 13
    costs = [work_flops(run) for run in runs]
    assert costs == sorted(costs, reverse=True)
    assert {run.family for run in runs} == {run.family for run in quickstart(1, Path("text"))}
    assert {run.data.directory for run in runs} == {"text"}


def test_the_table_shows_shares_of_all_jobs() -> None:
    one = {"wall_s": 10.0, "seconds": {**dict.fromkeys(PARTS, 0.0), "steps": 15.0, "idle": 5.0}, "outside": 0.25}
    lines = {line.split("  ")[0]: line.split()[-1] for line in lines_of({"runs": 2, "jobs": 2, "workers, cold": one})}
    assert (lines["wall, s"], lines["steps"], lines["idle"]) == ("10.0", "75.0%", "25.0%")
    assert lines["outside steps and evaluation"] == "25.0%"


@pytest.mark.slow
def test_a_small_sweep_is_timed_in_both_ways(tmp_path) -> None:
    """Slow: two runs, twice, which compile their programs."""
    runs = [
        dataclasses.replace(
            run,
            data=prepared(tmp_path, seq_len=64),
            schedule=ScheduleSpec(steps=20, warmup_steps=2),
            evaluation=EvaluationSpec(eval_tokens=2048, mc_samples=2, batch=16),
            hardware=HardwareSpec(),
            seed=seed,
        )
        for seed, run in enumerate(quickstart(4, tmp_path)[-1:] * 2)
    ]
    found = measure(runs, jobs=1, warm=False)
    for way in WAYS:
        one = found[f"{way}, cold"]
        assert sum(one["seconds"].values()) == pytest.approx(one["wall_s"], abs=0.05)
        assert all(one["seconds"][part] > 0 for part in PARTS)
        assert 0 < one["outside"] < 1
    shared, alone = (found[f"{way}, cold"]["seconds"] for way in WAYS)
    for part in ("imports", "first step", "first state"):
        assert shared[part] < alone[part]
