"""What strangers' tables do to the numbers: nothing without a word."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from command_line import one_line

from analysis import check, fit_isoflop, read_runs
from analysis.checks.holdout import holdout
from analysis.figures.isoflop import plot_isoflop
from analysis.figures.loss import plot_loss
from analysis.fit import main as fit_main
from analysis.gap.__main__ import main as gap_main
from analysis.laws.envelope import fit_envelope
from analysis.minima.bootstrap import fit_law
from analysis.options import plain
from analysis.report.__main__ import main as report_main
from analysis.report.command import recipe_arguments
from analysis.runs.budgets import OFF_BUDGET
from analysis.runs.load import EVALUATED_AGAIN, numbers

ROOT = Path(__file__).resolve().parents[2]


def codes(runs: pd.DataFrame, **options: Any) -> dict[str, tuple[str, float]]:
    """Findings by code: severity and number."""
    fit = fit_isoflop(runs, **options)
    return {f.code: (f.severity.value, f.number) for f in check(fit.runs, fit)}


def reasons(runs: pd.DataFrame) -> list[str]:
    """Why each run is left out."""
    return [str(reason) for reason in runs["excluded_reason"]]


def sweep(**options: Any) -> pd.DataFrame:
    """Both families' rows, as a stranger has them."""
    return pd.DataFrame(sweeps.both(sd=0.004, **options))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a table and goes where it lies."""
    monkeypatch.chdir(tmp_path)

    def to(name: str, table: pd.DataFrame) -> str:
        table.to_csv(tmp_path / name, index=False)
        return name

    return to


def test_a_run_of_half_its_tokens_is_left_out_and_an_error() -> None:
    table = sweep()
    table.loc[3, ["tokens", "flops_6nd", "flops_with_head", "flops_exact"]] *= 0.5
    for stated in ("", "smdm_6nd"):
        runs = read_runs(table.assign(budget_convention=stated))
        fit = fit_isoflop(runs)
        assert reasons(fit.runs)[3] == OFF_BUDGET
        assert codes(runs)["off_budget"] == ("error", pytest.approx(0.5))
        assert len(fit.cells_of("arm")[0].u) == 6
    assert "off_budget" not in codes(read_runs(sweep()))


@pytest.mark.parametrize("convention", ["with_head", "exact"])
def test_budgets_are_checked_under_their_own_convention(convention: str) -> None:
    table = sweep()
    table[f"flops_{convention}"] *= 1.3
    table["budget"] = table.groupby(["family", "budget"])[f"flops_{convention}"].transform("median")
    scale = table["budget"] / table[f"flops_{convention}"]
    table["tokens"], table[f"flops_{convention}"] = table["tokens"] * scale, table["budget"]
    table["flops_6nd"] = 6 * table["params_non_embedding"] * table["tokens"]
    for stated in (convention, ""):
        assert "off_budget" not in codes(read_runs(table.assign(budget_convention=stated)))
    wrong = read_runs(table.assign(budget_convention="smdm_6nd"))
    assert {f.code for f in check(wrong)} >= {"off_budget"}


def test_budgets_of_no_known_convention_are_a_warning_and_stay() -> None:
    table = sweep().drop(columns=["flops_6nd", "flops_with_head", "flops_exact"])
    table["budget"] *= 1.4
    runs = read_runs(table)
    assert codes(runs)["unknown_convention"] == ("warning", pytest.approx(1 / 1.4))
    assert set(fit_isoflop(runs).runs["excluded_reason"]) == {""}


def test_realised_budgets_are_one_budget() -> None:
    table = sweep()
    batch = 2.6e7
    table["tokens"] = np.round(table["tokens"] / batch) * batch
    table["budget"] = table["flops_6nd"] = 6 * table["params_non_embedding"] * table["tokens"]
    assert len(np.unique(numbers(table, "budget"))) > 60
    fit = fit_isoflop(read_runs(table))
    assert len(fit.cells) == 10
    assert set(fit.minima["status"]) == {"ok"}
    assert codes(read_runs(table))["merged_budgets"][0] == "note"
    below = float(np.sort(numbers(fit.minima_of("arm"), "budget"))[-2])
    assert set(holdout(fit, below).query("family == 'arm'")["budget"]) == {fit.cells_of("arm")[-1].budget}
    assert "merged_budgets" not in codes(read_runs(sweep()))


def test_budgets_that_none_planned_are_refused() -> None:
    rng = np.random.default_rng(0)
    table = sweep()
    table["tokens"] *= np.exp(rng.uniform(-1, 1, len(table)))
    table["budget"] = table["flops_6nd"] = 6 * table["params_non_embedding"] * table["tokens"]
    with pytest.raises(ValueError, match=r"budget: .* map the planned budget with columns='budget=THEIRS'"):
        fit_isoflop(read_runs(table))
    dense = table.assign(budget=np.geomspace(1e18, 4e18, len(table)))
    with pytest.raises(ValueError, match=r"70 runs lie without a step from 1e[+]18 to 4e[+]18"):
        fit_isoflop(read_runs(dense))


def test_text_where_a_number_belongs_is_named() -> None:
    table = sweep().astype(object)
    table.loc[2, "loss"], table.loc[4, "params_non_embedding"], table.loc[5, "wall_seconds"] = "2,9", "125M", "1:30"
    runs = read_runs(table)
    assert reasons(runs)[2] == "loss is not a number"
    assert reasons(runs)[4] == "params_non_embedding is not a number"
    assert reasons(runs)[5] == ""
    said = {f.message.partition(":")[0]: f.message for f in check(runs) if f.code == "unread_numbers"}
    assert "1 of 70 cells hold no number, the first is '2,9'" in said["loss"]
    assert set(said) == {"loss", "params_non_embedding", "wall_seconds"}
    with pytest.raises(ValueError, match=r"loss_se_mc: none of its 70 values is a number, the first is '±0.003'"):
        read_runs(table.assign(loss_se_mc="±0.003"))


@pytest.mark.parametrize(("value", "reason"), [(-0.003, "loss_se_mc is negative"), (np.inf, "loss_se_mc is infinite")])
def test_impossible_errors_of_a_loss_leave_the_run_out(value: float, reason: str) -> None:
    table = sweep()
    table.loc[7, "loss_se_mc"] = value
    assert reasons(read_runs(table))[7] == reason
    assert codes(read_runs(table))[f"{reason.replace(' ', '_')}_runs"] == ("warning", 1.0)


def test_errors_that_half_the_runs_name_are_found() -> None:
    table = sweep().assign(loss_se_mc=0.003)
    assert "partial_loss_se_mc" not in codes(read_runs(table))
    table.loc[:9, "loss_se_mc"] = np.nan
    assert codes(read_runs(table))["partial_loss_se_mc"] == ("warning", 10.0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("loss=a,loss=b", "loss is mapped twice"),
        ("loss=a,loss_se_mc=a", "'a' is mapped to loss and to loss_se_mc, two quantities"),
    ],
)
def test_a_column_is_mapped_once(columns: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_runs(sweep().assign(a=1.0, b=2.0), columns)


def test_headers_that_stand_twice_are_refused_and_blanks_forgiven(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("family,params_non_embedding,tokens,loss,loss\narm,1e8,1e9,2.5,3.5\n")
    with pytest.raises(ValueError, match=r"t\.csv: has 2 columns named 'loss'; rename"):
        read_runs(tmp_path / "t.csv")
    twice = pd.concat([sweep(), sweep()[["loss"]]], axis=1)
    with pytest.raises(ValueError, match="has 2 columns named 'loss'"):
        read_runs(twice)
    text = "\ufefffamily , params_non_embedding, tokens, loss\n ARM , 1e8 , 1e9, 2.5\n"
    (tmp_path / "t.csv").write_text(text)
    row = read_runs(tmp_path / "t.csv").iloc[0]
    assert (row["family"], row["params_non_embedding"], row["loss"], row["excluded_reason"]) == ("arm", 1e8, 2.5, "")


def test_one_run_evaluated_twice_is_no_repetition() -> None:
    once = sweeps.rows(sd=0.004)
    again = [row | {"run_id": row["run_id"] + "b", "loss": row["loss"] + 1e-4} for row in once]
    runs = read_runs(pd.DataFrame([*once, *again]))
    assert list(runs["excluded_reason"]).count(EVALUATED_AGAIN) == len(once)
    assert fit_isoflop(runs).noise["arm"] == fit_isoflop(sweeps.table(once)).noise["arm"]
    assert codes(runs)["the_same_run_evaluated_again_runs"] == ("warning", float(len(once)))
    other = [row | {"seed": 1.0} for row in again]
    assert fit_isoflop(sweeps.table([*once, *other])).noise["arm"].replicate_dof == len(once)


def test_seeds_that_nothing_tells_apart_are_no_repetitions_but_equal_losses_may_be() -> None:
    """Two specs of one seed differ in something that the table does not show: neither a copy nor a repetition."""
    once: list[dict[str, Any]] = [row | {"spec_hash": "a"} for row in sweeps.rows(sd=0.004)]
    other: list[dict[str, Any]] = [
        row | {"run_id": row["run_id"] + "b", "loss": row["loss"] + 0.01, "spec_hash": "b"} for row in once
    ]
    fit = fit_isoflop(sweeps.table([*once, *other]))
    assert set(fit.runs["excluded_reason"]) == {""}
    assert fit.noise["arm"].replicate_dof == 0
    rounded = [row | {"loss": round(row["loss"], 2), "seed": None} for row in once]
    copies = [row | {"run_id": row["run_id"] + "b"} for row in rounded]
    runs = sweeps.table([*rounded, *copies])
    assert set(runs["excluded_reason"]) == {""}
    assert codes(runs)["unseeded_repetitions"] == ("note", float(len(once)))
    unnamed = pd.DataFrame([*rounded, *rounded]).drop(columns="run_id")
    assert list(read_runs(unnamed)["excluded_reason"]).count("duplicate of another run") == len(once)


def test_strangers_names_of_the_families_are_mapped_and_those_there_listed(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sweep()
    table["family"] = table["family"].replace({"arm": "AR", "mdm": "MDLM"})
    name = write("fam.csv", table)
    assert gap_main([name, "--bootstrap", "0"]) == 1
    assert "families with runs: ar, mdlm. Name yours by --arm NAME" in capsys.readouterr().err
    assert gap_main([name, "--bootstrap", "0", "--arm", "AR", "--mdm", "mdlm"]) == 0
    assert "interpolated" in capsys.readouterr().out
    absent = {f.code: f for f in check(read_runs(table))}["family_absent"]
    assert "families with usable runs: 'ar', 'mdlm'" in absent.message
    for families, message in (
        ({"arm": "gpt"}, "arm = 'gpt', but no run is of that family; those of the table: ar, mdlm"),
        ({"arm": "AR", "mdm": "AR"}, "both 'ar'"),
        ({"rnn": "AR"}, "'rnn' is no family of ours"),
    ):
        with pytest.raises(ValueError, match=message):
            read_runs(table, families=families)
    with pytest.raises(ValueError, match="the table has a family 'arm' too"):
        read_runs(sweep(), families={"arm": "mdm"})


def test_the_gap_and_the_surfaces_say_what_is_wrong_with_the_runs(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sweep()
    table.loc[50:, "loss_kind"] = "nll"
    table["seed"] = None
    name = write("mixed.csv", table)
    for main, arguments in ((gap_main, ["--bootstrap", "0"]), (fit_main, ["--approach", "parametric"])):
        assert main([name, *arguments]) == 0
        assert "error: MDM: losses of 2 kinds in one family" in capsys.readouterr().out
        assert main([name, *arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["findings"]
        assert ("mixed_loss_kind", "error") in {(f["code"], f["severity"]) for f in found}


def test_one_weak_family_does_not_take_the_others_surface(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = sweep()
    name = write("weak.csv", table[(table["family"] == "arm") | (table.index >= 67)])
    assert fit_main([name, "--approach", "parametric"]) == 0
    printed = capsys.readouterr().out
    assert "mdm: no surface: " in printed
    assert "yes" in printed
    name = write("weaker.csv", table[(table.index < 3) | (table.index >= 67)])
    assert fit_main([name, "--approach", "parametric"]) == 1
    assert "no family has a surface: arm: " in capsys.readouterr().err
    assert fit_main([name, "--approach", "parametric", "--window", "4"]) == 1
    assert "--window: goes with IsoFLOP curves" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "loss=nan"], "loss = nan: must be a positive number"),
        (["--at", "flops=inf"], "flops = inf: must be a positive number"),
        (["--at", "loss=-1"], "loss = -1: must be a positive number"),
        (["--at", "flops=2.9"], "was loss=2.9 meant?"),
        (["--at", "loss=1e19"], "was flops=1e+19 meant?"),
        (["--floor", "9"], "floor = 9: must be from 0 to below the lowest loss"),
        (["--floor", "-1"], "floor = -1: must be from 0"),
        (["--noise-sd", "1e300"], "noise_sd = 1e+300: must be a standard deviation in nats, 0 to 10"),
        (["--bootstrap", "1"], "too few for a 0.95 interval"),
    ],
)
def test_impossible_requests_are_one_line_and_exit_1(
    arguments: list[str], message: str, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in one_line(gap_main, [write("t.csv", sweep()), "--bootstrap", "0", *arguments], capsys)


def test_options_that_are_none_are_one_line(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--noise-sd", "x"], ["--curve", "spline"], ["--at", "loss=x"]):
        assert arguments[0] in one_line(gap_main, ["t.csv", *arguments], capsys)


@pytest.mark.parametrize("module", ["analysis.fit", "analysis.gap"])
def test_a_reader_that_has_seen_enough_is_no_error(module: str, write: Any, tmp_path: Path) -> None:
    name = tmp_path / write("t.csv", sweep())
    extra = ["--bootstrap", "0"] if module == "analysis.gap" else []
    command = [sys.executable, "-m", module, str(name), *extra]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        error = child.stderr.read()
        assert (child.wait(), error) == (0, b"")


def test_flops_that_only_some_minima_have_are_found() -> None:
    table = sweep()
    table.loc[table["budget"] > 1e20, "flops_exact"] = np.nan
    runs = read_runs(table)
    fit = fit_isoflop(runs)
    found = {f.message.partition(":")[0]: f for f in check(fit.runs, fit) if f.code == "partial_flops"}
    assert "exact FLOPs are known for 4 of 5 usable minima" in found["ARM"].message
    assert found["MDM"].number == 2.0


def test_an_envelope_sorts_its_curves_and_refuses_what_is_no_loss() -> None:
    share = np.linspace(0.01, 1, 200)
    curves = pd.concat([
        pd.DataFrame({
            "run_id": row["run_id"], "family": "arm", "params_non_embedding": row["params_non_embedding"],
            "tokens": row["tokens"] * share, "flops_6nd": row["budget"] * share,
            "loss": sweeps.ARM.loss(row["params_non_embedding"], row["tokens"] * share),
        })
        for row in sweeps.rows(budgets=np.array([1e20]), sizes=9)
    ])  # fmt: skip
    sorted_points = fit_envelope(curves).points
    assert len(sorted_points) > 30
    pd.testing.assert_frame_equal(fit_envelope(curves.sample(frac=1.0, random_state=0)).points, sorted_points)
    for value in (-1.0, np.nan):
        bad = curves.reset_index(drop=True)
        bad.loc[300, "loss"] = value
        with pytest.raises(ValueError, match=re.escape(f"has loss = {value:g} (1 such rows in all)")):
            fit_envelope(bad)


def test_figures_take_the_level() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.004, sizes=5)))

    def widths(level: float) -> np.ndarray:
        axes = plot_loss(fit, level=level).axes[0]
        return np.array([np.ptp(np.asarray(path.vertices)[:, 1]) for path in axes.collections[0].get_paths()])

    assert (widths(0.5) < 0.5 * widths(0.95)).all()
    legend = [text.get_text() for text in plot_isoflop(fit, level=0.9).legends[0].get_texts()]
    assert "minimum, 90%" in legend


@pytest.mark.usefixtures("small_pictures")
def test_a_report_says_what_its_losses_are_and_how_to_make_it_again(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sweep(sizes=5).drop(columns=["loss_kind"]).rename(columns={"loss": "val"})
    table["vocab_size"], table["seq_len"], table["eval_tokens"] = 257, 512, 2**20
    table["family"] = table["family"].replace("arm", "ar")
    name = write("t.csv", table)
    arguments = ["--columns", "loss=val", "--arm", "ar", "--curve", "cubic", "--weights", "equal", "--bootstrap", "200"]
    assert report_main([name, *arguments]) == 0
    assert "warning: 50 of 50 runs do not say what their loss is" in capsys.readouterr().out
    page = (tmp_path / "t-report" / "report.html").read_text()
    for said in (
        "an upper bound on the negative log-likelihood (the runs do not say)",
        "a vocabulary of 257, 512 tokens a sequence, 1.05M evaluated",
        "Budgets count 6ND without head",
        "--weights equal --columns loss=val --arm ar",
        "NELBO?",
    ):
        assert said in page


def test_a_recipes_weights_are_in_the_command() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.rows()), weights="equal", curve="cubic")
    assert recipe_arguments(fit.recipe) == " --curve cubic --weights equal"


def test_laws_may_weigh_the_minima(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = sweep()
    table.loc[table["budget"] == 1e18, "loss_se_mc"] = 0.05
    name = write("t.csv", table)
    laws = []
    for extra in ([], ["--weighted"]):
        assert fit_main([name, "--json", *extra]) == 0
        laws.append(json.loads(capsys.readouterr().out)["laws"])
    fit = fit_isoflop(read_runs(table))
    for found, weighted in zip(laws, (False, True), strict=True):
        law = fit_law(fit, "arm", "n_opt", weighted=weighted)
        assert law is not None
        exponent = next(r["exponent"] for r in found if (r["family"], r["quantity"]) == ("arm", "n_opt"))
        assert exponent == pytest.approx(law.exponent, rel=1e-9)
    assert laws[0] != laws[1]
    assert fit_main([name, "--approach", "parametric", "--weighted"]) == 1
    assert "--weighted: weighs IsoFLOP minima" in capsys.readouterr().err


def test_an_open_end_is_not_an_unknown_one() -> None:
    assert plain({"a": np.inf, "b": -np.inf, "c": np.nan, "d": 1.5}) == {"a": "inf", "b": "-inf", "c": None, "d": 1.5}
