"""Laws with a floor: never worse than the laws that they contain, and never printed without their floor."""

import json

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from scipy import optimize, stats

from analysis import bootstrap, compute_gap, fit_isoflop, fit_power_law, fit_saturating_power_law
from analysis.fit import main as fit_main
from analysis.gap.__main__ import main as gap_main
from analysis.report.write import write_report

FLOPS = [sweeps.BUDGETS["arm"], sweeps.BUDGETS["mdm"]]


def misfit(law: object, c: np.ndarray, loss: np.ndarray) -> float:
    """Sum of squares of log loss around a law."""
    return float((np.log(loss / law.predict(c)) ** 2).sum())  # pyright: ignore[reportAttributeAccessIssue]


def simulated(count: int) -> list[list[np.ndarray]]:
    """Both families' minima of so many sweeps, with scatter of .002 to .05 nats and with saturated tails."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        sd = (0.002, 0.01, 0.02, 0.05)[seed % 4]
        losses = [s.best_loss(c) for s, c in zip((sweeps.ARM, sweeps.MDM), FLOPS, strict=True)]
        if seed % 3 == 0:  # a tail that no longer falls: the floor meets the lowest losses
            losses = [np.maximum(loss, loss[2]) for loss in losses]
        out.append([loss + sd * rng.standard_normal(5) for loss in losses])
    return out


def test_no_floor_fits_worse_than_none_than_a_given_one_or_than_a_shared_one() -> None:
    for losses in simulated(200):
        shared = fit_saturating_power_law(FLOPS, losses, "shared")
        own = [fit_saturating_power_law(c, loss) for c, loss in zip(FLOPS, losses, strict=True)]
        straight = [fit_power_law(c, loss) for c, loss in zip(FLOPS, losses, strict=True)]
        costs = [
            [misfit(law, c, loss) for law, c, loss in zip(laws, FLOPS, losses, strict=True)]
            for laws in (own, shared, straight)
        ]
        for better, worse in zip(costs[0], costs[2], strict=True):
            assert better <= worse * (1 + 1e-9)
        assert sum(costs[0]) <= sum(costs[1]) * (1 + 1e-9)
        assert sum(costs[1]) <= sum(costs[2]) * (1 + 1e-9)
        for share in (0.0, 0.6, 0.97, 0.9999):
            given = fit_saturating_power_law(FLOPS[0], losses[0], share * float(losses[0].min()))
            assert costs[0][0] <= misfit(given, FLOPS[0], losses[0]) * (1 + 1e-9)


def test_a_fitted_law_is_the_best_that_another_solver_finds_from_many_starts() -> None:
    for losses in simulated(12):
        c, loss = FLOPS[0], losses[0]
        x = np.log(c / c[2])

        def residual(p: np.ndarray, x: np.ndarray = x, loss: np.ndarray = loss) -> np.ndarray:
            return np.log(loss) - np.log(p[0] + np.exp(p[1] + p[2] * x))

        best = np.inf
        for floor in np.linspace(0.0, 0.99, 12) * loss.min():
            start = [floor, np.log(loss[2] - floor + 1e-3), -0.1]
            box = ([0, -np.inf, -np.inf], [loss.min() * (1 - 1e-6), np.inf, np.inf])
            best = min(best, 2 * optimize.least_squares(residual, start, bounds=box, xtol=1e-12, ftol=1e-12).cost)
        assert misfit(fit_saturating_power_law(c, loss), c, loss) <= best * (1 + 1e-6)


def test_every_draw_of_a_bootstrap_with_a_floor_is_no_worse_than_its_power_law() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.02)))
    drawn = bootstrap(fit, n=300)
    from analysis.gap.laws import GAP_LAWS

    pairs = {role: drawn.frontier(role) for role in ("arm", "mdm")}
    pairs = {role: (x, y) for role, (x, y) in pairs.items()}
    costs = {}
    for law in ("shared_floor", "own_floors", "power_law"):
        laws = dict(zip(pairs, GAP_LAWS[law].fit(list(pairs.values()), None), strict=True))
        told = {role: laws[role].log_loss(x) for role, (x, _) in pairs.items()}
        costs[law] = {role: np.nansum((y - told[role]) ** 2, axis=1) for role, (_, y) in pairs.items()}
    both = {law: by["arm"] + by["mdm"] for law, by in costs.items()}
    assert (both["shared_floor"] <= both["power_law"] * (1 + 1e-9)).all()
    assert (both["own_floors"] <= both["shared_floor"] * (1 + 1e-9)).all()


def test_a_floors_interval_ends_where_an_f_test_rejects_and_says_what_the_points_leave_open() -> None:
    rng = np.random.default_rng(1)
    c = np.geomspace(1e17, 1e22, 9)
    loss = 1.8 + 900 * c**-0.15 + 0.004 * rng.standard_normal(9)
    law = fit_saturating_power_law(c, loss)
    low, high = law.floor_interval
    assert 0.5 < low < law.floor < high < loss.min()
    assert not law.floor_undetermined
    limit = stats.f.ppf(0.95, 1, 6)
    for end in (low, high):
        extra = misfit(fit_saturating_power_law(c, loss, end), c, loss) / misfit(law, c, loss) - 1
        assert 6 * extra == pytest.approx(limit, rel=0.01)
    straight = fit_saturating_power_law(c, 45 * c**-0.064 * np.exp(0.002 * rng.standard_normal(9)))
    assert straight.floor_undetermined
    assert straight.floor_interval[0] == 0.0
    three = fit_saturating_power_law(c[::4], loss[::4])  # as many parameters as points
    assert three.floor_undetermined
    assert "floor=" in repr(three)


@pytest.fixture
def straight(tmp_path) -> str:
    """A sweep whose minima lie on straight lines, so that no floor shows, as a table."""
    rows = sweeps.both(sd=0.003)
    for row in rows:
        surface = {"arm": sweeps.ARM, "mdm": sweeps.MDM}[row["family"]]
        k = {"arm": 46.0, "mdm": 54.0}[row["family"]]
        row["loss"] += k * row["budget"] ** -0.064 - float(surface.best_loss(row["budget"]))
    file = tmp_path / "straight.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return str(file)


@pytest.mark.usefixtures("small_pictures")
def test_floors_are_printed_and_those_that_the_minima_leave_open_are_a_finding(straight: str, tmp_path, capsys) -> None:
    assert gap_main([straight, "--bootstrap", "300"]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if "shared floor" in line or "a floor each" in line]
    assert len(rows) >= 2
    assert all("undet." in row for row in rows[:2])
    assert "warning: shared floor: the minima do not determine the floor" in said
    assert gap_main([straight, "--bootstrap", "0", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    by_law = {row["law"]: row for row in table["gaps"]}
    assert by_law["shared_floor"]["floor_status"] == "undetermined"
    assert by_law["power_law"]["floor_status"] == ""
    assert by_law["own_floors"]["floor_arm"] != by_law["own_floors"]["floor_mdm"]
    assert "floor_undetermined" in {finding["code"] for finding in table["findings"]}
    assert fit_main([straight, "--holdout", "1e20"]) == 0
    assert "undet." in next(line for line in capsys.readouterr().out.splitlines() if "its own floor" in line)
    summary, page = write_report(straight, tmp_path / "report", n=200)
    tree = json.loads((tmp_path / "report/fits.json").read_text())
    shared = next(gap for gap in tree["gap_at_headline_loss"] if gap["law"] == "shared_floor")
    assert shared["floor_undetermined"]
    assert shared["floor_intervals"][0][0] == 0.0
    assert "floor_undetermined" in {finding.code for finding in summary.findings}
    assert "The minima do not determine the floor of these laws: shared floor" in page.read_text()


def test_a_floor_that_the_minima_determine_is_no_finding() -> None:
    wide = {"arm": 1e17 * 10.0 ** np.arange(6), "mdm": 1e18 * 10.0 ** np.arange(6)}
    fit = fit_isoflop(sweeps.table(sweeps.both(wide, sd=0.001)))
    gap = compute_gap(fit.frontier("arm"), fit.frontier("mdm"), law="shared_floor")
    low, high = gap.floor_intervals[0]
    assert low < gap.floor < high
    assert not gap.floor_undetermined
    assert gap.floor == pytest.approx(sweeps.ARM.E, abs=0.05)
