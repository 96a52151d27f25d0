"""One interval for one question: every door to the gap prints the same one for the same loss on the same sweep."""

import inspect
import json
from pathlib import Path

import imitated_sweep
import numpy as np
import pytest

from analysis import bootstrap, compute_gap, fit_isoflop, gap_sensitivity, middle_of_overlap, read_runs, write_report
from analysis.gap.__main__ import main as gap_main
from analysis.report.fits_json import as_json
from analysis.report.headline import headline, text_summary
from analysis.report.summary import Summary, summarise
from analysis.sampling import DRAWS, SEED
from isoflop.planfile import write_plan
from isoflop.refine.__main__ import main as refine_main
from mdm_jax.files.results import write_result

QUICKSTART = Path(__file__).parents[2] / "experiments/results/quickstart/run_table.csv"
Interval = tuple[float, float, float]
"""(ratio, lower, upper)."""


def from_python(source: Path, convention: str) -> Interval:
    """What the documented lines of Python give."""
    fit = fit_isoflop(read_runs(source))
    arm, mdm = fit.frontier("arm", convention), fit.frontier("mdm", convention)
    loss = middle_of_overlap(arm, mdm)
    assert loss is not None
    gap = compute_gap(arm, mdm, grid=np.array([loss]), draws=bootstrap(fit))
    return float(gap.ratio[0]), float(gap.lower[0]), float(gap.upper[0])


def from_the_report(summary: Summary, convention: str) -> list[Interval]:
    """What the report's headline and its table of sensitivities print."""
    tree = as_json(summary)
    row = next(
        row for row in tree["sensitivity"]
        if (row["curve"], row["convention"], row["law"]) == ("quadratic", convention, "interpolated")
    )  # fmt: skip
    said = [tree["headline"]["gap"][convention], row]
    return [(value["ratio"], value["lower"], value["upper"]) for value in said]


def from_the_command(source: Path, convention: str, capsys: pytest.CaptureFixture) -> Interval:
    """What `python -m analysis.gap` prints."""
    assert gap_main([str(source), "--convention", convention, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["gaps"]
    row = next(row for row in rows if row["law"] == "interpolated")
    return row["ratio"], row["lower"], row["upper"]


def test_the_functions_behind_the_doors_draw_alike() -> None:
    for door, number in {bootstrap: "n", gap_sensitivity: "draws", summarise: "n", write_report: "n"}.items():
        parameters = inspect.signature(door).parameters
        assert (parameters[number].default, parameters["seed"].default) == (DRAWS, SEED), door


@pytest.mark.slow
def test_all_doors_print_one_interval_of_the_published_sweep(capsys: pytest.CaptureFixture) -> None:
    known = from_python(QUICKSTART, "smdm_6nd")
    assert known[1] < 0.8 * known[0] < known[0] < known[2]
    summary = summarise(read_runs(QUICKSTART))
    for found in (*from_the_report(summary, "smdm_6nd"), from_the_command(QUICKSTART, "smdm_6nd", capsys)):
        assert found == pytest.approx(known, rel=1e-9)
    told = f"{known[0]:.3g} [{known[1]:.3g}, {known[2]:.3g}]"
    assert told in text_summary(summary) and told in headline(summary)  # noqa: PT018


@pytest.mark.parametrize("report", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_all_doors_print_one_interval_of_an_imitated_sweep(
    report: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plan = imitated_sweep.grid(imitated_sweep.GRID)
    write_plan(tmp_path, plan)
    for run in plan:
        row = imitated_sweep.result(run, 0.005)
        folder = tmp_path / "runs" / run.run_id
        folder.mkdir(parents=True)
        write_result(folder / "result.json", row)
    assert refine_main([str(tmp_path), "--json"]) == 0
    gap = json.loads(capsys.readouterr().out)["gap"]
    convention = gap["convention"]
    known = from_python(tmp_path, convention)
    assert known[1] < known[0] < known[2]
    assert (gap["ratio"], gap["lower"], gap["upper"]) == pytest.approx(known, rel=1e-9)
    assert gap["interval_factor"] == pytest.approx((known[2] / known[1]) ** 0.5, rel=1e-6)
    found = [from_the_command(tmp_path, convention, capsys)]
    if report:
        found += from_the_report(summarise(read_runs(tmp_path)), convention)
    for interval in found:
        assert interval == pytest.approx(known, rel=1e-9)
    assert refine_main([str(tmp_path)]) == 0
    assert f"95% interval {known[1]:.3g} to {known[2]:.3g}" in capsys.readouterr().out
