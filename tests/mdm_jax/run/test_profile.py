"""`--profile`: the window's trace lies in the run's folder, and the run is the same run with the same result."""

import argparse

import pytest
from command_line import one_line
from running import assert_same, outcome

from mdm_jax.files.storage import as_path
from mdm_jax.main import main, step_window
from mdm_jax.spec import Family, to_json
from mdm_jax.train.profiler import Profiler


def test_the_window_is_written_and_changes_nothing(shop, whole, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    end = shop.run(spec, tmp_path, "--profile", "3:5")
    assert end.code == 0, end.said
    folder = tmp_path / spec.run_id / "profile"
    (line,) = [line for line in end.said.splitlines() if "profile" in line]
    assert line.startswith(f"profile from step 3 to at most 5 written to {folder}: open its .trace.json.gz at https://")
    assert len(list(folder.rglob("*.trace.json.gz"))) == len(list(folder.rglob("*.xplane.pb"))) == 1
    assert_same(outcome(tmp_path, spec), outcome(whole, spec))


def test_a_run_past_the_window_says_so(tmp_path) -> None:
    said: list[str] = []
    profiler = Profiler(range(3, 6), as_path(tmp_path / "profile"), said.append)
    profiler.announce(4)
    assert said == []
    profiler.announce(5)
    assert said == ["no profile: the run goes on after step 5, and the window ends at step 5"]
    assert not any(profiler.begins_at(step) for step in range(6, 20))
    Profiler(say=said.append).announce(10)
    assert len(said) == 1


def test_a_run_that_goes_on_inside_the_window_traces_the_rest_and_ends_the_trace_if_it_stops(tmp_path) -> None:
    said: list[str] = []
    profiler = Profiler(range(3, 9), as_path(tmp_path / "profile"), said.append)
    for step in (5, 6):
        assert profiler.begins_at(step) == (step == 5)
        profiler.before(step)
        assert not profiler.ends_at(step)
        profiler.after(step)
    profiler.close()
    profiler.close()
    assert [line.partition(" written to ")[0] for line in said] == ["profile from step 5 to at most 8"]
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_a_profile_that_cannot_be_written_is_an_error_in_words_only(tmp_path) -> None:
    said: list[str] = []
    (tmp_path / "profile").write_text("a file, where the folder should be")
    profiler = Profiler(range(1, 2), as_path(tmp_path / "profile"), said.append)
    profiler.before(1)
    profiler.after(1)
    assert len(said) == 1
    assert said[0].startswith("no profile: ")
    assert said[0].endswith("; the run goes on")
    assert not profiler.begins_at(1)


@pytest.mark.parametrize("text", ["", "0", "5:3", "0:3", "-1", "3:", ":3", "3-5", "a", "1:2:3", "1e3", "9" * 19])
def test_other_windows_are_refused(text) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be FIRST:LAST or FIRST, steps from 1 on"):
        step_window(text)


def test_a_window_after_the_last_step_is_refused_with_one_line(shop, tmp_path, capfd) -> None:
    spec = shop.spec(Family.ARM)
    (tmp_path / "plan.jsonl").write_text(to_json(spec) + "\n")
    command = ["--plan", str(tmp_path), "--run-id", spec.run_id, "--profile"]
    assert "--profile = 13: must be at most 12, the run's last step" in one_line(main, [*command, "10:13"], capfd)
    assert "--profile: '7:3': must be FIRST:LAST or FIRST" in one_line(main, [*command, "7:3"], capfd)
