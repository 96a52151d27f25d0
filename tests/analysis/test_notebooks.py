"""The notebooks: each is one notebook in two formats, and shows the text and the tables that the code gives today.

nbmake executes the `.ipynb` as tests of their own. They are committed with their outputs, for those who read them on a
forge; what changes is reviewed in the `.py`. To write the `.ipynb` anew from the `.py`: `make notebooks`, which is

    python tests/analysis/test_notebooks.py
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "analysis" / "notebooks").glob("*.py"))
RUN_ALL = """
import jupytext, sys, warnings
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell

class Tables(DisplayHook):
    def __call__(self, result=None):
        if hasattr(result, "_repr_html_") and (table := result._repr_html_()):
            print(table)

shell = InteractiveShell.instance(displayhook_class=Tables)
warnings.simplefilter("error")  # IPython lets warnings of deprecation pass
for path in sys.argv[1:]:
    print("FILE", path)
    shell.reset(new_session=False)
    for cell in jupytext.read(path)["cells"]:
        if cell["cell_type"] == "code":
            shell.run_cell(cell["source"]).raise_error()
"""
MOST_BYTES = 400_000
HOW = "if the change is meant, run `make notebooks` and commit the .ipynb"


def cells(book: Any) -> list[tuple[str, str]]:
    """(type, source) of each cell."""
    return [(cell["cell_type"], cell["source"]) for cell in book["cells"]]


def outputs(script: Path) -> list[Any]:
    """All outputs of the committed notebook."""
    book: Any = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    return [output for cell in book["cells"] for output in cell.get("outputs", [])]


def shown_text(output: Any) -> str:
    """What the output prints, or the HTML of its table; nothing for a figure."""
    if output["output_type"] == "stream":
        return output["text"]
    table = output["data"].get("text/html")
    return f"{table}\n" if table else ""


def test_the_notebooks_show_what_their_code_prints(tmp_path: Path) -> None:
    """All in one process, without the reference data, warnings as errors."""
    kept = {name: value for name, value in os.environ.items() if name != "MDM_REFERENCE_DATA"}
    command = [sys.executable, "-W", "error", "-c", RUN_ALL, *map(str, SCRIPTS)]
    env = kept | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = dict(part.split("\n", 1) for part in done.stdout.split("FILE ")[1:])
    for script in SCRIPTS:
        assert "".join(shown_text(output) for output in outputs(script)) == printed[str(script)], HOW
    assert "at the ARM's 1e19 FLOPs: 15.5, extrapolated" in done.stdout
    assert "floor 1.5: 17 at 1e+19, 31 at 1e+20, 54 at 1e+21" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_both_formats_are_one_notebook(script: Path) -> None:
    book: Any = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert cells(book) == cells(jupytext.read(script)), HOW
    assert book["metadata"]["jupytext"]["formats"] == "ipynb,py:percent"
    assert jupytext.writes(book, fmt="py:percent").split("# ---\n")[2] == script.read_text().split("# ---\n")[2], HOW


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_outputs_are_text_tables_and_figures_only(script: Path) -> None:
    kinds = {output.get("name", output["output_type"]) for output in outputs(script)}
    assert kinds <= {"stdout", "display_data", "execute_result"}
    shown = [output["data"] for output in outputs(script) if "data" in output]
    assert shown
    assert all("image/png" in data or "text/html" in data for data in shown)
    assert script.with_suffix(".ipynb").stat().st_size < MOST_BYTES


def renew(script: Path) -> None:
    """Writes the `.ipynb` of a script, executed; the same code gives the same file but for its pictures' encoder."""
    from nbclient import NotebookClient

    book: Any = jupytext.read(script)
    client = NotebookClient(book, timeout=120, kernel_name="python3", record_timing=False, coalesce_streams=True)
    client.execute(cwd=str(script.parent))
    for index, cell in enumerate(book["cells"]):
        cell["id"] = f"{script.stem}-{index}"
        for output in cell.get("outputs", []):
            if "data" in output:  # the object's address, or all its numbers, stand in its text
                output["data"]["text/plain"] = "<Table>" if "text/html" in output["data"] else "<Figure>"
    book["metadata"] = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": book["metadata"]["kernelspec"],
        "language_info": {"name": "python"},
    }
    nbformat.write(book, script.with_suffix(".ipynb"))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)
    for one in SCRIPTS:
        renew(one)
