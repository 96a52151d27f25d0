"""The time left of a sweep: replayed from run tables of real sweeps, and shown while imitated runs train."""

import csv
import functools
import heapq
import math
import time
from pathlib import Path

import pytest

from isoflop.cost import Machine, sweep_seconds, work_flops
from isoflop.measured import measured_machine
from isoflop.plan.__main__ import plan_config
from isoflop.run.progress import Progress, cell_state, sweep_state
from isoflop.run.time_left import Cell, Position, read_position, seconds_left
from mdm_jax.config import load_config
from mdm_jax.files.storage import as_path
from mdm_jax.spec import CellSpec, OptimSpec, RunSpec, ScheduleSpec
from mdm_jax.train.metrics import MetricsWriter

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
JOBS = 2
RUN = RunSpec(optim=OptimSpec(global_batch=4), schedule=ScheduleSpec(steps=1000, warmup_steps=0))


@functools.cache
def recorded(experiment: str) -> list[tuple[RunSpec, float]]:
    """The runs of an experiment and their measured wall seconds, in the order in which a sweep starts them."""
    planned = {run.run_id: run for run in plan_config(load_config(str(EXPERIMENTS / f"{experiment}.py"))).runs}
    with (EXPERIMENTS / "results" / experiment / "run_table.csv").open() as file:
        timed = [(planned[row["run_id"]], float(row["wall_seconds"])) for row in csv.DictReader(file)]
    return sorted(timed, key=lambda pair: work_flops(pair[0]), reverse=True)


def replayed(runs: list[tuple[RunSpec, float]], finished: int) -> tuple[float, float]:
    """The estimated and the real seconds left of a sweep at the time when so many runs have finished."""
    free, entries = [0.0] * JOBS, []
    for run, wall in runs:
        start = heapq.heappop(free)
        heapq.heappush(free, start + wall)
        entries.append((run, start, start + wall))
    ends = sorted(end for _, _, end in entries)
    now = ends[finished - 1] if finished else 0.0
    timed = [(run, end - start) for run, start, end in entries if end <= now]
    running = [Cell(run, None, now - start) for run, start, end in entries if start <= now < end]
    waiting = [Cell(run) for run, start, _ in entries if start > now]
    return seconds_left(timed, running, waiting, JOBS)[0], ends[-1] - now


@pytest.mark.parametrize(("experiment", "factor"), [("quickstart", 1.3), ("cpu_sharper", 1.8)])
def test_a_recorded_sweeps_time_left_is_near_from_the_start(experiment: str, factor: float) -> None:
    """`cpu_sharper` ends with many runs of equal shapes, which need no compilation: the guess is 1.5 of the truth."""
    runs = recorded(experiment)
    guessed, real = replayed(runs, 0)
    assert 0.7 < guessed / real < 1.3
    guessed, real = replayed(runs, len(runs) // 4)
    assert 1 / factor < guessed / real < factor


@pytest.mark.parametrize("factor", [1 / 30, 30])
def test_a_machine_of_another_speed_is_learnt_from_a_quarter_of_the_runs(factor: float) -> None:
    runs = [(run, wall * factor) for run, wall in recorded("quickstart")]
    guessed, real = replayed(runs, len(runs) // 4)
    assert guessed == pytest.approx(real, rel=0.3)


def test_measured_parts_are_told_apart_by_runs_that_differ_in_them() -> None:
    true = Machine().with_known(run_overhead_seconds=20.0, step_seconds=0.01, peak_flops_per_second=1e10)
    runs = [run for run, _ in recorded("quickstart")]
    found = measured_machine((run, true.seconds(run)) for run in runs)
    assert found is not None
    assert found.time_parts(runs[0]) == pytest.approx(true.time_parts(runs[0]), rel=0.25)
    for run in runs:
        assert found.seconds(run) == pytest.approx(true.seconds(run), rel=0.1)
    assert measured_machine([]) is None


def test_jobs_share_the_time_and_a_chain_of_parents_bounds_it() -> None:
    long = RunSpec(schedule=ScheduleSpec(steps=2000), cell=CellSpec(parent_run_id=RUN.run_id, parent_steps=1000))
    other = RunSpec(schedule=ScheduleSpec(steps=500))
    seconds = {RUN.run_id: 10.0, long.run_id: 30.0, other.run_id: 5.0}
    runs, alone = [RUN, long, other], [RUN]
    assert [sweep_seconds(runs, lambda run: seconds[run.run_id], jobs) for jobs in (1, 2, 8)] == [45, 40, 40]
    assert [sweep_seconds(alone, lambda run: seconds[run.run_id], jobs) for jobs in (1, 8)] == [10, 10]
    assert seconds_left([], [], [], 2) == (0, [])


def test_a_running_cells_time_left_follows_its_own_speed() -> None:
    machine = Machine()

    def left(step: int, age: float, elapsed: float) -> float:
        return Cell(RUN, Position(step, 2.5, 0.1, age), elapsed).seconds_left(machine)

    assert left(500, 0.0, 60.0) - left(1000, 0.0, 60.0) == pytest.approx(50)
    assert left(500, 0.0, 60.0) - left(500, 3.0, 63.0) == pytest.approx(3)
    whole = Cell(RUN).seconds_left(machine)
    assert whole - Cell(RUN, None, 2.0).seconds_left(machine) == pytest.approx(2)
    assert machine.run_overhead_seconds < left(500, age=900.0, elapsed=0.0) < whole  # an earlier attempt's row


def test_a_slow_running_cell_tells_of_those_that_wait() -> None:
    other = RunSpec(schedule=ScheduleSpec(steps=1000))
    believed, _ = seconds_left([], [Cell(RUN)], [Cell(other)], 1)
    early, _ = seconds_left([], [Cell(RUN, Position(20, 2.5, 1.0, 0.0), 30.0)], [], 1)
    begun, _ = seconds_left([], [Cell(RUN, Position(20, 2.5, 1.0, 0.0), 30.0)], [Cell(other)], 1)
    assert begun - early == pytest.approx(believed - seconds_left([], [Cell(RUN)], [], 1)[0])
    later, (own,) = seconds_left([], [Cell(RUN, Position(100, 2.5, 1.0, 0.0), 110.0)], [Cell(other)], 1)
    assert own > 900
    assert later - own > 3 * (begun - early)


def test_the_position_is_the_newest_whole_row(tmp_path) -> None:
    assert read_position(tmp_path, RUN) is None
    metrics = MetricsWriter(as_path(tmp_path / "metrics"), 0)
    speed = RUN.optim.global_batch * RUN.data.seq_len / 0.02
    metrics.write({"step": 10, "loss": 5.0, "tokens_per_second": 0.0})
    metrics.write({"step": 20, "loss": 4.0, "tokens_per_second": speed})
    metrics.next_part(20)
    for cut_off in ("", '{"step": 30, "lo'):
        (tmp_path / "metrics/0000000020.jsonl").write_text(cut_off)
        position = read_position(tmp_path, RUN)
        assert position is not None
        assert (position.step, position.loss) == (20, 4.0)
        assert position.step_seconds == pytest.approx(0.02)
        assert 0 <= position.age < 60
    (tmp_path / "metrics/0000000020.jsonl").write_text("no JSON\n")
    assert read_position(tmp_path, RUN) is None


def test_plain_lines_come_a_few_seconds_apart(capsys) -> None:
    progress, run = Progress(), RunSpec(schedule=ScheduleSpec(steps=1000), cell=CellSpec(budget=1e11))
    sweep = sweep_state(3, 52, elapsed=10.0, left=540.0)
    cells = [cell_state(Cell(run, Position(500, 2.5, 0.1, 0.0)), 50.0), cell_state(Cell(RUN), 60.0)]
    begun = time.monotonic()
    for _ in range(3):
        progress.update(sweep, cells)
    assert time.monotonic() - begun < 5
    assert capsys.readouterr().out == (
        f"sweep 3/52 runs, about 9.0 min left; {run.run_id} 1e+11 step 500/1000, loss 2.500, about 50 s left;"
        f" {RUN.run_id} starting, about 60 s left\n"
    )
    assert math.isclose(sweep.share, 10 / 550)
