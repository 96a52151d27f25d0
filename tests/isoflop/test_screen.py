"""The plan's one screen: what a person reads before starting a sweep, and what is said louder than the rest."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import one_line

from isoflop.plan.__main__ import main
from isoflop.planfile import read_plan
from mdm_jax.spec import FlopConvention
from mdm_jax.spec.counting import trained_flops

ROOT = Path(__file__).parents[2]
TOO_LARGE = ["--budgets", "1e15,3e15,1e16", "--sizes", "6,19,34,48", "--seq-len", "512", "--batch", "16"]
SMALL = "--vocab-size 257 --seq-len 64 --batch 8 --budgets 1e10,2e10 --sizes 1x8,1x12"
SMALL += " --set run.hardware.mesh_data=1 run.hardware.microbatches=1"


@pytest.mark.parametrize(
    ("experiment", "flags"),
    [
        ("quickstart", ""),
        ("objective_weights", ""),
        ("smdm_isoflop", ""),
        ("wsd_sweep", ""),
        ("flop_accounting", SMALL),
    ],
)
def test_experiments_fit_one_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], experiment: str, flags: str
) -> None:
    config = ["--config", str(ROOT / f"experiments/{experiment}.py"), *flags.split()]
    assert main([*config, "--out", str(tmp_path), "--set", "run.data.directory=nothing"]) == 0
    lines = capsys.readouterr().out.replace(str(tmp_path), "OUT").replace(str(ROOT), "ROOT").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines[:-2])) <= 100
    assert lines[-1] == "then: python -m isoflop.run OUT"
    assert lines[-2].startswith(
        f"next: python -m mdm_jax.data.prepare --config ROOT/experiments/{experiment}.py --set "
    )


def test_rows_and_totals_are_the_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(ROOT / "experiments/quickstart.py"), "--out", str(tmp_path)]) == 0
    out, runs = capsys.readouterr().out, read_plan(tmp_path)
    rows = [line.split() for line in out.splitlines() if line.startswith(("arm ", "mdm "))]
    assert [row[:5] for row in rows[:2]] == [
        ["arm", "4e+09", "7", "1.05k-25.2k", "1.53k"],
        ["arm", "1e+10", "7", "1.05k-32.9k", "2.64k"],
    ]
    assert sum(int(row[2]) for row in rows) == len(runs) == 52
    flops = sum(trained_flops(run, FlopConvention.SMDM_6ND) for run in runs)
    assert f"In all: 52 runs, {flops:.3g} FLOPs (smdm_6nd), " in out
    assert not any(convention in out for convention in ("with_head", "chinchilla", " 2484 "))


def test_a_useless_sweep_is_said_loudly_and_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOO_LARGE, "--out", str(tmp_path / "a b")]) == 0
    out, error = capsys.readouterr()
    first, second = error.splitlines()
    assert first.startswith("WARNING: at 5 of 6 budgets every size is larger than the expected optimum")
    assert "on this machine, one run after the other: a day is enough for smaller sizes at budgets 37" in second
    said = " ".join(out.split())
    assert all(" ".join(line.split()) in said for line in (first, second))
    assert "not checked" not in out
    assert f"then: python -m isoflop.run '{tmp_path / 'a b'}'" in out.splitlines()
    assert main([*TOO_LARGE, "--out", str(tmp_path / "b"), "--hardware", "h100:8"]) == 0
    assert "a day is enough" not in capsys.readouterr().err


def test_warnings_are_shown_once_where_both_streams_are_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "isoflop.plan", *TOO_LARGE, "--out", str(tmp_path)]
    together = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert together.stdout.count("WARNING") == 2


BROKEN = {
    "def get_config(:": "config.py line 1: invalid syntax",
    "\nimport nothing_like_this": "config.py line 2: No module named 'nothing_like_this'",
    "def get_config():\n    return 1 / 0": "config.py line 2: division by zero",
    "get_config = 3": "config.py: 'int' object is not callable",
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_experiment_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    (tmp_path / "config.py").write_text(source)
    error = one_line(main, ["--config", str(tmp_path / "config.py"), "--out", str(tmp_path)], capsys)
    assert BROKEN[source] in error


@pytest.mark.parametrize(
    ("out", "setting", "said"),
    [
        ("file", "run.optim.b2=0.95", "file/plan.jsonl not written: File exists"),
        ("file/below", "run.optim.b2=0.95", "file/below/plan.jsonl not written: Not a directory"),
        ("out", "run=1", "--set run: a section, not a value; its keys are cell, data, "),
        ("out", "sweep.placement=null", "--set sweep.placement: a section, not a value"),
    ],
)
def test_what_a_stranger_mistypes_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, setting: str, said: str
) -> None:
    (tmp_path / "file").touch()
    config = ["--config", str(ROOT / "experiments/quickstart.py"), "--set", setting]
    assert said in one_line(main, [*config, "--out", str(tmp_path / out)], capsys)
