"""From statements to the reverse curse: an ARM that reads "A is B" answers in that direction, and not in the other."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENT = str(Path(__file__).parents[3] / "experiments" / "reverse_curse.py")
DATA = "data/reverse_curse"


@pytest.mark.slow
def test_a_tiny_arm_has_the_reverse_curse(tmp_path):
    def run(module: str, *words: str) -> None:
        subprocess.run([sys.executable, "-m", module, *words], cwd=tmp_path, check=True, capture_output=True)

    facts = ["--facts", "3", "--relations", "parent,company", "--repeats", "60"]
    general = ["--general", "pydoc", "--general-bytes", "600000", "--validation-fraction", "0.2"]
    run("mdm_jax.tasks.reverse_curse", "make", "--out", DATA, *facts, *general)
    run("mdm_jax.data.prepare", "--config", EXPERIMENT)
    size = ["--families", "arm", "--budgets", "4e10", "--sizes", "1x32", "--set", "sweep.seeds=[0]"]
    run("isoflop.plan", "--config", EXPERIMENT, "--out", "runs", *size)
    run("isoflop.run", "runs")
    run("mdm_jax.tasks.reverse_curse", "evaluate", "runs", "--tests", f"{DATA}/tests.jsonl", "--out", "out")
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        rows = {
            (row["order"], row["direction"]): row
            for row in csv.DictReader(file)
            if (row["relation"], row["wording"]) == ("all", "trained")
        }
    same, reversed_ = rows["one_direction", "same"], rows["one_direction", "reversed"]
    assert float(same["exact"]) > 0.4
    assert float(reversed_["exact"]) < 0.1
    assert float(same["preference"]) > 0.75
    assert abs(float(reversed_["preference"]) - 0.5) < 0.25
