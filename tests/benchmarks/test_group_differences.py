"""Losses of groups are subtracted cell by cell, and runs that are no part of a comparison are left out."""

from pathlib import Path

import pandas as pd
import pytest
from command_line import one_line

from analysis import read_runs
from benchmarks.group_differences import differences, main


def table() -> pd.DataFrame:
    cells = {"family": "mdm", "budget": 6e9, "params_non_embedding": 1e4, "tokens": 1e5, "seed": [0, 1, 2, 0, 1]}
    return pd.DataFrame(cells | {"group": ["a", "a", "a", "b", "b"], "loss": [1.0, 2.0, 9.0, 1.5, 2.7]})


def test_differences_of_groups_are_taken_cell_by_cell() -> None:
    runs = table()
    expected = {"cells": 2, "loss": 2.1, "difference": 0.6, "se": 0.1, "cells below": 0}
    assert differences(read_runs(runs), "a").loc["b"].to_dict() == pytest.approx(expected)
    more = {**runs.iloc[3].to_dict(), "loss": 3.0}
    others = [more | {"status": "diverged"}, more | {"seed": 5, "group": ""}, more | {"seed": 2, "loss": float("nan")}]
    longer = pd.concat([runs.assign(status="ok"), pd.DataFrame([{"status": "ok"} | row for row in others])])
    assert differences(read_runs(longer), "a").loc["b"].to_dict() == pytest.approx(expected)
    unnamed = differences(read_runs(runs.drop(columns="budget")), "a")
    assert unnamed.loc["b"].to_dict() == pytest.approx(expected)


def test_nothing_to_subtract_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, runs = tmp_path / "runs.csv", table()
    runs.to_csv(path, index=False)
    assert "--base c: must be one of a, b" in one_line(main, [str(path), "--base", "c"], capsys)
    assert "no such file" in one_line(main, [str(tmp_path / "absent"), "--base", "a"], capsys)
    runs.drop(columns="group").to_csv(path, index=False)
    assert "no run has a group" in one_line(main, [str(path), "--base", "a"], capsys)
    pd.concat([runs, runs.iloc[:1].assign(loss=4.0, lr=1.0, objective_variant="x")]).to_csv(path, index=False)
    assert "two runs of a cell" in one_line(main, [str(path), "--base", "a"], capsys)
    runs.to_csv(path, index=False)
    figure = tmp_path / "differences.svg"
    assert main([str(path), "--base", "a", "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"<?xml")
    assert "cells below" in capsys.readouterr().out
