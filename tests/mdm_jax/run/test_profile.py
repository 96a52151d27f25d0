"""`--profile`: the window's trace lies in the run's folder, and the run is the same run with the same result."""

import argparse

import pytest
from command_line import one_line
from running import assert_same, checkpoints, killed_at, outcome

from mdm_jax.main import main, step_window
from mdm_jax.spec import Family, to_json


def test_the_window_is_written_and_changes_nothing(shop, whole, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    end = shop.run(spec, tmp_path, "--profile", "3:5")
    assert end.code == 0, end.said
    folder = tmp_path / spec.run_id / "profile"
    (line,) = [line for line in end.said.splitlines() if "profile" in line]
    assert line.startswith(f"profile from step 3 to at most 5 written to {folder}: open its .trace.json.gz at https://")
    assert len(list(folder.rglob("*.trace.json.gz"))) == len(list(folder.rglob("*.xplane.pb"))) == 1
    assert_same(outcome(tmp_path, spec), outcome(whole, spec))


def test_a_run_past_the_window_says_so(shop, whole, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    killed_at(whole, tmp_path, spec, 10)
    end = shop.run(spec, tmp_path, "--profile", "10")
    assert end.code == 0, end.said
    assert "no profile: the run goes on after step 10, and the window ends at step 10" in end.said.splitlines()
    assert not (tmp_path / spec.run_id / "profile").exists()


def test_a_profile_that_cannot_be_written_does_not_end_the_run(shop, whole, tmp_path) -> None:
    spec = shop.spec(Family.ARM)
    killed_at(whole, tmp_path, spec, 10)
    (tmp_path / spec.run_id / "profile").write_text("a file, where the folder should be")
    end = shop.run(spec, tmp_path, "--profile", "11:12")
    assert end.code == 0, end.said
    assert any(line.startswith("no profile: ") for line in end.said.splitlines()), end.said
    assert checkpoints(tmp_path, spec)[-1] == 12


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
