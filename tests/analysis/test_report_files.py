"""A report's files are whole or absent, and its page does not break options over two lines."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pandas as pd
import synthetic_sweeps as sweeps

from analysis.report.page import with_code

ROOT = Path(__file__).resolve().parents[2]
STOPPED_BEFORE_FITS_JSON = """
import signal, sys
from analysis.report.__main__ import main
from analysis.report.page import with_code

def stop(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("fits.json"):
        signal.raise_signal(signal.SIGINT)

sys.addaudithook(stop)
sys.exit(main())
"""
"""A report that is stopped as by Ctrl-C when fits.json is written under its temporary name."""


def test_options_are_code_that_does_not_break_and_strings_stay_escaped() -> None:
    said = with_code("<b> fit --curve cubic: or --where group=VALUE (--scatter ignore leaves it out)")
    assert said == (
        "&lt;b&gt; fit <code>--curve cubic</code>: or <code>--where group=VALUE</code> "
        "(<code>--scatter ignore</code> leaves it out)"
    )
    style = resources.files("analysis.report").joinpath("templates/style.css").read_text()
    assert "nowrap" in style.partition("code { ")[2].partition("}")[0]


def test_ctrl_c_ends_in_one_line_and_leaves_whole_files(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    pd.DataFrame(sweeps.both(sd=0.005, sizes=5)).to_csv(table, index=False)
    command = [sys.executable, "-c", STOPPED_BEFORE_FITS_JSON, str(table), "--bootstrap", "200"]
    folder = tmp_path / "runs-report"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mdm_jax: interrupted\n")
    written = [file for file in folder.rglob("*") if file.is_file()]
    assert {file.name for file in written if file.parent == folder} == {"run_table.csv"}
    figures = [file.read_bytes() for file in written if file.parent == folder / "figures"]
    assert len(figures) == 16
    assert all(raw.endswith((b"</svg>\n", b"IEND\xaeB`\x82")) for raw in figures)
