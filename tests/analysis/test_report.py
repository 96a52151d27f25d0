import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from command_line import one_line

from analysis import Frontier, Severity, bootstrap, check, compute_gap, fit_isoflop, read_runs
from analysis.report.__main__ import main
from analysis.report.write import write_report

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '<script>alert("1")</script>&$\\frac$'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags of a page, and whether they close as they should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def write_sweep(folder: Path, rows: list[dict], planned: list[dict] | None = None) -> Path:
    """A sweep's directory as the runner leaves it."""
    for index, row in enumerate(rows):
        (folder / "runs" / f"r{index}").mkdir(parents=True)
        (folder / "runs" / f"r{index}" / "result.json").write_text(json.dumps(row))
    plan = [{"run_id": f"r{index}"} for index in range(len(rows))] + (planned or [])
    (folder / "plan.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plan))
    return folder


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The report of a sweep with diverged, failed and missing runs and hostile strings, and what was printed."""
    rows = sweeps.both(sd=0.005)
    rows[3] |= {"status": "diverged", "loss": None}
    rows[8] |= {"status": "diverged", "loss": 50.0}
    rows[15] |= {"status": "failed", "loss": None, "excluded_reason": HOSTILE}
    rows[20] |= {"git_sha": HOSTILE, "device": HOSTILE, "versions": HOSTILE}
    rows += [
        row | {"run_id": f"x{i}", "family": HOSTILE} for i, row in enumerate(sweeps.rows(budgets=np.array([1e18])))
    ]
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), rows, [{"run_id": HOSTILE, "family": "mdm"}])
    command = [sys.executable, "-m", "analysis.report", str(folder), "--bootstrap", "400", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_the_report_prints_the_gap_under_both_conventions_and_its_path_last(messy: tuple[Path, str]) -> None:
    folder, printed = messy
    lines = printed.splitlines()
    for line, convention in zip(lines, ("smdm_6nd", "exact"), strict=False):
        assert line.startswith("gap at loss ")
        assert line.endswith(f"] under {convention}, interpolated")
    assert "budgets with a usable minimum: 11 of 11" in lines
    assert lines[-1] == str(folder / "report.html")


def test_all_numbers_are_in_fits_json(messy: tuple[Path, str]) -> None:
    folder, printed = messy
    fits = json.loads((folder / "fits.json").read_text())
    assert fits["bootstrap"] == {"unit": "run", "draws": 400, "seed": 7, "level": 0.95}
    gap = fits["headline"]["gap"]["smdm_6nd"]
    truth = sweeps.MDM.compute(fits["headline"]["loss"]) / sweeps.ARM.compute(fits["headline"]["loss"])
    assert gap["lower"] < truth < gap["upper"]
    assert gap["support"] == "interpolated"
    assert f"{gap['ratio']:.0f} [{gap['lower']:.0f}, {gap['upper']:.0f}]" in printed
    low, high = fits["overlap_loss"]
    assert low < fits["headline"]["loss"] < high
    assert {row["status"] for row in fits["minima"]} == {"ok"}
    assert {(g["convention"], g["law"]) for g in fits["gap_at_headline_loss"]} == {
        (c, law)
        for c in ("smdm_6nd", "with_head", "exact")
        for law in ("interpolated", "power_law", "shared_floor", "parametric")
    }
    assert len(fits["sensitivity"]) == 3 * 3 * 3 + 3
    assert {(row["family"], row["law"]) for row in fits["holdout"]} == {
        (family, law) for family in ("arm", "mdm") for law in ("power_law", "saturating", "parametric")
    }
    low, high = fits["model_spread_at_ten_times_the_arms_largest_budget"]
    assert high > 1.5 * low
    table = pd.read_csv(folder / "run_table.csv")
    assert len(table) == 78
    assert fits["runs"] == {"all": 78, "used": list(table["excluded_reason"].isna()).count(True)}


def test_the_page_stands_alone_and_runs_nothing(messy: tuple[Path, str]) -> None:
    page = Page((messy[0] / "report.html").read_text())
    assert not page.open
    assert page.tags.isdisjoint({"script", "iframe", "link", "object", "form"})
    assert all(link.startswith(("data:image/svg+xml;base64,", "#")) for link in page.links)
    assert len([link for link in page.links if link.startswith("data:")]) == 8
    for said in (
        "statistical only",
        "model error is at least that spread",
        "the MDM's is a NELBO, an upper bound",
        "no interval includes by how much",
        "Budgets count 6ND without head",
        "assumes that losses have no floor",
        HOSTILE,
        "status diverged",
        "status missing",
        "which both families reach",
        "--seed 7",
    ):
        assert said in page.text
    assert page.text.count("arm-") >= 35


def test_every_figure_is_written_twice(messy: tuple[Path, str]) -> None:
    names = {"isoflop", "allocation", "loss_smdm_6nd", "loss_exact", "gap_smdm_6nd", "gap_exact", "residuals", "clouds"}
    figures = messy[0] / "figures"
    assert {p.stem for p in figures.glob("*.svg")} == {p.stem for p in figures.glob("*.png")} == names
    for name in names:
        svg = (figures / f"{name}.svg").read_text()
        assert "<script" not in svg
        assert (figures / f"{name}.png").stat().st_size > 20_000


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    pd.DataFrame(sweeps.both(sd=0.005, sizes=5)).to_csv(table, index=False)
    for out in ("a", "b"):
        write_report(table, tmp_path / out, n=200)
    for name in ("report.html", "fits.json", "run_table.csv", "figures/isoflop.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.usefixtures("small_pictures")
def test_a_family_absent_is_said_and_the_rest_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "own.csv"
    pd.DataFrame(sweeps.rows("mdm", sweeps.MDM, sweeps.BUDGETS["mdm"])).to_csv(table, index=False)
    assert main([str(table), "--bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    assert "No compute gap: it needs two usable budgets of each family, and this sweep has 0 of the ARM, 5" in printed
    assert "error: no usable run of the ARM" in printed
    fits = json.loads((tmp_path / "own-report" / "fits.json").read_text())
    assert fits["headline"] == {"loss": None, "gap": {}}
    assert len(fits["laws"]) == 9


@pytest.mark.usefixtures("small_pictures")
def test_no_common_loss_is_said_and_every_ratio_called_extrapolated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = {"arm": 1e20 * 4.0 ** np.arange(3), "mdm": 1e19 * 4.0 ** np.arange(3)}
    folder = write_sweep(tmp_path, sweeps.both(budgets))
    assert main([str(folder), "--bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    assert "no gap is measured. Extrapolated by two power laws" in printed
    assert ", interpolated" not in printed
    assert "error: the families' loss ranges do not overlap" in printed
    assert 'class="pill interpolated"' not in (folder / "report.html").read_text()


def test_a_sweep_without_any_minimum_still_has_a_report(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, sweeps.both({"arm": np.array([1e18]), "mdm": np.array([1e19])}, sizes=3))
    summary, path = write_report(folder, n=200)
    assert path.exists()
    assert summary.target is None
    assert {row["status"] for row in json.loads((folder / "fits.json").read_text())["minima"]} == {"too_few"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: no such file or directory"),
        (["empty"], "holds neither plan.jsonl nor <run_id>/result.json"),
        (["bad.csv"], "lacks family, params_non_embedding; it has N, loss, tokens. Map with"),
        (["good.csv", "--level", "2"], "level = 2.0: must be between 0 and 1"),
        (["good.csv", "--bootstrap", "0"], "n = 0"),
        (["good.csv", "--columns", "loss=x"], "maps loss to 'x', which it lacks"),
        (["good.csv", "--out", "good.csv/x"], "good.csv"),
    ],
)
def test_errors_are_one_line_and_exit_1(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bad.csv").write_text("N,loss,tokens\n1e6,2,1e8\n")
    pd.DataFrame(sweeps.rows(sizes=4)).to_csv("good.csv", index=False)
    assert message in one_line(main, arguments, capsys)


@pytest.mark.parametrize("module", ["analysis.fit", "analysis.gap.__main__", "analysis.report.__main__"])
def test_importing_and_help_load_neither_jax_nor_what_they_do_not_need(module: str) -> None:
    code = "import analysis, sys; print(*{'jax', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (imported.stdout.strip(), imported.stderr) == ("", "")
    code = f"import sys; sys.argv[1:] = ['--help']\nimport {module} as r\n"
    code += "try: r.main()\nexcept SystemExit: "
    code += "print('LOADED', *{'jax', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    helped = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert helped.stdout.splitlines()[-1] == "LOADED"
    assert "--level" in helped.stdout


def codes(rows: list[dict], draws: int = 0) -> dict[str, tuple[Severity, float]]:
    runs = sweeps.table(rows)
    fit = fit_isoflop(runs)
    found = check(fit.runs, fit, bootstrap(fit, n=draws) if draws else None)
    for finding in found:
        assert finding.remedy
        assert re.search(r"\d", finding.message) or finding.number == 0  # the message says what was found …
        assert not re.search(r"\b(add|widen|look for|have at least) ", finding.message)  # … and not what to do
    return {f.code: (f.severity, f.number) for f in found}


def test_a_clean_sweep_has_no_findings_but_the_head() -> None:
    wide = {"arm": 1e20 * 4.0 ** np.arange(5), "mdm": 3e21 * 4.0 ** np.arange(5)}
    assert codes(sweeps.both(wide, sd=0.002), draws=200) == {}


def test_each_doubt_is_a_finding_with_its_number() -> None:
    rows = sweeps.both(sd=0.002)
    rows[0] |= {"epochs": 6.5}
    rows[1] |= {"lr_final_fraction": 0.5}
    rows[2] |= {"loss_kind": "nelbo"}
    rows[3] |= {"status": "diverged", "loss": None}
    rows[4] |= {"status": "running"}
    rows[9] |= {"data_hash": "a"}
    rows[10] |= {"data_hash": "b"}
    close = rows[15] | {"run_id": "close", "params_non_embedding": rows[15]["params_non_embedding"] * 1.02}
    rows += [close, *sweeps.rows(budgets=np.array([1e22]), off=2.0), *sweeps.rows(budgets=np.array([1e17]), sizes=3)]
    rows += sweeps.rows(budgets=np.array([1e21]), off=0.9)
    found = codes(rows)
    warning, error, note = Severity.WARNING, Severity.ERROR, Severity.NOTE
    assert found["epochs"] == (warning, 6.5)
    assert found["undecayed"] == (warning, 0.5)
    assert found["mixed_loss_kind"] == (error, 2.0)
    assert found["mixed_data_hash"] == (error, 2.0)
    assert found["diverged_runs"] == (warning, 1.0)
    assert found["running_runs"] == (warning, 1.0)
    assert found["near_duplicate_sizes"] == (note, pytest.approx(0.02))
    assert found["edge_minimum"][0] == warning
    assert found["too_few_sizes"] == (warning, 3.0)
    assert found["off_centre"] == (note, pytest.approx(-0.65, abs=0.05))
    assert "few_budgets" not in found


def test_too_few_budgets_no_overlap_and_rising_losses_are_found() -> None:
    budgets = {"arm": 1e20 * 4.0 ** np.arange(3), "mdm": 1e19 * 4.0 ** np.arange(3)}
    found = codes(sweeps.both(budgets))
    assert found["few_budgets"] == (Severity.WARNING, 3.0)
    gap = float(sweeps.MDM.best_loss(1.6e20) - sweeps.ARM.best_loss(1e20))
    assert found["no_overlap"] == (Severity.ERROR, pytest.approx(gap, rel=0.01))
    thin = codes(sweeps.both({"arm": 1e18 * 4.0 ** np.arange(4), "mdm": 1e18 * 7.0 ** np.arange(4)}))
    assert thin["thin_overlap"][0] == Severity.NOTE
    rising = [row | ({"loss": row["loss"] + 0.5} if row["budget"] == 1.6e19 else {}) for row in sweeps.rows()]
    assert codes(rising)["loss_rises"][1] == pytest.approx(0.21, abs=0.02)
    assert codes(rising)["family_absent"][0] == Severity.ERROR


def test_flat_curves_and_lost_draws_are_found() -> None:
    found = codes(sweeps.both(sd=0.03, span=1.6, seed=2), draws=400)
    assert "lost_draws" in found
    assert {"flat_curve", "no_minimum", "edge_minimum"} & set(found)


def test_a_loss_near_a_floor_and_a_floor_that_nothing_tells_are_found() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.0005)))
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    near = compute_gap(arm, mdm, law="shared_floor", grid=np.array([1.95]))
    found = {f.code: f for f in check(fit.runs, fit, None, [near])}
    assert found["near_floor"].severity == Severity.WARNING
    assert found["near_floor"].number == pytest.approx(1.95 - near.floor)
    far = compute_gap(arm, mdm, law="shared_floor", grid=np.array([3.0]))
    assert "near_floor" not in {f.code for f in check(fit.runs, fit, None, [far])}
    straight = [
        Frontier(name, c, k * c**-0.06) for name, c, k in (("arm", arm.flops, 45.0), ("mdm", 10 * arm.flops, 50.0))
    ]
    undetermined = compute_gap(straight[0], straight[1], law="shared_floor")
    assert "floor_undetermined" in {f.code for f in check(fit.runs, fit, None, [undetermined])}


def test_floors_that_no_convention_determines_are_one_finding_that_names_each() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.0005)))
    gaps = []
    for convention in ("smdm_6nd", "exact"):
        arm = Frontier("arm", *straight_line(fit.frontier("arm", convention), 45.0), convention)
        gaps.append(compute_gap(arm, Frontier("mdm", 10 * arm.flops, arm.loss, convention), law="shared_floor"))
    (found,) = [finding for finding in check(fit.runs, fit, None, gaps) if finding.code == "floor_undetermined"]
    assert found.message.startswith("shared floor: the minima do not determine the floor, ")
    assert found.message.count("6ND without head") == found.message.count("exact FLOPs") == 1
    assert found.number == min(gaps[0].floor, gaps[1].floor)


def straight_line(frontier: Frontier, at_one_flop: float) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs and losses of a law without a floor."""
    return frontier.flops, at_one_flop * frontier.flops**-0.06


def test_flops_that_overflowed_are_left_out_or_called_wrong() -> None:
    rows = sweeps.rows(sd=0.002)
    for index in (3, 10):
        n, d = rows[index]["params_non_embedding"], rows[index]["tokens"]
        wrapped = (int(6 * n * d * 50) + 2**63) % 2**64 - 2**63
        rows[index] |= {"flops_6nd": float(wrapped) if index == 3 else float(abs(wrapped))}
    rows[3]["flops_6nd"] = -abs(rows[3]["flops_6nd"])
    runs = sweeps.table(rows)
    assert "overflows 64-bit" in runs["excluded_reason"][3]
    found = codes(rows)
    assert found["flops_not_6nd"][0] == Severity.ERROR
    plain = pd.DataFrame(
        {"family": ["arm"], "params_non_embedding": [70_000_000_000], "tokens": [10**15], "loss": [2.0]}
    )
    assert read_runs(plain)["flops_6nd"].item() == pytest.approx(4.2e26, rel=1e-12)


def test_an_unknown_noise_duplicates_and_one_budget_are_found() -> None:
    rows = sweeps.rows(budgets=np.array([1e18]), sd=0.002)
    runs = sweeps.table([*rows, rows[2] | {"run_id": "again"}])
    fit = fit_isoflop(runs, curve="akima")
    found = {f.code: f for f in check(fit.runs, fit)}
    assert found["unknown_noise"].severity == Severity.WARNING
    assert found["duplicate_of_another_run_runs"].number == 1.0
    assert found["few_budgets"].number == 1.0
    assert found["family_absent"].severity == Severity.ERROR
    windowed = fit_isoflop(runs, window=2.5)
    assert {f.code: f for f in check(windowed.runs, windowed)}["outside_the_window_runs"].severity == Severity.NOTE
    with pytest.raises(ValueError, match="1 usable minima, a gap needs two"):
        compute_gap(fit.frontier("arm"), fit.frontier("arm"))


@pytest.mark.slow
def test_a_report_by_another_recipe_says_so_in_its_command(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    other = [row | {"run_id": row["run_id"] + "b", "group": "b"} for row in sweeps.both()]
    rows = [row | {"group": "a"} for row in sweeps.both(sd=0.005)]
    pd.DataFrame([*rows, *other]).to_csv(table, index=False)
    assert main([str(table), "--bootstrap", "200", "--curve", "cubic", "--log-loss", "--where", "group=a"]) == 0
    page = Page((tmp_path / "runs-report" / "report.html").read_text())
    assert "--unit" not in page.text
    assert "--curve cubic --log-loss --where group=a" in page.text
    assert set(pd.read_csv(tmp_path / "runs-report" / "run_table.csv")["group"]) == {"a"}
    assert "Sensitivity to the analyst's choices" in page.text
