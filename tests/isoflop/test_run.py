"""The local sweep with real processes: a small program imitates runs that end well, diverge, crash, flake or hang."""

import csv
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from command_line import on_terminal, one_line
from imitated_runs import QUICK, ROOT, driver, imitation, make_sweep, started, sweep, wait_for

from isoflop.planfile import write_plan
from isoflop.run.__main__ import main, training_command
from isoflop.run.runner import Stop
from mdm_jax.files.lock import hold_run
from mdm_jax.files.results import Status, read_result, result_of, write_result
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Family, RunSpec, pair


@pytest.fixture(autouse=True)
def _import_from_here(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_every_ending_is_recorded_and_the_rest_goes_on(tmp_path, capsys) -> None:
    modes = ["ok", "crash", "failed", "diverged", "silent", "flaky", "always42", "killed", "ok"]
    runs = make_sweep(tmp_path, modes)
    rows = dict(zip(modes, sweep(tmp_path), strict=True))
    ended = [rows[mode].status.value for mode in modes]
    assert ended == ["ok", "failed", "failed", "diverged", "failed", "ok", "failed", "failed", "ok"]
    reasons = {mode: row.excluded_reason for mode, row in rows.items()}
    assert reasons["crash"] == "exit 1: RuntimeError: the imitation crashed [red]"
    assert reasons["failed"] == "its own words"
    assert reasons["diverged"] == "loss is nan at step 7"
    assert reasons["silent"] == "exit 0: nothing was logged"
    assert reasons["always42"].startswith("exit 42")
    assert reasons["killed"].startswith("SIGKILL")
    attempts = {mode: row.attempts for mode, row in rows.items()}
    more = {"flaky": 3, "always42": 3, "killed": 3}
    assert attempts == dict.fromkeys(modes, 1) | more
    assert rows["killed"].device == "imitated"  # what the run had noted before it died
    assert rows["killed"].wall_seconds == 300  # it had noted 100 seconds an attempt
    for run in runs:
        assert read_result(tmp_path / "runs" / run.run_id / "result.json").run_id == run.run_id
    with (tmp_path / "runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["run_id"] for row in table] == [run.run_id for run in runs]
    assert [row["status"] for row in table] == ended
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert len(lines) == len(runs)
    assert lines[0].startswith(f"[1/9] {runs[0].run_id} 1e+11 d64 nelbo 2.500 nats/token ")
    assert any("failed: exit 1: RuntimeError: the imitation crashed [red];" in line for line in lines)


def test_longest_runs_start_first(tmp_path) -> None:
    runs = make_sweep(tmp_path, ["ok"] * 4)
    write_plan(tmp_path, [runs[2], runs[0], runs[3], runs[1]])
    sweep(tmp_path)
    assert [entry["run_id"] for entry in started(tmp_path)] == [run.run_id for run in runs]


def test_finished_runs_are_kept_and_failed_ones_retried_on_request(tmp_path) -> None:
    runs = make_sweep(tmp_path, ["ok", "crash", "diverged"])
    first = sweep(tmp_path)
    assert len(started(tmp_path)) == 3
    assert sweep(tmp_path) == first
    assert len(started(tmp_path)) == 3
    modes = {runs[0].run_id: "crash", runs[1].run_id: "ok", runs[2].run_id: "crash"}
    (tmp_path / "modes.json").write_text(json.dumps(modes))
    again = sweep(tmp_path, dataclasses.replace(QUICK, retry_failed=True))
    assert [row.status.value for row in again] == ["ok", "ok", "diverged"]
    assert [entry["run_id"] for entry in started(tmp_path)][3:] == [runs[1].run_id]
    assert again[1].attempts == 2


def test_a_stale_failure_is_not_taken_for_the_retry(tmp_path) -> None:
    make_sweep(tmp_path, ["failed"])
    (row,) = sweep(tmp_path)
    assert row.excluded_reason == "its own words"
    path = tmp_path / "runs" / row.run_id / "result.json"
    write_result(path, dataclasses.replace(row, wall_seconds=1000.0, goodput=0.5))
    (tmp_path / "modes.json").write_text(json.dumps({row.run_id: "crash"}))
    (row,) = sweep(tmp_path, dataclasses.replace(QUICK, retry_failed=True))
    assert row.excluded_reason == "exit 1: RuntimeError: the imitation crashed [red]"
    assert row.attempts == 2
    assert row.wall_seconds is not None
    assert row.goodput is not None
    assert 1000 < row.wall_seconds < 2000
    assert row.goodput * row.wall_seconds == pytest.approx(500, rel=1e-3)


def test_a_running_or_unreadable_row_is_run_again(tmp_path, capsys) -> None:
    runs = make_sweep(tmp_path, ["ok", "ok"])
    for run in runs:
        (tmp_path / "runs" / run.run_id).mkdir(parents=True)
    write_result(tmp_path / "runs" / runs[0].run_id / "result.json", result_of(runs[0], Status.RUNNING, attempts=4))
    (tmp_path / "runs" / runs[1].run_id / "result.json").write_text('{"run_id": "mdm')
    rows = sweep(tmp_path)
    assert [row.status for row in rows] == [Status.OK, Status.OK]
    assert [row.attempts for row in rows] == [5, 1]
    kept = tmp_path / "runs" / runs[1].run_id / "result.json.damaged-1"
    assert kept.read_text() == '{"run_id": "mdm'
    said = next(line for line in capsys.readouterr().out.splitlines() if "damaged" in line)
    assert said.startswith(f"{kept.with_name('result.json')}: not a run's result (not a JSON object")
    assert said.endswith("kept as result.json.damaged-1; the run goes on from its newest checkpoint, or begins again")


def test_a_result_that_was_changed_or_is_anothers_is_kept_aside_and_run_again(tmp_path, capsys) -> None:
    runs = make_sweep(tmp_path, ["ok", "ok", "ok"])
    sweep(tmp_path)
    changed, whole, copied = (tmp_path / "runs" / run.run_id / "result.json" for run in runs)
    changed.write_text(changed.read_text().replace('"loss": 2.5', '"loss": 2.4'))
    copied.write_bytes(whole.read_bytes())
    capsys.readouterr()
    for time_ in (1, 2):
        rows = sweep(tmp_path)
        assert [row.loss for row in rows] == [2.5, 2.5, 2.5]
        assert sorted(path.name for path in changed.parent.glob("*.damaged-*")) == ["result.json.damaged-1"]
        assert len(started(tmp_path)) == 5, time_
    said = capsys.readouterr().out
    assert f"{changed}: not a run's result (sha256 is not that of the content" in said
    assert f"{copied}: the result of another run, {runs[1].run_id}: kept as result.json.damaged-1" in said


def test_a_newer_versions_result_is_not_run_over(tmp_path, capsys) -> None:
    (run,) = make_sweep(tmp_path, ["ok"])
    sweep(tmp_path)
    path = tmp_path / "runs" / run.run_id / "result.json"
    tree = unseal(path.read_text(), since=3) | {"schema_version": 9}
    path.write_text(json.dumps(seal(tree)))
    assert main([str(tmp_path)], command=imitation(tmp_path)) == 1
    assert "result.json: schema_version = 9, and this mdm-jax knows 4: update it" in capsys.readouterr().err
    assert unseal(path.read_text(), since=3) == tree
    assert len(started(tmp_path)) == 1


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to share out"
)
def test_jobs_run_side_by_side_on_their_own_cores(tmp_path) -> None:
    make_sweep(tmp_path, ["slow"] * 4)
    before = os.sched_getaffinity(0)
    sweep(tmp_path, dataclasses.replace(QUICK, jobs=2))
    assert os.sched_getaffinity(0) == before
    entries = started(tmp_path)
    assert len(entries) == 4
    assert entries[1]["start"] - entries[0]["start"] < 0.8
    shares = {tuple(entry["cores"]) for entry in entries}
    assert len(shares) == 2
    assert sorted(core for share in shares for core in share) == sorted(before)


def test_more_jobs_than_cores_or_runs(tmp_path) -> None:
    make_sweep(tmp_path, ["ok", "crash"])
    rows = sweep(tmp_path, dataclasses.replace(QUICK, jobs=9))
    assert [row.status for row in rows] == [Status.OK, Status.FAILED]


def test_the_sweeps_folder_is_no_place_for_compiled_programs(tmp_path) -> None:
    make_sweep(tmp_path, ["ok"])
    sweep(tmp_path)
    mine = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
    assert started(tmp_path)[0]["jax"] == mine


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_runs_checkpoint_and_go_on_later(tmp_path, number: signal.Signals, code: int) -> None:
    runs = make_sweep(tmp_path, ["hang", "ok"])
    process = driver(tmp_path)
    folder = tmp_path / "runs" / runs[0].run_id
    pid = int(wait_for(folder / "hanging").read_text())
    os.killpg(process.pid, number)  # the whole group of the runner, as a terminal's Ctrl-C
    out, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (code, "")
    assert "go on with python -m isoflop.run" in out
    assert (folder / "checkpoint").read_text() == "saved"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with (tmp_path / "runs.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["running"]
    process = driver(tmp_path)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (0, "")
    assert "2 runs: 2 ok" in out


def test_a_second_stop_kills(tmp_path) -> None:
    (run,) = make_sweep(tmp_path, ["deaf"])
    process = driver(tmp_path)
    wait_for(tmp_path / "runs" / run.run_id / "deaf")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    said = next(line for line in process.stdout if line.startswith("stopping"))
    assert said == "stopping: 1 run saves its state, up to 5.0 min; press Ctrl-C again to end now\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "")
    assert "1 run: 1 running" in out


def test_a_run_that_ignores_the_stop_is_killed_in_time(tmp_path) -> None:
    (run,) = make_sweep(tmp_path, ["deaf"])
    stop = Stop()

    def later() -> None:
        wait_for(tmp_path / "runs" / run.run_id / "deaf")
        stop.signal = signal.SIGTERM

    thread = threading.Thread(target=later)
    thread.start()
    (row,) = sweep(tmp_path, dataclasses.replace(QUICK, stop_seconds=0.2), stop)
    thread.join()
    assert row.status is Status.RUNNING
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "runs" / run.run_id / "deaf").read_text()), 0)


def test_one_runner_at_a_time_even_after_it_was_killed(tmp_path, capsys) -> None:
    runs = make_sweep(tmp_path, ["hang"])
    process = driver(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child = int(wait_for(tmp_path / "runs" / runs[0].run_id / "hanging").read_text())
    assert main([str(tmp_path)]) == 1
    assert f"process {process.pid} is running it" in capsys.readouterr().err
    process.kill()
    process.wait()
    assert main([str(tmp_path)]) == 1
    assert f"its runs still train: wait for them, or stop them with kill {child}" in capsys.readouterr().err
    os.kill(child, signal.SIGTERM)
    wait_for(tmp_path / "runs" / runs[0].run_id / "checkpoint")
    deadline = time.monotonic() + 60
    while True:
        try:
            rows = sweep(tmp_path)
            break
        except ValueError:  # the orphan has saved, and is about to exit
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert [row.status for row in rows] == [Status.OK]


def test_a_run_that_another_process_trains_is_waited_for_and_not_recorded_as_failed(tmp_path, capsys) -> None:
    (run,) = make_sweep(tmp_path, ["held"])
    with ExitStack() as held:
        held.enter_context(hold_run(as_path(tmp_path / "runs" / run.run_id), print))

        def release_later() -> None:
            while len(started(tmp_path)) < 4:  # one more than a run that exits with 42 gets
                time.sleep(0.02)
            held.close()

        thread = threading.Thread(target=release_later)
        thread.start()
        (row,) = sweep(tmp_path, dataclasses.replace(QUICK, held_seconds=0.02))
        thread.join()
    assert (row.status, row.attempts) == (Status.OK, 1)
    assert f"process {os.getpid()} is running it" in capsys.readouterr().out


def test_terminal_shows_lines_and_a_bar_for_the_sweep_and_each_running_cell(tmp_path) -> None:
    trained, _ = make_sweep(tmp_path, ["training", "crash"])
    code, text = on_terminal(functools.partial(driver, tmp_path))
    assert code == 1
    bar = re.compile(rf"{trained.run_id} 1e\+11 .*step \d+/2000, loss 3.250, about \d+ s left".encode())
    assert bar.search(text)
    assert re.search(rb"sweep .*0/2 runs, about \d+ s left", text)
    assert b"[1/2] mdm-" in text
    assert b"RuntimeError: the imitation crashed [red]" in text
    assert b"2 runs: 1 ok, 1 failed" in text


def test_dry_run_says_what_would_be_done(tmp_path, capsys) -> None:
    runs = make_sweep(tmp_path, ["ok", "crash"])
    sweep(tmp_path)
    extra = pair(runs[0], Family.ARM)
    write_plan(tmp_path, [*runs, extra])
    capsys.readouterr()
    assert main([str(tmp_path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    ends = ["has a result (ok)", "has a result (failed)", "would run"]
    assert [line.partition(" d64 ")[2] or line.partition("d64 ")[2] for line in lines] == ends
    assert main([str(tmp_path), "--dry-run", "--retry-failed"]) == 0
    assert "would run again" in capsys.readouterr().out
    assert len(started(tmp_path)) == 2


def test_half_written_plan_runs_nothing(tmp_path, capsys) -> None:
    make_sweep(tmp_path, ["ok", "ok"])
    plan = tmp_path / "plan.jsonl"
    plan.write_text(plan.read_text()[:-40])
    imitated = functools.partial(main, command=imitation(tmp_path))
    assert f"{plan} line 2: half-written or damaged" in one_line(imitated, [str(tmp_path)], capsys)
    assert not started(tmp_path)
    assert not (tmp_path / "runs").exists()


def test_corpus_is_checked_before_any_run(tmp_path, capsys) -> None:
    make_sweep(tmp_path, ["ok"])
    (tmp_path / "data/manifest.json").unlink()
    error = one_line(functools.partial(main, command=imitation(tmp_path)), [str(tmp_path)], capsys)
    assert "prepare the corpus with python -m mdm_jax.data.prepare" in error
    assert not started(tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--jobs", "0"], "--jobs = 0"), (["--jobs", "x"], "--jobs"), (["--frobnicate"], "--frobnicate")],
)
def test_bad_flags_are_one_line(tmp_path, capsys, flags: list[str], said: str) -> None:
    make_sweep(tmp_path, ["ok"])
    assert said in one_line(main, [str(tmp_path), *flags], capsys)


def test_a_command_that_does_not_exist_is_one_line(tmp_path, capsys) -> None:
    make_sweep(tmp_path, ["ok"])
    assert main([str(tmp_path)], command=lambda _: [str(tmp_path / "absent")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_runs_are_trained_by_the_program_of_this_python(tmp_path) -> None:
    run = RunSpec()
    command = [sys.executable, "-m", "mdm_jax.main", "--plan", str(tmp_path / "plan.jsonl"), "--run-id", run.run_id]
    assert training_command(tmp_path)(run) == command
