"""What follows from parametric surfaces: the frontier under every FLOP convention, the gap, and what lies held out."""

import math

import numpy as np
import pytest
import synthetic_sweeps as sweeps

from analysis import fit_isoflop, fit_parametric, gap_sensitivity, holdout, parametric_gap
from analysis.checks.holdout import summarise_runs
from analysis.gap.surfaces import fit_families
from analysis.runs.load import numbers, records
from analysis.surface.bootstrap import bootstrap_parametric
from analysis.surface.fit import ParametricFit, fit_surface
from analysis.surface.frontier import SIX_ND, TokenCost, fit_token_cost
from analysis.surface.problem import SurfaceRuns


@pytest.fixture(scope="module")
def pair() -> tuple[ParametricFit, ParametricFit]:
    """Both families' surfaces, without noise."""
    runs = sweeps.table(sweeps.both())
    return fit_parametric(runs, family="arm"), fit_parametric(runs, family="mdm")


def lowest(surface: sweeps.Surface, c: float, head: float) -> float:
    """The best loss at c FLOPs by search, where a token costs 6 (N + head 40 N^.6), as in the synthetic sweeps."""
    n = np.exp(np.linspace(math.log(1e4), math.log(1e12), 400_001))
    return float(surface.loss(n, c / (6 * (n + head * 40 * n**0.6))).min())


@pytest.mark.parametrize(("convention", "head"), [("smdm_6nd", 0.0), ("with_head", 1.0), ("exact", 0.5)])
def test_the_frontier_is_the_lowest_loss_at_each_compute(
    pair: tuple[ParametricFit, ParametricFit], convention: str, head: float
) -> None:
    """Against a search over N: 6 N D, the head in full, and for the MDM half of it."""
    frontier = pair[1].frontier(convention)
    c = np.array([1e17, 1e20, 1e23])
    best = [lowest(sweeps.MDM, value, head) for value in c]
    assert frontier.predict(c)[0] == pytest.approx(best, rel=1e-6)
    assert np.exp(frontier.log_flops(np.log(best))[0]) == pytest.approx(c, rel=1e-4)
    assert np.isnan(frontier.log_flops(np.log([sweeps.MDM.E - 0.01]))).all()


def test_six_nd_is_the_closed_form(pair: tuple[ParametricFit, ParametricFit]) -> None:
    arm, c = pair[0], np.geomspace(1e15, 1e25, 11)
    law = arm.optimum.loss_law
    assert arm.frontier("smdm_6nd").predict(c)[0] == pytest.approx(law.predict(c), rel=1e-12)
    draws = bootstrap_parametric(fit_surface(SurfaceRuns(*sweeps.scattered())), n=50)
    rising = TokenCost(3.0, 0.4, 0.0)
    dearer, plain = (draws.frontier(cost).log_flops(np.log([2.5])) for cost in (rising, SIX_ND))
    assert (dearer > plain).all()


def test_flops_a_token_are_interpolated_between_the_runs_own_sizes() -> None:
    n = np.geomspace(6e6, 2e9, 12)
    cost = fit_token_cost(n, 6 * (n + 300 * n**0.4))
    assert (cost.q, cost.misfit) == (pytest.approx(0.6), pytest.approx(0.0, abs=1e-12))
    between = np.array([3e7])
    assert np.exp(cost.log_flops(np.log(between))) == pytest.approx(6 * (between + 300 * between**0.4))
    step = 1e-5
    slope = np.diff(cost.log_flops(np.log(between) + np.array([-step, step]))) / (2 * step)
    assert cost.slope(np.log(between)) == pytest.approx(slope, rel=1e-6)
    assert fit_token_cost(n, 6 * n) == SIX_ND
    jagged = 6 * n * (1 + np.where(np.arange(12) % 2, 0.1, 1.0))
    for flops, message in ((jagged, "no smooth function of N"), (5 * n, "0.833 times 6 N"), (n * np.nan, "lack FLOPs")):
        with pytest.raises(ValueError, match=message):
            fit_token_cost(n, flops)
    with pytest.raises(ValueError, match="2 sizes"):
        fit_token_cost(n[[0, 0, 1]], 7 * n[[0, 0, 1]])


def test_the_parametric_gap_exists_under_every_convention(pair: tuple[ParametricFit, ParametricFit]) -> None:
    """Equal FLOPs by search, as each family counts them."""
    isoflop = fit_isoflop(sweeps.table(sweeps.both()))
    for convention, heads in (("with_head", (1.0, 1.0)), ("exact", (1.0, 0.5))):
        sides = isoflop.frontier("arm", convention), isoflop.frontier("mdm", convention)
        gap = parametric_gap(*sides, pair, "flops", np.array([1e19]))
        assert gap.convention == convention
        loss = lowest(sweeps.ARM, 1e19, heads[0])
        assert gap.loss[0] == pytest.approx(loss, rel=1e-6)
        assert lowest(sweeps.MDM, float(gap.flops_mdm[0]), heads[1]) == pytest.approx(loss, rel=1e-6)
    unknown = [row | {"flops_exact": None} for row in sweeps.both()]
    bare = fit_parametric(sweeps.table(unknown), family="arm")
    with pytest.raises(ValueError, match="arm, exact: some runs lack FLOPs"):
        bare.frontier("exact")
    with pytest.raises(ValueError, match="FLOPs under it are unknown"):
        fit_surface(SurfaceRuns(*sweeps.scattered())).frontier("exact")


def test_sensitivity_has_a_parametric_row_for_each_convention() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.003)))
    rows = records(gap_sensitivity(fit, curves=("cubic",), laws=("power_law", "parametric"), draws=200))
    own = {row["convention"]: row for row in rows if row["law"] == "parametric"}
    assert set(own) == {"smdm_6nd", "with_head", "exact"}
    assert {row["curve"] for row in own.values()} == {"surface"}
    at = own["smdm_6nd"]
    truth = sweeps.MDM.compute(at["loss"]) / sweeps.ARM.compute(at["loss"])
    assert at["lower"] < truth < at["upper"]
    few = [row for row in sweeps.both(sd=0.003) if row["family"] == "arm" or row["budget"] < 2e20][:45]
    short = records(gap_sensitivity(fit_isoflop(sweeps.table(few[:40])), at="loss", where=3.0, curves=(), draws=0))
    assert all("MDM: 5 runs" in row["reason"] and math.isnan(row["ratio"]) for row in short)


def test_the_parametric_gap_is_the_surfaces() -> None:
    table = sweeps.table(sweeps.both())
    isoflop = fit_isoflop(table)
    sides = isoflop.frontier("arm"), isoflop.frontier("mdm")
    fits = fit_parametric(table, family="arm"), fit_parametric(table, family="mdm")
    gap = parametric_gap(*sides, fits)
    truth = [sweeps.MDM.compute(loss) / sweeps.ARM.compute(loss) for loss in gap.loss]
    assert gap.ratio == pytest.approx(np.array(truth), rel=1e-6)
    assert set(gap.support) == {"interpolated", "extrapolated"}
    assert gap.overlap is not None
    inside = (gap.loss >= gap.overlap[0]) & (gap.loss <= gap.overlap[1])
    assert list(gap.support == "interpolated") == list(inside)
    at = parametric_gap(*sides, fits, at="flops", grid=np.array([1e19, 1e21]))
    assert at.flops_arm == pytest.approx(np.array([1e19, 1e21]), rel=1e-9)
    assert at.loss == pytest.approx(sweeps.ARM.best_loss(np.array([1e19, 1e21])), rel=1e-9)
    below = parametric_gap(*sides, fits, grid=np.array([sweeps.ARM.E - 0.01]))
    assert np.isnan(below.ratio).all()


def test_families_without_a_surface_are_told_why() -> None:
    rows = sweeps.rows() + sweeps.rows("mdm", sweeps.MDM)[:3]
    fits, doubts = fit_families(sweeps.table(rows), ["arm", "mdm", "gpt"])
    assert list(fits) == ["arm"]
    assert "3 runs" in doubts["mdm"]
    assert "no usable run of gpt" in doubts["gpt"]


def test_the_parametric_gaps_interval_holds_the_truth() -> None:
    table = sweeps.table(sweeps.both(sd=0.003, seed=4, sizes=9, span=8.0))
    isoflop = fit_isoflop(table)
    sides = isoflop.frontier("arm"), isoflop.frontier("mdm")
    fits = fit_parametric(table, family="arm"), fit_parametric(table, family="mdm")
    draws = tuple(bootstrap_parametric(fit, "run", n=400) for fit in fits)
    gap = parametric_gap(*sides, fits, grid=np.array([2.6]), draws=(draws[0], draws[1]))
    assert gap.lower[0] < sweeps.MDM.compute(2.6) / sweeps.ARM.compute(2.6) < gap.upper[0]
    assert gap.upper[0] / gap.lower[0] < 1.5


def test_a_surface_predicts_the_runs_above_a_budget() -> None:
    """True form: errors of the noise's size, inside their interval as often as it says. Another form: they show it."""
    inside, errors = [], []
    for seed in range(8):
        fit = fit_parametric(sweeps.table(sweeps.rows(sd=0.003, seed=seed)))
        told = holdout(fit, 7e19)
        assert set(told["budget"]) == {2.56e20}
        assert len(told) == 7
        assert set(told["law"]) == {"parametric"}
        inside += list(told["inside"])
        errors += list(told["error_nats"])
        assert numbers(told, "predicted") - numbers(told, "observed") == pytest.approx(numbers(told, "error_nats"))
    assert 0.85 <= np.mean(inside) <= 1.0
    assert np.sqrt(np.mean(np.square(errors))) < 2.5 * 0.003
    bent = [row | {"loss": row["loss"] + 0.05 * (row["budget"] > 7e19)} for row in sweeps.rows(sd=0.003)]
    wrong = holdout(fit_parametric(sweeps.table(bent)), 7e19)
    gathered = summarise_runs(records(wrong))[0]
    assert gathered["bias_nats"] == pytest.approx(-0.05, abs=0.006)
    assert (gathered["runs"], gathered["inside"]) == (7, 0)


def test_what_cannot_be_held_out_is_refused() -> None:
    fit = fit_parametric(sweeps.table(sweeps.rows()))
    for budget, message in ((1e10, "no run of ARM lies at or below it; they have 10¹⁸ to"), (1e30, "lies above it"),
                            (1e18, "not converged|cannot show")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            holdout(fit, budget)
    by_family = holdout(fit, {"arm": 7e19})
    assert len(by_family) == 7
    isoflop = fit_isoflop(sweeps.table(sweeps.both(sd=0.001)))
    apart = holdout(isoflop, {"arm": 7e19, "mdm": 7e20})
    assert {(row["family"], row["budget"]) for row in records(apart)} == {("arm", 2.56e20), ("mdm", 2.56e21)}


def test_runs_below_are_weighted_anew() -> None:
    rows = [row | {"loss_se_mc": 0.02 if i % 2 else 0.002} for i, row in enumerate(sweeps.rows(sd=0.003))]
    fit = fit_parametric(sweeps.table(rows))
    keep = fit.runs.budgets < 1e20
    below = fit_surface(fit.runs.only(keep))
    direct = fit_parametric(sweeps.table([row for row in rows if row["budget"] < 1e20]))
    assert below.runs.weights == pytest.approx(direct.runs.weights)
    assert (below.E, below.alpha) == pytest.approx((direct.E, direct.alpha))
    assert below.runs.weights.mean() == pytest.approx(1.0)
    assert isinstance(below.runs.flops["exact"], np.ndarray)
