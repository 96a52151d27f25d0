"""What an analyst chooses: floors, presets, hold-out, sensitivity, envelope; and the published points."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from command_line import one_line
from published_points import points, published

from analysis import compute_gap, fit_isoflop, fit_power_law
from analysis.checks.holdout import holdout
from analysis.fit import main as fit_main
from analysis.gap.__main__ import main as gap_main
from analysis.gap.sensitivity import _with_curve, gap_sensitivity
from analysis.laws.envelope import fit_envelope
from analysis.laws.power_law import compare_slopes
from analysis.minima.cells import Recipe
from analysis.minima.fit import fit_recipe
from analysis.minima.presets import SMDM
from analysis.published import published_frontier, published_points
from analysis.runs.load import numbers, records, select
from analysis.runs.training_curves import read_curves

ROOT = Path(__file__).resolve().parents[2]
SMDM_SIDES = [published_frontier("smdm_2024", family) for family in ("arm", "mdm")]


def chosen(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows whose columns hold these values."""
    return select(table, np.all([table[name] == value for name, value in wanted.items()], axis=0))


def test_the_published_points_are_our_readings(reference_data: Path) -> None:
    for family in ("arm", "mdm"):
        for quantity, figure in (("loss", "scale_loss"), ("params_non_embedding", "scale_para")):
            ours, theirs = (
                published_points("smdm_2024", family, quantity),
                points(reference_data, family.upper(), figure),
            )
            assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
            assert ours[1] == pytest.approx(theirs[1], rel=1e-6)
    rows = published(reference_data, "sahoo2026_digitised_minima.csv")
    known = [float(r["optimal_val_loss"]) for r in rows]
    assert [*published_frontier("sahoo_2026", "arm").loss, *published_frontier("sahoo_2026", "mdm").loss] == known
    with pytest.raises(ValueError, match="sahoo_2026 has no params_non_embedding of 'arm'; it has arm's loss, mdm's"):
        published_points("sahoo_2026", "arm", "params_non_embedding")
    with pytest.raises(ValueError, match="must be one of smdm_2024"):
        published_points("kaplan", "arm")


def test_the_papers_own_lines_and_sixteen() -> None:
    """Least squares give 45.6 C^-.0642 and 50.24 C^-.0625, a gap of 15.5 at 1e19, and N 1.88 to 1.96."""
    arm, mdm = (fit_power_law(side.flops, side.loss) for side in SMDM_SIDES)
    assert (arm.coefficient, arm.exponent) == pytest.approx((45.53, -0.06416), rel=2e-3)
    assert (mdm.coefficient, mdm.exponent) == pytest.approx((50.21, -0.06248), rel=2e-3)
    gap = compute_gap(SMDM_SIDES[0], SMDM_SIDES[1], "flops", "power_law", np.array([1e19]))
    assert gap.ratio[0] == pytest.approx(15.5, abs=0.1)
    n_arm, n_mdm = (fit_power_law(*published_points("smdm_2024", f, "params_non_embedding")) for f in ("arm", "mdm"))
    swept = np.array([6e18, 1e20])
    assert n_arm.predict(swept) / n_mdm.predict(swept) == pytest.approx([1.88, 1.96], abs=0.02)


def test_the_drawn_lines_give_the_papers_size_ratio(reference_data: Path) -> None:
    rows = published(reference_data, "smdm_digitised_lines.csv")
    law = {(r["figure"], r["family"]): (float(r["coefficient"]), float(r["exponent"])) for r in rows}
    (k1, a1), (k2, a2) = law["scale_para", "ARM"], law["scale_para", "MDM"]
    swept = np.geomspace(6e18, 1e20, 9)
    ratio = k1 * swept**a1 / (k2 * swept**a2)
    assert (ratio.min(), ratio.max()) == pytest.approx((1.88, 1.96), abs=0.01)


def test_a_floor_of_one_and_a_half_makes_seventeen_thirty_one_fifty_four() -> None:
    where = np.array([1e19, 1e20, 1e21])
    gap = compute_gap(SMDM_SIDES[0], SMDM_SIDES[1], "flops", "given_floor", where, floor=1.5)
    assert gap.ratio == pytest.approx([17, 31, 54], abs=0.5)
    assert gap.floors == (1.5, 1.5)
    assert not gap.floor_at_bound
    own = compute_gap(SMDM_SIDES[0], SMDM_SIDES[1], "flops", "own_floors", where)
    assert np.isnan(own.floor)
    assert own.floors[0] != own.floors[1]
    for law, floor, message in (("given_floor", None, "must be given"), ("power_law", 1.5, "only with it"),
                                ("given_floor", 2.4, "below the lowest loss")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            compute_gap(SMDM_SIDES[0], SMDM_SIDES[1], law=law, floor=floor)


def test_own_floors_are_found_where_they_differ() -> None:
    from analysis import Frontier

    c = np.geomspace(1e18, 1e20, 6)
    arm, mdm = Frontier("arm", c, 1.6 + 900 * c**-0.15), Frontier("mdm", 8 * c, 1.9 + 700 * c**-0.14)
    gap = compute_gap(arm, mdm, law="own_floors", grid=np.array([2.6]))
    assert gap.floors == pytest.approx((1.6, 1.9), rel=1e-5)
    assert gap.ratio[0] == pytest.approx(8 * (0.7 / 700) ** (-1 / 0.14) / (1.0 / 900) ** (-1 / 0.15), rel=1e-3)


def test_slopes_are_compared_by_welchs_t() -> None:
    from scipy import stats

    arm, mdm = (fit_power_law(side.flops, side.loss) for side in SMDM_SIDES)
    test = compare_slopes(arm, mdm)
    lines = [stats.linregress(np.log(side.flops), np.log(side.loss)) for side in SMDM_SIDES]
    se = [float(line.stderr) for line in lines]  # pyright: ignore[reportAttributeAccessIssue]
    assert test.se == pytest.approx(np.hypot(se[0], se[1]), rel=1e-6)
    assert test.dof == pytest.approx((se[0] ** 2 + se[1] ** 2) ** 2 / (se[0] ** 4 / 3 + se[1] ** 4 / 3), rel=1e-6)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(test.t), test.dof), rel=1e-9)
    assert compare_slopes(arm, arm).p == pytest.approx(1.0)
    two = fit_power_law(np.array([1e18, 1e19]), np.array([3.0, 2.5]))
    assert np.isnan(compare_slopes(arm, two).p)


def test_slopes_that_are_equal_are_called_different_as_often_as_promised() -> None:
    """400 pairs of five points each: at level .05 between 2% and 9% rejected."""
    rng = np.random.default_rng(2)
    c = np.geomspace(1e18, 1e20, 5)
    rejected = 0
    for _ in range(400):
        first, second = (fit_power_law(c, 40 * c**-0.06 * np.exp(0.004 * rng.standard_normal(5))) for _ in range(2))
        rejected += compare_slopes(first, second).p < 0.05
    assert 0.02 < rejected / 400 < 0.09


def test_the_smdm_preset_is_least_squares_throughout() -> None:
    rows = [row | {"loss_se_mc": 0.02 if i % 3 else 0.0} for i, row in enumerate(sweeps.both(sd=0.004))]
    fit = fit_recipe(sweeps.table(rows), SMDM.recipe)
    minima = []
    for cell in fit.cells_of("mdm"):
        c2, c1, c0 = np.polyfit(cell.u, cell.y, 2)
        minima.append(c0 - c1**2 / (4 * c2))
    mdm = fit.frontier("mdm")
    assert mdm.loss == pytest.approx(minima, rel=1e-10)
    line = np.polyfit(np.log(mdm.flops), np.log(minima), 1)
    gap = compute_gap(fit.frontier("arm"), mdm, law=SMDM.law, grid=np.array([3.0]))
    assert np.log(gap.flops_mdm[0]) == pytest.approx((np.log(3.0) - line[1]) / line[0], rel=1e-9)


def test_a_law_with_a_floor_predicts_held_out_budgets_and_the_power_law_does_not() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.0005)))
    told = holdout(fit, 1.7e20)
    assert set(told["budget"]) == {2.56e20, 6.4e20, 2.56e21}
    worst = {
        law: np.abs(numbers(chosen(told, quantity="loss_opt", law=law), "error")).max()
        for law in ("saturating", "power_law")
    }
    assert worst["saturating"] < 0.004 < worst["power_law"]
    assert np.abs(numbers(chosen(told, quantity="n_opt"), "error")).max() < 0.05
    arm = chosen(told, family="arm", quantity="loss_opt", law="power_law")
    below = numbers(fit.minima_of("arm"), "budget") <= 1.7e20
    law = fit_power_law(
        numbers(fit.minima_of("arm"), "budget")[below], numbers(fit.minima_of("arm"), "loss_opt")[below]
    )
    assert numbers(arm, "predicted") == pytest.approx(law.predict(np.array([2.56e20])), rel=1e-4)
    for budget, message in ((1e10, "no usable run lies at or below it"), (1e30, "one above; usable budgets: ARM has")):
        with pytest.raises(ValueError, match=message):
            holdout(fit, budget)


def test_a_prediction_interval_covers_when_the_law_is_true() -> None:
    """300 laws of six points: 95% of the seventh points lie inside, known to 1.3%."""
    rng = np.random.default_rng(3)
    c = np.geomspace(1e18, 1e20, 6)
    inside = 0
    for _ in range(300):
        law = fit_power_law(c, 40 * c**-0.06 * np.exp(0.003 * rng.standard_normal(6)))
        seventh = np.log(40 * 3e20**-0.06) + 0.003 * rng.standard_normal()
        low, high = law.prediction_interval(np.array([3e20]))
        inside += bool(np.log(low[0]) < seventh < np.log(high[0]))
    assert 0.91 < inside / 300 < 0.985


def test_sensitivity_compares_all_choices_at_one_loss() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.003)))
    table = gap_sensitivity(fit, floors=(1.5, 1.82), draws=200)
    assert len(table) == 3 * 3 * 5 + 3
    loss = float(numbers(table, "loss")[0])
    assert set(numbers(table, "loss")) == {loss}
    assert {row["reason"] for row in records(table)} == {""}
    truth = sweeps.MDM.compute(loss) / sweeps.ARM.compute(loss)
    near = chosen(table, convention="smdm_6nd", law="interpolated")
    assert set(near["curve"]) == {"quadratic", "cubic", "akima"}
    assert numbers(near, "ratio") == pytest.approx(truth, rel=0.05)
    assert (numbers(near, "lower") < truth).all()
    assert (numbers(near, "upper") > truth).all()
    beyond = gap_sensitivity(fit, at="flops", where=1e22, draws=0, floors=(9.0,))
    assert {row["support"] for row in records(chosen(beyond, law="interpolated"))} == {"extrapolated"}
    assert all("below the lowest loss" in row["reason"] for row in records(chosen(beyond, law="given_floor")))
    laws = {row["law"]: row["ratio"] for row in records(chosen(beyond, curve="cubic", convention="smdm_6nd"))}
    assert laws["shared_floor"] > 2 * laws["power_law"]


def write_curves(folder: Path, rows: list[dict], steps: int = 400) -> Path:
    """A sweep whose runs log the loss that a run of that length would have: an envelope without undecayed rates."""
    for row in rows:
        run = folder / "runs" / row["run_id"]
        (run / "metrics").mkdir(parents=True)
        (run / "result.json").write_text(json.dumps(row | {"steps": steps, "lr_final_fraction": 0.1}))
        surface = {"arm": sweeps.ARM, "mdm": sweeps.MDM}[row["family"]]
        for first, last in ((0, steps // 2), (steps // 2, steps)):
            lines = []
            for step in range(first + 1, last + 1):
                loss = surface.loss(row["params_non_embedding"], row["tokens"] * step / steps)
                lines.append(json.dumps({"step": step, "loss": loss, "lr": 1e-3}) + "\n")
            (run / "metrics" / f"{first:010d}.jsonl").write_text("".join(lines))
    return folder


def test_the_envelope_of_training_curves_finds_the_frontier(tmp_path: Path) -> None:
    rows = sweeps.rows(budgets=np.array([1e20]), sizes=25, span=20.0)
    sweep = write_curves(tmp_path, rows)
    with (sweep / "runs" / rows[0]["run_id"] / "metrics" / "0000000200.jsonl").open("a") as file:
        file.write('{"step": 401, "lo')
    curves = read_curves(sweep)
    assert len(curves) == 25 * 400
    envelope = fit_envelope(curves, smoothing=0.02)
    ok = chosen(envelope.points, status="ok")
    assert len(ok) > 20
    c = numbers(ok, "flops")
    assert numbers(ok, "loss") == pytest.approx(sweeps.ARM.best_loss(c), rel=2e-3)
    assert 6 * numbers(ok, "n") * numbers(ok, "d") == pytest.approx(c, rel=1e-6)
    assert envelope.laws["arm", "n"].exponent == pytest.approx(sweeps.ARM.n_exponent, abs=0.05)
    assert len(envelope.frontier("arm").loss) == len(ok)
    assert fit_main([str(sweep), "--approach", "envelope", "--json"]) == 0


def test_curves_of_a_weighted_loss_are_refused(tmp_path: Path) -> None:
    rows = sweeps.rows("mdm", sweeps.MDM, np.array([1e20]), sizes=3)
    sweep = write_curves(tmp_path, [row | {"objective_variant": "count:bell"} for row in rows], steps=10)
    with pytest.raises(ValueError, match="training loss of count:bell is not the NELBO"):
        read_curves(sweep)


def test_curves_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sweeps.rows(budgets=np.array([1e20]), sizes=3)
    sweep = write_curves(tmp_path, rows, steps=10)
    (sweep / "runs" / rows[0]["run_id"] / "metrics" / "0000000005.jsonl").write_text('{"step": 6}\n')
    assert fit_main([str(sweep), "--approach", "envelope"]) == 1
    assert "0000000005.jsonl: line 1 is not a row with step and loss" in capsys.readouterr().err
    with pytest.raises(ValueError, match="curves: lack family, params_non_embedding, tokens, flops_6nd"):
        fit_envelope(pd.DataFrame({"run_id": ["a"], "loss": [1.0]}))
    (tmp_path / "bare" / "runs" / "a").mkdir(parents=True)
    (tmp_path / "bare" / "runs" / "a" / "result.json").write_text(json.dumps(rows[0] | {"steps": 5}))
    with pytest.raises(ValueError, match="no usable run has a training curve"):
        read_curves(tmp_path / "bare")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    table = pd.DataFrame(sweeps.both(sd=0.003)).rename(columns={"params_non_embedding": "N", "loss": "val_loss"})
    table.to_csv(tmp_path / "theirs.csv", index=False)
    return tmp_path / "theirs.csv"


MAPPING = "params_non_embedding=N,loss=val_loss"


def test_anybodys_csv_is_fitted(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_main([str(theirs), "--columns", MAPPING, "--curve", "cubic", "--holdout", "1.7e20"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("minima\n")
    assert "holdout" in printed
    assert fit_main([str(theirs), "--columns", MAPPING, "--preset", "smdm", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["recipe"] == vars(SMDM.recipe) | {}
    assert len(tree["laws"]) == 6
    assert gap_main([str(theirs), "--columns", MAPPING, "--floor", "1.82", "--bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    assert "given floor" in printed
    assert "statistical only" in printed
    arguments = [str(theirs), "--columns", MAPPING, "--sensitivity", "--bootstrap", "200", "--json", "--at", "flops"]
    assert gap_main(arguments) == 0
    tree = json.loads(capsys.readouterr().out)
    assert len(tree["gaps"]) == 3 * 3 * 4 + 3
    assert tree["findings"] == []
    assert gap_main([str(theirs), "--columns", MAPPING, "--bootstrap", "0", "--at", "loss=3.1"]) == 0
    printed = capsys.readouterr().out
    assert {line.split()[-3] for line in printed.splitlines()[1:6]} == {"3.100"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["theirs.csv"], "lacks params_non_embedding, loss; it has"),
        (["theirs.csv", "--columns", MAPPING, "--preset", "smdm", "--curve", "cubic"], "leave out curve"),
        (["theirs.csv", "--columns", MAPPING, "--window", "0.5"], "must be a factor above 1"),
        (["theirs.csv", "--columns", MAPPING, "--convention", "flops"], "must be one of smdm_6nd"),
        (["absent"], "absent: no such file"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, theirs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(theirs.parent)
    for main in (fit_main, gap_main):
        assert message in one_line(main, arguments, capsys)


def test_commands_start_without_warnings_and_answer_help() -> None:
    for module in ("analysis.fit", "analysis.gap"):
        command = [sys.executable, "-W", "error", "-m", module, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"python -m {module}" in done.stdout


def test_a_recipe_is_the_options() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.rows()), curve="cubic", window=3.0)
    assert fit.recipe == Recipe(curve="cubic", window=3.0)


def test_the_parametric_approach_prints_both_families(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_main([str(theirs), "--columns", MAPPING, "--approach", "parametric", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert "heldout" not in tree
    fits = tree["fits"]
    assert [fit["family"] for fit in fits] == ["arm", "mdm"]
    assert all(fit["converged"] and fit["E"] == pytest.approx(sweeps.ARM.E, abs=0.1) for fit in fits)


def test_the_parametric_approach_holds_out(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(theirs), "--columns", MAPPING, "--approach", "parametric", "--holdout"]
    assert fit_main([*arguments, "1.7e20", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert {(row["family"], row["budget"], row["runs"]) for row in tree["heldout"]} == {
        ("arm", 2.56e20, 7), ("mdm", 6.4e20, 7), ("mdm", 2.56e21, 7)
    }  # fmt: skip
    assert len(tree["heldout_runs"]) == 21
    assert max(row["rms_nats"] for row in tree["heldout"]) < 0.03
    assert fit_main([*arguments, "1.7e20"]) == 0
    assert "of 7" in capsys.readouterr().out
    assert fit_main([*arguments, "1e30"]) == 1
    error = capsys.readouterr().err
    assert "no run of ARM lies above it" in error
    assert "no run of MDM lies above it" in error
    assert fit_main([*arguments[:3], "--approach", "envelope", "--holdout", "1e19"]) == 1
    assert "an envelope has no budgets" in capsys.readouterr().err
    assert fit_main([str(theirs), "--columns", MAPPING, "--noise-sd", "arm=0.003,mdm=0.004", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["noise_sd"] == {"arm": 0.003, "mdm": 0.004}


def test_akima_is_told_each_familys_own_noise() -> None:
    """The MDM scatters three times as much as the ARM: so do the standard errors of its Akima minima."""
    rows = [
        row | {"loss": row["loss"] + extra}
        for row, extra in zip(sweeps.both(sd=0.002), 0.006 * np.random.default_rng(0).standard_normal(70), strict=True)
        if row["family"] == "arm" or extra
    ]
    rows = [row if row["family"] == "mdm" else calm for row, calm in zip(rows, sweeps.both(sd=0.002), strict=True)]
    fit = fit_isoflop(sweeps.table(rows), curve="cubic")
    told = _with_curve(fit, "akima").noise_sd
    assert isinstance(told, dict)
    assert told == pytest.approx({family: fit.noise[family].sd for family in ("arm", "mdm")})
    assert told["mdm"] > 2 * told["arm"]
    in_logs = fit_isoflop(sweeps.table(rows), curve="cubic", log_loss=True)
    nats = _with_curve(in_logs, "akima").noise_sd
    assert isinstance(nats, dict)
    assert nats == pytest.approx(told, rel=0.15)


def test_numbers_are_written_as_people_read_them() -> None:
    from analysis.wording import significant, with_interval

    known = {15.234: "15.2", 1234.5: "1,230", 999.96: "1,000", 3594101923.0: "3.59×10⁹", 1.2e-5: "1.2×10⁻⁵",
             -0.0642: "−0.0642", 0.0: "0", 1e6: "10⁶", float("inf"): "∞"}  # fmt: skip
    assert {value: significant(value) for value in known} == known
    assert with_interval(15.2, 13.94, 16.8) == "15.2 [13.9, 16.8]"
    assert with_interval(112.3, 98.4, 130.2) == "112 [98, 130]"
    assert with_interval(9.87, 8.1, 12.34) == "9.87 [8.10, 12.3]"
    assert with_interval(15.2, 0.0034, 3_594_101_923.0) == "15.2 [0.0034, 3.59×10⁹]"
    assert with_interval(18.0, 0.0, float("inf")) == "18.0 [0, ∞]"
    assert with_interval(18.0, float("nan"), float("nan")) == "18.0"
