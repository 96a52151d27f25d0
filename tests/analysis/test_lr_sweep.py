"""Learning-rate sweeps and groups: what the analysis keeps of a cell, and what it refuses to pool."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from command_line import one_line

from analysis import check, fit_isoflop, fit_parametric, read_runs
from analysis.fit import main as fit_main
from analysis.gap.__main__ import main as gap_main
from analysis.report.__main__ import main as report_main
from analysis.runs.learning_rates import DROPPED, LrSweep, lr_sweep_of
from analysis.runs.load import numbers, select
from mdm_jax.files.results import Status, result_of, write_result
from mdm_jax.spec import CellSpec, FlopConvention, RunSpec

RATES = (1e-4, 2e-4, 4e-4)


def swept(best: float = 2e-4, **options: Any) -> list[dict[str, Any]]:
    """The ARM's sweep, each cell at every rate; another rate than the best costs .1 nats for each factor of 2."""
    return [
        row | {"run_id": f"{row['run_id']}-{rate:g}", "lr": rate, "loss": row["loss"] + 0.1 * abs(np.log2(rate / best))}
        for row in sweeps.rows(**options)
        for rate in RATES
    ]


def test_the_best_rate_of_each_cell_is_what_is_fitted() -> None:
    runs, plain = sweeps.table(swept()), sweeps.table(sweeps.rows())
    assert set(runs.loc[runs["excluded_reason"] == "", "lr"]) == {2e-4}
    assert list(runs["excluded_reason"]).count(DROPPED) == 2 * len(plain)
    assert len(runs) == 3 * len(plain)
    found, wanted = fit_isoflop(runs).minima, fit_isoflop(plain).minima
    for name in ("n_opt", "loss_opt"):
        np.testing.assert_array_equal(found[name], wanted[name])


def test_reading_a_written_table_again_changes_nothing(tmp_path: Path) -> None:
    runs = sweeps.table(swept())
    runs.to_csv(tmp_path / "runs.csv", index=False)
    pd.testing.assert_frame_equal(read_runs(tmp_path / "runs.csv"), runs)


def test_cells_differ_in_anything_but_the_rate() -> None:
    rows = swept(budgets=np.array([1e18]))
    for index, row in enumerate(rows):
        row["batch_size"] = 64 * (1 + index % 3)
    assert set(sweeps.table(rows)["excluded_reason"]) == {""}


def test_seeds_are_averaged_before_the_rate_is_chosen() -> None:
    """The rate with the luckiest run is not the best one, and one that lost a seed stands behind one with all."""
    base = sweeps.rows(budgets=np.array([1e18]), sizes=1)[0]
    losses = {1e-4: (2.6, 2.6), 2e-4: (2.7, 2.45), 4e-4: (2.3, float("nan"))}
    rows = [
        base | {"run_id": f"{lr}-{seed}", "lr": lr, "seed": float(seed), "loss": loss,
                "status": "ok" if loss == loss else "diverged"}
        for lr, pair in losses.items() for seed, loss in enumerate(pair)
    ]  # fmt: skip
    runs = sweeps.table(rows)
    assert list(runs["excluded_reason"]) == [DROPPED, DROPPED, "", "", DROPPED, "status diverged"]


@pytest.mark.parametrize(
    ("best", "diverged", "edges"), [(2e-4, None, 0), (1e-4, None, 1), (4e-4, None, 1), (2e-4, 4e-4, 0), (4e-4, 4e-4, 0)]
)
def test_a_best_rate_at_the_edge_is_a_finding(best: float, diverged: float | None, edges: int) -> None:
    """A rate that diverged was tried too: the best one below it is not at the edge."""
    rows = swept(best=best, budgets=np.array([1e18]), sizes=5)
    for row in rows:
        if row["lr"] == diverged:
            row |= {"status": "diverged", "loss": float("nan")}
    runs = sweeps.table(rows)
    dropped = 5 if diverged else 10
    assert lr_sweep_of(runs) == LrSweep(cells=5, dropped=dropped, at_edge=5 * edges)
    (finding,) = [f for f in check(runs) if f.code.startswith("lr_sweep")]
    assert f"5 cells were run with several learning rates: the best stands, {dropped} runs do not" in finding.message
    assert ("in 5 of them the best is the lowest or the highest tried" in finding.message) == bool(edges)
    assert not [f for f in check(runs) if DROPPED in f.message]


def test_one_rate_a_cell_is_no_finding() -> None:
    runs = sweeps.table([row | {"lr": 1e-4 * (1 + i)} for i, row in enumerate(sweeps.rows())])
    assert lr_sweep_of(runs) == LrSweep(0, 0, 0)
    assert set(runs["excluded_reason"]) == {""}


# groups


def grouped() -> list[dict[str, Any]]:
    """Two MDMs in groups, and one ARM without a group that both are compared with."""
    mdm = sweeps.rows("mdm", sweeps.MDM, sweeps.BUDGETS["mdm"])
    rows = [row | {"group": "", "budget_convention": "smdm_6nd"} for row in sweeps.rows()]
    for group, shift in (("elbo", 0.0), ("uniform", 0.1)):
        rows += [
            row
            | {"run_id": row["run_id"] + group, "group": group, "loss": row["loss"] + shift}
            | {"budget_convention": "smdm_6nd"}
            for row in mdm
        ]
    return rows


def test_a_group_is_read_with_the_family_that_it_lacks() -> None:
    runs = read_runs(pd.DataFrame(grouped()), where="group=uniform")
    assert set(runs["group"]) == {"uniform", ""}
    assert set(runs.loc[runs["group"] == "", "family"]) == {"arm"}
    fit = fit_isoflop(runs)
    wanted = fit_isoflop(sweeps.table(sweeps.both()))
    np.testing.assert_allclose(fit.minima_of("arm")["n_opt"], wanted.minima_of("arm")["n_opt"])
    shift = numbers(fit.minima_of("mdm"), "loss_opt") - numbers(wanted.minima_of("mdm"), "loss_opt")
    np.testing.assert_allclose(shift, 0.1)


def test_runs_without_a_group_do_not_join_one_of_their_own_family() -> None:
    plain = [row | {"group": ""} for row in sweeps.rows("mdm", sweeps.MDM, sweeps.BUDGETS["mdm"])]
    rows = pd.DataFrame([*grouped(), *plain])
    assert set(read_runs(rows, where="group=elbo").query("family == 'mdm'")["group"]) == {"elbo"}
    assert set(read_runs(rows, where="group=")["group"]) == {""}
    with pytest.raises(ValueError, match=r"several groups.*\(none\), elbo, uniform"):
        fit_isoflop(read_runs(rows))
    only = read_runs(rows, where=["family=mdm"])
    with pytest.raises(ValueError, match="several groups"):
        fit_isoflop(select(only, only["group"] != "uniform"))


def test_several_groups_are_refused_with_their_names() -> None:
    runs = read_runs(pd.DataFrame(grouped()))
    for fit in (fit_isoflop, lambda table: fit_parametric(table, family="mdm")):
        with pytest.raises(ValueError, match=r"several groups.*elbo, uniform.*--where group=elbo"):
            fit(runs)


def test_several_losses_of_a_family_are_refused_with_their_names() -> None:
    """Two trainings pooled without a group, as when tables are put together."""
    trained = {"arm": "nll", "mdm": "count"}
    rows = [row | {"objective_variant": trained[row["family"]]} for row in sweeps.both()]
    other = [row | {"run_id": row["run_id"] + "-bell", "objective_variant": "count:bell"} for row in rows[-7:]]
    table = pd.DataFrame([*rows, *other])
    for fit in (fit_isoflop, lambda runs: fit_parametric(runs, family="mdm")):
        with pytest.raises(ValueError, match=r"mdm .* several losses \(count, count:bell\).*objective_variant=count"):
            fit(read_runs(table))
    chosen = read_runs(table, where="objective_variant=count")
    assert sorted(chosen["run_id"]) == sorted(row["run_id"] for row in rows)  # with the ARM, which has no such loss
    assert len(fit_isoflop(chosen).minima) == len({(row["family"], row["budget"]) for row in rows})


def test_budgets_of_several_conventions_are_refused() -> None:
    rows = [row | {"budget_convention": "exact" if i % 2 else "with_head"} for i, row in enumerate(sweeps.rows())]
    with pytest.raises(ValueError, match=r"several conventions \(exact, with_head\).*--where budget_convention=exact"):
        fit_isoflop(sweeps.table(rows))
    fit_isoflop(sweeps.table([row | {"budget_convention": "exact" if i else ""} for i, row in enumerate(rows[:7])]))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("group", "must be COLUMN=VALUE, such as group=exact"),
        ("colour=red", "with COLUMN one of run_id, family"),
        ("group=elb", r"no run has it; group is \(none\), elbo, uniform"),
        ("n_layers=two", "no run has it"),
    ],
)
def test_conditions_that_choose_nothing_are_named(where: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_runs(pd.DataFrame(grouped()), where=where)


def test_group_convention_and_chinchilla_come_from_plan_or_result(tmp_path: Path) -> None:
    cell = CellSpec(budget=1e12, convention=FlopConvention.EXACT, group="mine")
    row = result_of(RunSpec(cell=cell), Status.OK, loss=2.5)
    write_result(tmp_path / "runs" / row.run_id / "result.json", row)
    (run,) = read_runs(tmp_path).to_dict("records")
    assert (run["group"], run["budget_convention"]) == ("mine", "exact")
    older = pd.DataFrame([run]).drop(columns=["flops_chinchilla", "group", "budget_convention"])
    (again,) = read_runs(older).to_dict("records")
    assert again["flops_chinchilla"] == row.flops_chinchilla
    assert (again["group"], again["budget_convention"]) == ("", "")


def test_the_command_lines_read_one_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.csv"
    pd.DataFrame(grouped()).to_csv(file, index=False)
    for command in (fit_main, gap_main, report_main):
        error = one_line(command, [str(file)], capsys)
        assert re.search(r"several groups.*: \(none\), elbo, uniform\. Choose one: --where group=elbo", error)
    chosen = ["--where", "group=uniform"]
    assert fit_main([str(file), *chosen, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert {row["family"] for row in tree["minima"]} == {"arm", "mdm"}
    assert gap_main([str(file), *chosen, "--bootstrap", "200"]) == 0
