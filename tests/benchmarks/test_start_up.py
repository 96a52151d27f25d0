"""The benchmark of the start: what ends a measurement, what is an error, and that the rounds are turned."""

import json
import time

import pytest

from benchmarks.start_up import RESULT, Command, lines_of, measure, script_commands, timed

WRITES = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
(folder / "0000000000.jsonl").write_text("row")
time.sleep(60)
"""


def test_a_run_ends_with_its_first_row(tmp_path):
    folder = tmp_path / "run" / "metrics"
    folder.mkdir(parents=True)
    (folder / "0000000000.jsonl").write_text("a row of an earlier run")
    begin = time.perf_counter()
    seconds, _ = timed(Command(("-c", WRITES, str(folder)), until=folder), tmp_path)
    assert 0 < seconds <= time.perf_counter() - begin < 30


def test_a_command_that_fails_is_an_error_with_its_last_line(tmp_path):
    with pytest.raises(ValueError, match=r"exit 3: $"):
        timed(Command(("-c", "raise SystemExit(3)")), tmp_path)
    with pytest.raises(ValueError, match=r"exit 1: no such run$"):
        timed(Command(("-c", "raise SystemExit('no such run')"), until=tmp_path / "run" / "metrics"), tmp_path)
    assert timed(Command(("-c", "raise SystemExit(3)"), (3,)), tmp_path)[0] > 0


def test_each_command_is_measured_once_a_round(tmp_path):
    log = tmp_path / "log"
    words = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    found = measure({name: Command(("-c", words, str(log), name)) for name in "ab"}, 2, tmp_path)
    assert log.read_text() == "abba"
    assert all(len(one["rounds"]) == 2 and one["quickest"] == min(one["rounds"]) for one in found.values())
    assert [line.split()[0] for line in lines_of(found)] == ["command", "a", "b"]


def test_all_console_scripts_are_measured_with_their_first_error():
    commands = script_commands()
    assert commands["mdm-fit --help"].words == ("-m", "analysis.fit", "--help")
    assert commands["mdm-plan: its first error"].codes == (1,)


def test_the_planner_answers_within_its_bound():
    """As measured on the machines of the results; nothing is timed here."""
    for found in json.loads(RESULT.read_text()).values():
        assert found["mdm-plan of the quickstart"]["seconds"] < 0.5
        assert found["mdm-plan --help"]["seconds"] < 0.5
