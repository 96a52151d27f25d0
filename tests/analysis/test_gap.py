import dataclasses
from typing import Any

import numpy as np
import pytest
import synthetic_sweeps as sweeps

from analysis import Frontier, IsoFlopFit, bootstrap, check, compute_gap, fit_isoflop, middle_of_overlap, overlap
from analysis.gap.curve import percentile_interval
from analysis.gap.surfaces import fit_surfaces
from analysis.laws.power_law import lines
from analysis.minima.bootstrap import Bootstrap, FamilyDraws
from analysis.runs.load import numbers
from analysis.surface.frontier import optimum_terms


@pytest.fixture(scope="module")
def noisy() -> IsoFlopFit:
    return fit_isoflop(sweeps.table(sweeps.both(sd=0.005)))


def frontiers(budgets: dict[str, np.ndarray]) -> tuple[Frontier, Frontier]:
    """True compute-optimal points of both families."""
    surfaces = {"arm": sweeps.ARM, "mdm": sweeps.MDM}
    arm, mdm = (Frontier(f, budgets[f], surfaces[f].best_loss(budgets[f])) for f in ("arm", "mdm"))
    return arm, mdm


def true_gap(loss: np.ndarray) -> np.ndarray:
    return np.array([sweeps.MDM.compute(x) / sweeps.ARM.compute(x) for x in loss])


def test_interpolation_through_true_minima_gives_the_true_gap() -> None:
    """Measured worst errors with budgets a factor 4 and 10 apart: cubic .08 and .7%, straight segments 1.4 and 7%."""
    for step, most, straights in ((4.0, 0.0012, 0.01), (10.0, 0.008, 0.05)):
        arm, mdm = frontiers({"arm": 1e18 * step ** np.arange(5), "mdm": 1e19 * step ** np.arange(5)})
        cubic, straight = compute_gap(arm, mdm), compute_gap(arm, mdm, law="piecewise_linear")
        assert (cubic.support == "interpolated").all()
        assert np.abs(cubic.ratio / true_gap(cubic.loss) - 1).max() < most
        assert np.abs(straight.ratio / true_gap(straight.loss) - 1).max() > straights


def test_minima_that_a_cheaper_budget_beats_are_left_out() -> None:
    arm = Frontier("arm", 1e18 * 4.0 ** np.arange(4), np.array([3.2, 3.0, 3.05, 2.8]))
    mdm = Frontier("mdm", 1e19 * 4.0 ** np.arange(4), np.array([3.3, 3.1, 2.95, 2.85]))
    assert list(arm.beaten) == [False, False, True, False]
    without = Frontier("arm", np.delete(arm.flops, 2), np.delete(arm.loss, 2))
    losses = np.array([2.9, 3.0, 3.05, 3.1])
    gap = compute_gap(arm, mdm, grid=losses)
    assert gap.flops_arm == pytest.approx(compute_gap(without, mdm, grid=losses).flops_arm, rel=1e-12)
    assert (np.diff(gap.flops_arm) < 0).all()
    assert gap.flops_arm[1] == pytest.approx(4e18)
    worse = Frontier("arm", arm.flops, np.array([3.0, 3.4, 3.2, 2.8]))
    assert worse.loss_range == (2.8, 3.0)
    assert overlap(worse, mdm) == (2.85, 3.0)


def test_a_shared_floor_is_found_and_extrapolates_where_the_power_law_fails() -> None:
    arm, mdm = frontiers(sweeps.BUDGETS)
    losses = np.array([2.2, 2.0])
    floor, line = (compute_gap(arm, mdm, law=law, grid=losses) for law in ("shared_floor", "power_law"))
    assert list(floor.support) == ["extrapolated"] * 2
    assert floor.floor == pytest.approx(sweeps.ARM.E, rel=1e-6)
    assert not floor.floor_at_bound
    assert floor.ratio == pytest.approx(true_gap(losses), rel=1e-4)
    assert line.ratio[1] < 0.3 * true_gap(losses)[1]
    assert np.isnan(compute_gap(arm, mdm, law="shared_floor", grid=np.array([1.8])).ratio).all()


def test_without_a_floor_the_power_law_is_exact_and_the_floor_is_undetermined() -> None:
    c = sweeps.BUDGETS["arm"]
    arm, mdm = Frontier("arm", c, 45 * c**-0.064), Frontier("mdm", 10 * c, 50 * (10 * c) ** -0.0625)
    line = compute_gap(arm, mdm, law="power_law")
    assert line.ratio == pytest.approx((line.loss / 50) ** (-1 / 0.0625) / (line.loss / 45) ** (-1 / 0.064), rel=1e-9)
    assert compute_gap(arm, mdm, law="shared_floor").floor_at_bound
    assert set(line.support) == {"interpolated", "extrapolated"}


@pytest.mark.parametrize("law", ["interpolated", "power_law", "shared_floor"])
def test_at_flops_and_at_loss_are_the_same_curve(law: str) -> None:
    arm, mdm = frontiers(sweeps.BUDGETS)
    at_loss = compute_gap(arm, mdm, law=law)
    at_flops = compute_gap(arm, mdm, law=law, at="flops", grid=at_loss.flops_arm)
    assert at_flops.loss == pytest.approx(at_loss.loss, rel=1e-9)
    assert at_flops.ratio == pytest.approx(at_loss.ratio, rel=1e-6)
    default = compute_gap(arm, mdm, law=law, at="flops")
    assert np.diff(np.log(default.flops_arm)) == pytest.approx(np.diff(np.log(default.flops_arm))[0], rel=1e-6)


def test_outside_the_overlap_nothing_is_interpolated() -> None:
    arm, mdm = frontiers(sweeps.BUDGETS)
    shared = overlap(arm, mdm)
    assert shared is not None
    assert shared == (mdm.loss.min(), arm.loss.max())
    gap = compute_gap(arm, mdm, grid=np.array([shared[0] - 0.01, shared[0], shared[1], shared[1] + 0.01]))
    assert list(gap.support) == ["extrapolated", "interpolated", "interpolated", "extrapolated"]
    assert list(np.isnan(gap.ratio)) == [True, False, False, True]
    assert middle_of_overlap(arm, mdm) == pytest.approx(np.sqrt(shared[0] * shared[1]))


def test_families_that_share_no_loss_have_no_interpolated_gap() -> None:
    arm, mdm = frontiers({"arm": 1e20 * 4.0 ** np.arange(3), "mdm": 1e19 * 4.0 ** np.arange(3)})
    assert overlap(arm, mdm) is None
    assert middle_of_overlap(arm, mdm) is None
    with pytest.raises(ValueError, match=r"do not overlap.*law='power_law'"):
        compute_gap(arm, mdm)
    assert set(compute_gap(arm, mdm, law="power_law").support) == {"extrapolated"}


def test_impossible_gaps_are_refused() -> None:
    arm, mdm = frontiers(sweeps.BUDGETS)
    exact = Frontier("mdm", mdm.flops, mdm.loss, "exact")
    one = Frontier("mdm", mdm.flops[:1], mdm.loss[:1])
    two = Frontier("arm", arm.flops[:2], arm.loss[:2])
    cases: list[tuple[tuple[Frontier, Frontier, dict[str, Any]], str]] = [
        ((arm, exact, {}), "arm counts smdm_6nd, mdm exact"),
        ((arm, one, {}), "mdm: 1 usable minima, a gap needs two"),
        ((two, Frontier("mdm", mdm.flops[:2], mdm.loss[:2]), {"law": "shared_floor"}), "needs five minima"),
        ((arm, mdm, {"law": "chinchilla"}), "must be one of interpolated"),
        ((arm, mdm, {"at": "tokens"}), "must be 'loss' or 'flops'"),
        ((arm, mdm, {"level": 1.0}), "between 0 and 1"),
        ((mdm, arm, {}), "must be the ARM's and the MDM's"),
        ((arm, mdm, {"grid": np.array([-1.0])}), "finite positive"),
    ]
    for (first, second, options), message in cases:
        with pytest.raises(ValueError, match=message):
            compute_gap(first, second, **options)
    with pytest.raises(ValueError, match="flops must be finite and positive"):
        Frontier("arm", np.array([1.0, np.nan]), np.array([1.0, 2.0]))


def test_draws_must_be_enough_and_of_these_minima(noisy: IsoFlopFit) -> None:
    arm, mdm = noisy.frontier("arm"), noisy.frontier("mdm")
    with pytest.raises(ValueError, match=r"draws = 199: too few for a 0.95 interval, which needs 200"):
        compute_gap(arm, mdm, draws=bootstrap(noisy, n=199))
    assert np.isfinite(compute_gap(arm, mdm, draws=bootstrap(noisy, n=200)).lower).any()
    other = fit_isoflop(sweeps.table(sweeps.both(sd=0.005, seed=1)))
    fewer = Frontier("mdm", mdm.flops[1:], mdm.loss[1:])
    for first, second, draws in ((arm, mdm, bootstrap(other, n=200)), (arm, fewer, bootstrap(noisy, n=200))):
        with pytest.raises(ValueError, match="minima than these"):
            compute_gap(first, second, draws=draws)


def test_intervals_at_the_arms_flops_hold_the_flops(noisy: IsoFlopFit) -> None:
    draws = bootstrap(noisy, n=400)
    sides = {family: noisy.frontier(family) for family in ("arm", "mdm")}
    c = np.array([1e20, 1e22])
    (log_k, slope), (log_k_mdm, slope_mdm) = (lines(*draws.frontier(family)) for family in ("arm", "mdm"))
    log_l = log_k[:, None] + slope[:, None] * np.log(c)
    expected = percentile_interval((log_l - log_k_mdm[:, None]) / slope_mdm[:, None] - np.log(c), 0.95)
    gap = compute_gap(sides["arm"], sides["mdm"], "flops", "power_law", c, draws)
    assert (gap.lower, gap.upper) == (pytest.approx(expected[0], rel=1e-9), pytest.approx(expected[1], rel=1e-9))
    at_loss = compute_gap(sides["arm"], sides["mdm"], "loss", "power_law", gap.loss, draws)
    assert np.abs(np.log(gap.upper / at_loss.upper)).max() > 1e-3
    for law in ("interpolated", "shared_floor", "own_floors"):
        there = compute_gap(sides["arm"], sides["mdm"], "flops", law, np.array([1e19]), draws)
        assert there.lower[0] < there.ratio[0] < there.upper[0]


def test_the_surfaces_intervals_at_the_arms_flops_hold_the_flops(noisy: IsoFlopFit) -> None:
    surfaces = fit_surfaces(noisy.runs, 200, 0)
    assert surfaces.draws is not None
    c = np.array([1e20])
    terms = [optimum_terms(np.log(d.A), np.log(d.B), d.alpha, d.beta)[:2] for d in surfaces.draws]
    reached = surfaces.draws[0].E + np.exp(terms[0][0] + terms[0][1] * np.log(c))
    log_mdm = (np.log(reached - surfaces.draws[1].E) - terms[1][0]) / terms[1][1]
    expected = percentile_interval((log_mdm - np.log(c))[:, None], 0.95)
    gap = surfaces.gap((noisy.frontier("arm"), noisy.frontier("mdm")), "flops", c, 0.95)
    assert (gap.lower, gap.upper) == (pytest.approx(expected[0], rel=1e-6), pytest.approx(expected[1], rel=1e-6))


def test_draws_spread_as_the_standard_errors_say(noisy: IsoFlopFit) -> None:
    """Residual draws with Student's factor: variance dof / (dof - 2) = 20 / 18 of the delta method's."""
    draws = bootstrap(noisy, n=20000).families["mdm"]
    minima = noisy.minima_of("mdm")
    swell = np.sqrt(20 / 18)
    assert np.exp(draws.log_loss).std(0) == pytest.approx(swell * numbers(minima, "loss_opt_se"), rel=0.04)
    assert draws.log_at["n_opt"].std(0) == pytest.approx(swell * numbers(minima, "log_x_se"), rel=0.06)
    assert not draws.lost.any()


def test_the_same_seed_gives_the_same_draws_whatever_else_is_fitted(noisy: IsoFlopFit) -> None:
    alone = fit_isoflop(sweeps.table(sweeps.rows("mdm", sweeps.MDM, sweeps.BUDGETS["mdm"], sd=0.005)))
    for unit in ("run", "budget"):
        first, again, other = (bootstrap(noisy, unit=unit, n=50, seed=seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first.families["mdm"].log_loss, again.families["mdm"].log_loss)
        assert (first.families["mdm"].log_loss != other.families["mdm"].log_loss).any()
        lonely = bootstrap(alone, unit=unit, n=50, seed=3).families["mdm"]
        np.testing.assert_allclose(lonely.log_loss, first.families["mdm"].log_loss, rtol=1e-12)


def test_budget_draws_scatter_as_the_minima_do_around_their_law() -> None:
    c = np.array([1e18, 2e18, 4e18, 1e19, 2e19, 5e19, 1e20, 3e20])
    rows = sweeps.rows(budgets=c, sd=0.02, span=8.0)
    fit = fit_isoflop(sweeps.table(rows))
    draws = bootstrap(fit, unit="budget", n=20000)
    log_k, exponent = draws.power_laws("arm", "n_opt")
    log_n, log_c = np.log(numbers(fit.minima_of("arm"), "n_opt")), np.log(c)
    line = np.polyfit(log_c, log_n, 1)
    s2 = ((log_n - np.polyval(line, log_c)) ** 2).sum() / 6
    expected = np.sqrt(s2 / ((log_c - log_c.mean()) ** 2).sum() * 6 / 4)
    assert exponent.std() == pytest.approx(expected, rel=0.12)
    assert np.median(exponent) == pytest.approx(line[0], abs=0.2 * expected)
    assert np.isfinite(log_k).all()
    assert np.isfinite(draws.frontier("arm", "exact")[0]).all()


def test_noise_free_sweeps_have_intervals_of_no_width() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(budgets={f: b[:4] for f, b in sweeps.BUDGETS.items()}, span=1.2)))
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    gap = compute_gap(arm, mdm, draws=bootstrap(fit, n=200))
    assert gap.lower == pytest.approx(gap.ratio, rel=2e-3)
    assert gap.upper == pytest.approx(gap.ratio, rel=2e-3)
    assert gap.ratio == pytest.approx(true_gap(gap.loss), rel=0.01)


def test_a_bootstrap_refuses_what_it_cannot_draw(noisy: IsoFlopFit) -> None:
    refused: list[dict[str, Any]] = [{"unit": "seed"}, {"n": 0}, {"n": 10**9}, {"seed": -1}]
    for options in refused:
        with pytest.raises(ValueError, match="must be"):
            bootstrap(noisy, **options)


def test_lost_draws_widen_the_interval_until_it_says_nothing() -> None:
    values = np.log(np.linspace(1, 2, 1001))[:, None]
    low, high, unknown = percentile_interval(values, 0.9)
    assert (low[0], high[0], unknown[0]) == pytest.approx((1.05, 1.95, 0.0), abs=2e-3)
    some = values.copy()
    some[::20] = np.nan  # 5%: 2.5% stand beyond either end
    low, high, unknown = percentile_interval(some, 0.9)
    assert (low[0], high[0], unknown[0]) == pytest.approx((1.026, 1.974, 0.051), abs=3e-3)
    values[::5] = np.nan
    low, high, _ = percentile_interval(values, 0.9)
    assert (low[0], high[0]) == (0.0, np.inf)


def test_flat_noisy_budgets_lose_draws_and_say_so() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.02, span=1.8, seed=4)))
    draws = bootstrap(fit, n=500)
    assert max(d.lost.max() for d in draws.families.values()) > 0.02
    arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
    gap = compute_gap(arm, mdm, law="power_law", grid=np.array([3.0]), draws=draws)
    assert (gap.lower < gap.ratio).all()
    assert (gap.ratio < gap.upper).all()


def with_lost(draws: Bootstrap, lost: np.ndarray) -> Bootstrap:
    """The draws in which the MDM's budgets `lost` [n, B] have no minimum."""
    mdm = draws.families["mdm"]
    log_at = {name: np.where(lost, np.nan, values) for name, values in mdm.log_at.items()}
    holed = dataclasses.replace(mdm, log_loss=np.where(lost, np.nan, mdm.log_loss), log_at=log_at)
    return dataclasses.replace(draws, families={**draws.families, "mdm": holed})


def without(draws: FamilyDraws, budget: int) -> FamilyDraws:
    """The draws of a family that never had this budget."""
    cut = {name: np.delete(getattr(draws, name), budget, -1) for name in ("budgets", "log_loss", "outside", "lost")}
    log_at, own = ({name: np.delete(values, budget, -1) for name, values in table.items()}
                   for table in (draws.log_at, draws.log_minimum))  # fmt: skip
    return FamilyDraws(**cut, log_at=log_at, log_minimum=own)


@pytest.mark.parametrize("law", ["interpolated", "power_law", "shared_floor"])
def test_a_draw_goes_through_the_minima_it_kept_and_is_unknown_with_fewer_than_two(noisy: IsoFlopFit, law: str) -> None:
    draws = bootstrap(noisy, n=400)
    arm, mdm = noisy.frontier("arm"), noisy.frontier("mdm")
    where = np.array([middle_of_overlap(arm, mdm)])
    lost = np.zeros((400, 5), bool)
    lost[:, 2] = True
    poorer = compute_gap(arm, mdm, law=law, grid=where, draws=with_lost(draws, lost))
    gone = Bootstrap("run", 400, 0, {**draws.families, "mdm": without(draws.families["mdm"], 2)})
    fewer = Frontier("mdm", np.delete(mdm.flops, 2), np.delete(mdm.loss, 2))
    known = compute_gap(arm, fewer, law=law, grid=where, draws=gone)
    assert (poorer.lower, poorer.upper) == (pytest.approx(known.lower), pytest.approx(known.upper))
    assert poorer.unknown[0] == 0.0
    lost[:8, 1:] = True
    assert compute_gap(arm, mdm, law=law, grid=where, draws=with_lost(draws, lost)).unknown == pytest.approx(8 / 400)
    lost[:40, 1:] = True
    blind = compute_gap(arm, mdm, law=law, grid=where, draws=with_lost(draws, lost))
    assert (blind.lower[0], blind.upper[0]) == (0.0, np.inf)


def test_beaten_minima_wide_steps_and_lost_draws_are_findings() -> None:
    rows = sweeps.both({"arm": 1e18 * 10.0 ** np.arange(5), "mdm": sweeps.BUDGETS["mdm"]}, sd=0.002)
    worse = [row | {"loss": row["loss"] + 0.9 * (row["family"] == "arm" and row["budget"] > 1e21)} for row in rows]
    fit = fit_isoflop(sweeps.table(worse))
    found = {finding.code: finding for finding in check(fit.runs, fit)}
    assert "leaves out 1 of the minima" in found["loss_rises"].message
    assert found["wide_budgets"].number == pytest.approx(10.0)
    assert found["wide_budgets"].message.startswith("ARM")
    flat = fit_isoflop(sweeps.table(sweeps.both(sd=0.02, span=1.8, seed=4)))
    lost = [finding for finding in check(flat.runs, flat, bootstrap(flat, n=200)) if finding.code == "lost_draws"]
    assert all("go through the other budgets" in finding.remedy for finding in lost)
    assert lost


def coverage(step: float, law: str, sweeps_drawn: int = 40) -> np.ndarray:
    """The coverage at 10, 50 and 90% of the overlap, [3]."""
    budgets = {"arm": 1e17 * step ** np.arange(5), "mdm": 1e18 * step ** np.arange(5)}
    hits = np.zeros(3)
    for seed in range(sweeps_drawn):
        fit = fit_isoflop(sweeps.table(sweeps.both(budgets, sd=0.005, seed=seed)))
        arm, mdm = fit.frontier("arm"), fit.frontier("mdm")
        shared = overlap(arm, mdm)
        assert shared is not None
        loss = np.exp(np.log(shared[0]) + np.log(shared[1] / shared[0]) * np.array([0.1, 0.5, 0.9]))
        gap = compute_gap(arm, mdm, law=law, grid=loss, draws=bootstrap(fit, n=400, seed=seed))
        hits += (gap.lower <= true_gap(loss)) & (true_gap(loss) <= gap.upper)
    return hits / sweeps_drawn


@pytest.mark.slow
def test_the_interpolated_interval_covers_and_the_power_laws_does_not() -> None:
    """40 sweeps with a floor, budgets a factor 10 apart. 33 hits fail by chance once in 1000 at a coverage of 95%."""
    assert coverage(10.0, "interpolated").min() > 33 / 40
    assert coverage(10.0, "power_law", 12).max() < 0.5
