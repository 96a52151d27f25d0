"""The benchmark of the train step: the peer is SMDM's model, and both sides answer in turn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.train_step import Contestant, product_peak, table

HERE = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_peer_has_the_logits_of_smdms_code(reference_data) -> None:
    python = os.environ.get("MDM_TRANSFORMERS_PYTHON")
    if python is None:
        pytest.skip("needs torch: name a Python that has it in MDM_TRANSFORMERS_PYTHON")
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, HERE / "peer_torch.py", "--check", reference_data / "smdm_golden"]
    said = subprocess.run(command, env=alone, capture_output=True, text=True, check=True).stdout
    found = re.fullmatch(r"largest difference of a logit: (\S+)\n", said)
    assert found is not None
    assert float(found.group(1)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mdm", "arm"])
def test_a_process_makes_steps_when_it_is_asked_to(family) -> None:
    shape = ["--family", family, "--rows", "2", "--length", "16", "--vocab", "50"]
    own = Contestant("own", [sys.executable, str(HERE / "own_step.py"), *shape, "--set", "layers=scan"])
    assert len(own.run(2)) == 2
    assert all(seconds > 0 for seconds in own.run(3))
    end = own.end()
    assert end["step_flops"] > 6 * 6e6 * 32  # at least 6ND of the size 6
    assert end["peak_bytes"] > 1e8


def test_a_process_that_ends_is_named() -> None:
    with pytest.raises(ValueError, match=r"^own: the process ended"):
        Contestant("own", [sys.executable, "-c", "pass"]).run(1)


def test_the_table_has_a_line_for_each_contestant() -> None:
    row = {"seconds": 2.0, "ratio_to_first": 1.0, "tokens_per_second": 2048.0, "share": 0.5, "peak_bytes": 1.5e9}
    header, first = table({"scan": row})
    assert header.split("  ")[0] == "step"
    assert first.split() == ["scan", "2.000", "1.00", "2,048", "50%", "1.50"]
    assert product_peak(8, 16) > 0
