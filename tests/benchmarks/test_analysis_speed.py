"""The benchmark of the analysis: its tables and sweeps are whole, and a measurement has all its parts."""

import json

from analysis import fit_isoflop, read_runs
from benchmarks.analysis_speed import RESULT, lines_of, main, measured, write_sweep


def test_a_sweeps_folder_has_its_runs(tmp_path):
    write_sweep(tmp_path, 150)
    runs = read_runs(tmp_path)
    assert len(runs) == 150
    assert set(runs["excluded_reason"]) == {""}
    assert len(set(runs["spec_hash"])) == 150
    minima = fit_isoflop(runs).minima
    assert set(minima["status"]) == {"ok"}
    assert len(minima) == 20


def test_a_bootstrap_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    out = tmp_path / "found.json"
    assert main(["--rows", "400", "--runs", "0", "--repeats", "1", "--out", str(out)]) == 0
    ((name, one),) = next(iter(json.loads(out.read_text()).values())).items()
    assert name == "bootstrap of 400 rows"
    assert one["peak_bytes"] > 2e7
    assert 0 < one["read"] + one["fit"] + one["bootstrap"] <= one["seconds"]
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "read"
    assert row.startswith(name)


def test_a_report_has_no_parts():
    found = {"report of 3 runs": measured(dict)}
    assert lines_of(found)[1].split()[:4] == ["report", "of", "3", "runs"]
    assert lines_of(found)[1].split()[4:6] == ["0.00", "0.00"]


def test_its_result_is_kept_by_machine():
    for found in json.loads(RESULT.read_text()).values():
        assert {"bootstrap of 100000 rows", "report of 2000 runs"} <= set(found)


def test_a_measurement_that_fails_shows_why(tmp_path, capfd):
    out = tmp_path / "found.json"
    assert main(["--rows", "30", "--runs", "0", "--repeats", "1", "--out", str(out)]) == 1
    first, second = capfd.readouterr().err.splitlines()
    assert first == "mdm_jax: --rows = 30: must be a multiple of 20"
    assert second == "mdm_jax: --measure bootstrap 30: exit 1; see its error above"
    assert not out.exists()
