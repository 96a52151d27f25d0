"""The notebooks run from top to bottom without a warning, and each is one notebook in two formats."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "analysis" / "notebooks").glob("*.py"))
RUN_ALL = "import runpy, sys\nfor path in sys.argv[1:]:\n    runpy.run_path(path)"


def percent_cells(text: str) -> list[tuple[str, str]]:
    """(type, source) of the cells of a percent script."""
    cells = []
    for chunk in re.split(r"^# %%", text.split("# ---\n")[2], flags=re.MULTILINE)[1:]:
        head, _, source = chunk.partition("\n")
        source = source.strip("\n")
        if "[markdown]" in head:
            cells.append(("markdown", "\n".join(re.sub(r"^# ?", "", line) for line in source.split("\n"))))
        else:
            cells.append(("code", source))
    return cells


def test_notebooks_run(reference_free: dict[str, str]) -> None:
    """All in one process: what they share is imported once."""
    command = [sys.executable, "-W", "error", "-c", RUN_ALL, *map(str, NOTEBOOKS)]
    done = subprocess.run(command, cwd=ROOT, env=reference_free, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "at the ARM's 1e19 FLOPs: 15.5, extrapolated" in done.stdout
    assert "floor 1.5: 17 at 1e+19, 31 at 1e+20, 54 at 1e+21" in done.stdout


@pytest.fixture
def reference_free() -> dict[str, str]:
    """The environment without the reference data: notebooks need only what the project holds."""
    kept = {name: value for name, value in os.environ.items() if name != "MDM_REFERENCE_DATA"}
    return kept | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_formats_hold_the_same_cells_and_no_output(script: Path) -> None:
    book = json.loads(script.with_suffix(".ipynb").read_text())
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]] == percent_cells(script.read_text())
    assert not any(cell.get("outputs") for cell in book["cells"])
    assert book["metadata"]["jupytext"]["formats"] == "ipynb,py:percent"
