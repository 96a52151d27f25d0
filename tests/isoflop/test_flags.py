"""Numbers that no sweep can have are refused by the planner in one line, and so are files that it cannot write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import one_line
from limited import NO_BYTECODE

from isoflop.plan.__main__ import main
from isoflop.run.__main__ import main as run

SIZED = "--budgets 1e18 --sizes 6"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--budgets 1e308 --sizes 6", "budget = 1e+308: must be above 0 FLOPs and at most 1e+30"),
        ("--budgets 1e19,1e31", "sweep.placement.budgets = [1e+19, 1e+31]: must be above 0 FLOPs and at most 1e+30"),
        ("--budgets=-0.0", "above 0 FLOPs"),
        ("--budgets=-0.0 --sizes 6", "above 0 FLOPs"),
        ("--budgets inf --sizes 6", "finite"),
        ("--budgets 5e-324 --sizes 6", "too small for one step"),
        ("--budgets 1e18,1.0e18 --sizes 6", "are the same run"),
        (f"{SIZED} --set run.optim.lr_peak={'9' * 5000}", "--set run.optim.lr_peak: not a value (Exceeds the limit"),
        (f"{SIZED} --set run.optim.weight_decay={'9' * 400}", "--set run.optim.weight_decay: not a value"),
        (
            f"{SIZED} --set sweep.seeds=[{','.join(map(str, range(9999)))}]",
            "cells of the sweep = 19998: must be",
        ),
        (f"{SIZED} --flops-per-second inf", "--flops-per-second = inf: must be from 1 to 1e+25"),
        (f"{SIZED} --flops-per-second 5e-324", "--flops-per-second = 5e-324: must be from 1 to 1e+25"),
        (f"{SIZED} --run-overhead inf", "--run-overhead = inf"),
        (f"{SIZED} --hardware v5e --price inf", "--price = inf"),
        (f"{SIZED} --hardware v5e --mfu 5e-324", "--mfu = 5e-324"),
    ],
)
def test_numbers_that_cannot_be_are_one_line(tmp_path: Path, capsys, arguments: str, said: str) -> None:
    error = one_line(main, [*arguments.split(), "--out", str(tmp_path)], capsys)
    assert said in error
    assert len(error) < 400
    assert not (tmp_path / "plan.jsonl").exists()


def test_a_plan_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The disk's error itself names no file."""
    command = ["-m", "isoflop.plan", *SIZED.split(), "--out", str(tmp_path / "out")]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "limited", sys.executable, *command]  # one block
    done = subprocess.run(
        limited, env=os.environ | NO_BYTECODE, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"mdm_jax: {tmp_path / 'out' / 'plan.jsonl'} not written: File too large\n"


def test_commands_to_give_next_quote_the_folder(tmp_path: Path, capsys) -> None:
    out = tmp_path / "my sweep"
    assert run([str(out)]) == 1
    assert f"write it with python -m isoflop.plan --out '{out}'\n" in capsys.readouterr().err
    assert main([*SIZED.split(), "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"then: python -m isoflop.run '{out}'\n")
