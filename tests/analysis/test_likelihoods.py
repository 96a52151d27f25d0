"""The gap under each likelihood: planted losses give the planted gaps, and nothing but the MDM's loss changes."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from command_line import one_line

from analysis import (
    LikelihoodGaps,
    bootstrap,
    check,
    compute_gap,
    fit_isoflop,
    gap_by_likelihood,
    plot_likelihoods,
    read_runs,
    with_likelihood,
)
from analysis.checks.likelihoods import likelihood_findings
from analysis.figures.style import rendered
from analysis.gap.__main__ import main as gap_main
from analysis.gap.likelihoods import Refusal
from analysis.report.fits_json import as_json
from analysis.report.page import render
from analysis.report.summary import Summary, summarise
from analysis.report.write import write_report
from analysis.runs.load import numbers
from analysis.wording import LIKELIHOODS
from mdm_jax.files.results import LIKELIHOOD_COLUMNS, Status, result_of, to_csv
from mdm_jax.spec import EXACT_LIKELIHOODS, CellSpec, Family, RunSpec, pair

COLUMN, SE = LIKELIHOOD_COLUMNS["left_to_right"]
OTHER, _ = LIKELIHOOD_COLUMNS["confidence"]
SHIFT, SHARE = 0.06, 0.95


def planted(sd: float = 0.0, sizes: int = 7) -> list[dict]:
    """Rows in which left to right lies SHIFT nats below the NELBO, and the confidence order at SHARE of it."""
    rows = sweeps.both(sd=sd, sizes=sizes)
    for row in rows:
        mdm = row["family"] == "mdm"
        row |= {"loss_se_mc": 0.002 if mdm else 0.0, SE: 0.01, "bits_per_byte": row["loss"] / 3}
        row |= {COLUMN: row["loss"] - SHIFT * mdm, OTHER: row["loss"] * (SHARE if mdm else 1)}
    return rows


def true_gap(loss: float, mdm_loss: float) -> float:
    """The ratio of compute at which the ARM reaches `loss`, and the MDM's NELBO `mdm_loss`."""
    return sweeps.MDM.compute(mdm_loss) / sweeps.ARM.compute(loss)


def by_likelihood(rows: list[dict]) -> LikelihoodGaps:
    fit = fit_isoflop(sweeps.table(rows), curve="cubic")
    gaps = gap_by_likelihood(fit, bootstrap(fit, n=200), ("smdm_6nd", "exact"))
    assert gaps is not None
    return gaps


@pytest.fixture(scope="module")
def without_noise() -> LikelihoodGaps:
    return by_likelihood(planted())


@pytest.fixture(scope="module")
def summary() -> Summary:
    """The summary of a sweep in which one MDM run has no loss in confidence order."""
    rows = planted(sd=0.004, sizes=5)
    rows[30].pop(OTHER)
    return summarise(sweeps.table(rows), n=200)


def test_a_planted_likelihood_gives_the_planted_gap(without_noise: LikelihoodGaps) -> None:
    gaps = without_noise
    assert [one.likelihood for one in gaps.fits] == list(LIKELIHOODS)
    assert gaps.common_loss is not None
    assert gaps.refused == {}
    assert likelihood_findings(gaps) == likelihood_findings(None) == []
    loss = gaps.common_loss
    nelbo_at = {"nelbo": lambda x: x, "left_to_right": lambda x: x + SHIFT, "confidence": lambda x: x / SHARE}
    for name, nelbo in nelbo_at.items():
        common, own = gaps.common["smdm_6nd", name], gaps.own["smdm_6nd", name]
        assert common.loss == pytest.approx([loss], rel=1e-12)
        assert common.ratio[0] == pytest.approx(true_gap(loss, nelbo(loss)), rel=0.003)
        assert own.ratio[0] == pytest.approx(true_gap(own.loss[0], nelbo(own.loss[0])), rel=0.003)
        assert own.support[0] == "interpolated"
    ratios = [gaps.common["smdm_6nd", name].ratio[0] for name in LIKELIHOODS]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[2] < 0.6 * ratios[0]
    shares = [gaps.shares["smdm_6nd", name][0] for name in LIKELIHOODS]
    assert shares == pytest.approx([ratio / ratios[0] for ratio in ratios], rel=1e-12)


def test_the_common_loss_is_reached_by_all_and_each_own_loss_is_the_headlines() -> None:
    gaps = by_likelihood(planted(sd=0.004))
    assert gaps.common_range is not None
    low, high = gaps.common_range
    for one in gaps.fits:
        for side in one.sides("exact"):
            assert side.loss_range[0] <= low < high <= side.loss_range[1]
        alone = fit_isoflop(with_likelihood(sweeps.table(planted(sd=0.004)), one.likelihood), curve="cubic")
        assert alone.minima.equals(one.fit.minima)
        own = gaps.own["exact", one.likelihood]
        again = compute_gap(*one.sides("exact"), grid=own.loss, draws=bootstrap(alone, n=200))
        assert (again.ratio, again.lower, again.upper) == (own.ratio, own.lower, own.upper)


def test_the_share_of_the_nelbos_gap_is_paired() -> None:
    """The 95% interval covered in 59 of 60 sweeps with this noise; it was a third as wide as the gap's."""
    rows, rng = planted(sd=0.01), np.random.default_rng(3)
    for row in (row for row in rows if row["family"] == "mdm"):
        row[COLUMN] += 0.003 * rng.standard_normal()
    gaps = by_likelihood(rows)
    assert gaps.common_loss is not None
    share, lower, upper = gaps.shares["smdm_6nd", "left_to_right"]
    truth = sweeps.MDM.compute(gaps.common_loss + SHIFT) / sweeps.MDM.compute(gaps.common_loss)
    assert lower < share < upper
    assert lower < truth < upper
    gap = gaps.common["smdm_6nd", "left_to_right"]
    assert 1 < upper / lower < (gap.upper[0] / gap.lower[0]) ** 0.5
    assert gaps.shares["exact", "nelbo"] == (1, 1, 1)


def test_the_share_is_paired_where_a_budget_is_usable_under_one_likelihood_alone() -> None:
    rows = planted(sd=0.004)
    first = min(row["budget"] for row in rows if row["family"] == "mdm")
    for row in rows:
        if row["family"] == "mdm" and row["budget"] == first:
            row[COLUMN] -= 0.5 * np.log(row["params_non_embedding"] / 1e7)  # it falls up to the largest size
    gaps = by_likelihood(rows)
    assert [len(one.fit.minima_of("mdm")) for one in gaps.fits] == [5, 4, 5]
    share, lower, upper = gaps.shares["smdm_6nd", "left_to_right"]
    gap = gaps.common["smdm_6nd", "left_to_right"]
    assert lower < share < upper
    assert upper / lower < (gap.upper[0] / gap.lower[0]) ** 0.6


def test_only_the_mdms_loss_and_what_belongs_to_it_change() -> None:
    runs = sweeps.table(planted(sd=0.004))
    other = with_likelihood(runs, "left_to_right")
    mdm = np.asarray(runs["family"] == "mdm")
    changed = {name for name in runs if not runs[name].equals(other[name])}
    assert changed == {"loss", "loss_se_mc", "loss_se_data", "loss_kind", "bits_per_byte"}
    assert runs[~mdm].equals(other[~mdm])
    assert set(other["loss_kind"]) == {"nll"}
    assert (numbers(other, "loss_se_mc") == 0).all()
    assert numbers(other, "bits_per_byte")[mdm] == pytest.approx(numbers(other, "loss")[mdm] / 3, rel=1e-12)
    assert with_likelihood(runs, "nelbo").equals(runs)
    assert not runs.equals(other)  # the table that was given is untouched
    assert [finding.code for finding in check(other) if finding.code == "loss_unit"] == []


def test_runs_without_the_likelihood_are_left_out_with_a_finding() -> None:
    rows = planted()
    for index, value in ((40, None), (41, float("nan")), (42, float("inf")), (43, -1.0)):
        rows[index][COLUMN] = value
    rows[44] |= {"status": "diverged", COLUMN: None}
    other = with_likelihood(sweeps.table(rows), "left_to_right")
    out = dict(zip(other["run_id"], other["excluded_reason"], strict=True))
    absent, wrong = "not evaluated by this likelihood", f"{COLUMN} is not a finite positive number"
    expected = [absent, absent, wrong, wrong, "status diverged"]
    assert [out[rows[i]["run_id"]] for i in range(40, 45)] == expected
    assert sum(reason == "" for reason in out.values()) == len(rows) - 5
    (found,) = [finding for finding in check(other) if finding.code.startswith("not_evaluated")]
    assert found.number == 2
    assert "mdm_jax.evaluate.likelihood" in found.remedy
    gaps = by_likelihood(rows)
    assert [one.runs for one in gaps.fits] == [34, 30, 34]
    assert np.isnan(gaps.shares["smdm_6nd", "left_to_right"][1:]).all()  # of other runs, so not paired
    assert np.isfinite(gaps.shares["smdm_6nd", "confidence"]).all()
    (found,) = likelihood_findings(gaps)
    assert (found.code, found.number) == ("partly_evaluated", 4)
    assert found.message.endswith("its gap is of other runs than the NELBO's")
    assert list(gaps.fits[1].left_out) == [rows[i]["run_id"] for i in range(40, 44)]


def test_a_likelihood_of_too_few_runs_has_no_gap_and_says_so() -> None:
    rows = planted()
    for row in [row for row in rows if row["family"] == "mdm"][7:]:
        row[COLUMN] = None
    gaps = by_likelihood(rows)
    assert [one.likelihood for one in gaps.fits] == ["nelbo", "confidence"]
    refusal = gaps.refused["left_to_right"]
    assert (refusal.reason, len(refusal.left_out)) == ("MDM: 1 usable minima, a gap needs 2", 28)
    (found,) = likelihood_findings(gaps)
    assert found.number == 28
    assert found.message.startswith("left to right: 28 MDM runs without it: ")
    assert found.message.endswith("it has no gap (MDM: 1 usable minima, a gap needs 2)")
    assert "--likelihoods left_to_right" in found.remedy


def test_negative_losses_are_left_out_and_a_zero_nelbo_breaks_nothing() -> None:
    rows = planted()
    for row in rows:
        row[COLUMN] = -row[COLUMN]
    mdm = [row for row in rows if row["family"] == "mdm"]
    mdm[0]["loss"], mdm[1]["loss"] = 0.0, None
    gaps = by_likelihood(rows)
    (found,) = likelihood_findings(gaps)
    assert found.number == 33
    assert found.message.endswith("it has no gap (MDM: 0 usable minima, a gap needs 2)")
    assert found.remedy == f"give nats per token in {COLUMN}"
    out = with_likelihood(sweeps.table(rows), "confidence")
    assert list(out["excluded_reason"][35:37]) == ["loss is not positive", "loss is not a finite number"]
    assert np.isnan(numbers(out, "bits_per_byte")[35])


def test_a_likelihood_whose_minima_are_not_swept_has_no_gap_and_nothing_to_evaluate() -> None:
    rows = planted()
    for row in (row for row in rows if row["family"] == "mdm"):
        row[COLUMN] = 9 - row["loss"]
    gaps = by_likelihood(rows)
    (found,) = likelihood_findings(gaps)
    assert (found.code, gaps.refused["left_to_right"].left_out) == ("no_likelihood_gap", {})
    assert "evaluate" not in found.remedy
    assert found.message.startswith("left to right: no gap, MDM: 0 usable minima")


def test_perplexities_in_a_likelihoods_column_are_found() -> None:
    rows = planted()
    for row in rows:
        row[COLUMN] = float(np.exp(row[COLUMN]))
    (found,) = likelihood_findings(by_likelihood(rows))
    assert found.code == "impossible_loss"
    assert found.message.startswith("left to right: MDM: 35 of 35 losses lie above")


def test_a_convention_without_flops_under_a_likelihood_has_no_gap_there(summary: Summary) -> None:
    rows = planted(sd=0.004, sizes=5)
    for i, row in enumerate(rows):
        row["flops_exact"] = 1.1 * row["budget"]
        if row["family"] == "mdm" and i < 35:  # the exact FLOPs are known where left to right is not
            row[COLUMN] = None
        elif row["family"] == "mdm":
            row["flops_exact"] = None
    gaps = by_likelihood(rows)
    assert ("exact", "nelbo") in gaps.own
    assert ("exact", "left_to_right") not in {*gaps.own, *gaps.common, *gaps.shares}
    assert ("smdm_6nd", "left_to_right") in gaps.own
    gaps = dataclasses.replace(gaps, refused={"confidence": Refusal("no run", {"<a>": "why"})})
    shown = dataclasses.replace(summary, conventions=("smdm_6nd", "exact"), likelihoods=gaps)
    text = render(shown, {}, "made by hand")
    assert "confidence order: no gap. no run; 1 MDM run without it: &lt;a&gt;." in text
    assert as_json(shown)["likelihoods"]["no_gap_because"] == {"confidence": "no run"}


@pytest.mark.parametrize("settings", [{"curve": "akima"}, {"noise_sd": 0.004}])
def test_draws_of_normal_errors_are_not_paired(settings: dict) -> None:
    fit = fit_isoflop(sweeps.table(planted(sd=0.004)), **settings)
    gaps = gap_by_likelihood(fit, bootstrap(fit, n=200), ("smdm_6nd",))
    assert gaps is not None
    assert np.isnan(gaps.shares["smdm_6nd", "left_to_right"][1:]).all()
    by_budgets = gap_by_likelihood(fit, bootstrap(fit, "budget", n=200), ("smdm_6nd",))
    assert by_budgets is not None
    assert np.isfinite(by_budgets.shares["smdm_6nd", "left_to_right"]).all()


def test_ranges_that_do_not_meet_are_extrapolated_and_have_no_common_loss() -> None:
    rows = planted()
    for row in rows:
        row[OTHER] = row["loss"] * (0.4 if row["family"] == "mdm" else 1)
    gaps = by_likelihood(rows)
    assert (gaps.common_range, gaps.common_loss, gaps.common) == (None, None, {})
    far = gaps.own["smdm_6nd", "confidence"]
    assert (far.law, far.support[0]) == ("power_law", "extrapolated")
    assert gaps.own["smdm_6nd", "left_to_right"].support[0] == "interpolated"


def test_differences_by_budget_have_their_mean_and_spread() -> None:
    rows = planted()
    mdm = [row for row in rows if row["family"] == "mdm"]
    mdm[0][COLUMN] = mdm[0]["loss"] + 0.1
    mdm[1][COLUMN] = None
    table = by_likelihood(rows).differences
    left = table[table["likelihood"] == "left_to_right"].set_index("budget")
    assert len(left) == 5
    own = np.array([0.1] + [-SHIFT] * 5)
    assert left["runs"].tolist() == [6, 7, 7, 7, 7]
    assert left["mean"].iloc[0] == pytest.approx(own.mean(), abs=1e-12)
    assert left["sd"].iloc[0] == pytest.approx(own.std(ddof=1), rel=1e-9)
    assert (left["lowest"].iloc[0], left["highest"].iloc[0]) == pytest.approx((-SHIFT, 0.1), abs=1e-12)
    assert left["mean"].iloc[1:].to_numpy() == pytest.approx(-SHIFT, abs=1e-12)


def test_a_table_without_the_columns_has_no_comparison(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both()))
    assert gap_by_likelihood(fit, bootstrap(fit), ("smdm_6nd",)) is None
    path = tmp_path / "runs.csv"
    pd.DataFrame(sweeps.both()).to_csv(path, index=False)
    said = one_line(gap_main, [str(path), "--likelihood", "confidence"], capsys)
    assert f"no MDM run has a number in {OTHER}; python -m mdm_jax.evaluate.likelihood DIR" in said
    with pytest.raises(ValueError, match="likelihood = 'any_order': must be one of nelbo, left_to_right, confidence"):
        with_likelihood(fit.runs, "any_order")


def test_the_command_reads_the_gap_under_a_likelihood(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    theirs = pd.DataFrame(planted(sd=0.004, sizes=5)).rename(columns={COLUMN: "chain"})
    theirs.to_csv(path, index=False)
    arguments = [str(path), "--columns", f"{COLUMN}=chain", "--preset", "smdm", "--bootstrap", "0", "--at", "loss=3.2"]
    ratios = {}
    for name in ("nelbo", "left_to_right"):
        assert gap_main([*arguments, "--json", "--likelihood", name]) == 0
        tree = json.loads(capsys.readouterr().out)
        assert tree["likelihood"] == name
        ratios[name] = tree["gaps"][0]["ratio"]
        assert gap_main([*arguments, "--likelihood", name]) == 0
        said = "The MDM's loss is an exact likelihood: left to right." in capsys.readouterr().out
        assert said == (name == "left_to_right")
    assert ratios["nelbo"] > 1.1 * ratios["left_to_right"]


def test_the_names_are_those_of_the_specs() -> None:
    assert tuple(LIKELIHOODS) == ("nelbo", *EXACT_LIKELIHOODS)


def test_the_columns_survive_a_csv() -> None:
    specs = [RunSpec(cell=CellSpec(budget=1e12)), pair(RunSpec(cell=CellSpec(budget=1e12)), Family.ARM)]
    more = {COLUMN: 2.4375, SE: 0.25, OTHER: 1 / 3}
    rows = [result_of(spec, Status.OK, loss=2.5, loss_se_mc=0.01, **more) for spec in specs]
    back = read_runs(pd.read_csv(io.StringIO(to_csv([*rows, result_of(RunSpec(seed=1), Status.FAILED)]))))
    assert {name: back[name].iloc[0] for name in more} == more
    assert np.isnan(back[list(more)].to_numpy()[2]).all()
    assert np.isnan(numbers(back, "loss_confidence_se_data")).all()


def test_the_report_shows_the_gap_under_each_likelihood(summary: Summary) -> None:
    assert summary.likelihoods is not None
    text = render(summary, {}, "made by hand")
    for said in (
        "The gap under each likelihood",
        *LIKELIHOODS.values(),
        "1 MDM run without it: mdm-",
        'href="#likelihoods"',
    ):
        assert said in text
    assert "may be smaller" not in text
    assert [finding.code for finding in summary.findings if "confidence order" in finding.message] == [
        "partly_evaluated"
    ]
    tree = as_json(summary)
    fits = tree["likelihoods"]
    shown = {(gap["convention"], gap["likelihood"]): gap["ratio"] for gap in fits["gap_at_common_loss"]}
    assert set(shown) == {(c, name) for c in ("smdm_6nd", "with_head", "exact") for name in LIKELIHOODS}
    assert shown["exact", "confidence"] == summary.likelihoods.common["exact", "confidence"].ratio[0]
    assert len(fits["share_of_nelbo_gap"]) == 9
    assert fits["common_loss"] == summary.likelihoods.common_loss
    assert len(fits["difference_to_nelbo"]) == 10
    assert fits["gap_at_own_loss"][0]["ratio"] == tree["headline"]["gap"]["smdm_6nd"]["ratio"]


@pytest.mark.slow
def test_a_reports_files_hold_the_figures_and_the_columns(tmp_path: Path) -> None:
    rows = planted(sd=0.004, sizes=5)
    _, page = write_report(pd.DataFrame(rows), tmp_path, n=200)
    for convention in ("smdm_6nd", "exact"):
        assert (tmp_path / f"figures/likelihoods_{convention}.png").stat().st_size > 20_000
        assert f'alt="likelihoods_{convention}"' in page.read_text()
    assert json.loads((tmp_path / "fits.json").read_text())["likelihoods"]["no_gap_because"] == {}
    assert np.isfinite(numbers(read_runs(tmp_path / "run_table.csv"), COLUMN)).all()


def test_the_figure_has_a_line_for_the_arm_and_each_likelihood(without_noise: LikelihoodGaps) -> None:
    figure = plot_likelihoods(without_noise, "exact")
    (legend,) = [axes.get_legend() for axes in figure.axes]
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["ARM", *(f"MDM, {word}" for word in LIKELIHOODS.values()), "all measured"]
    assert set(rendered(figure)) == {"svg", "png"}
