"""A bend of the minima is told apart from scatter between budgets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_sweeps as sweeps
from published_points import porian

from analysis import bootstrap, check, fit_isoflop, read_runs
from analysis.minima.bend import IMPROBABLE, compare_neighbours
from analysis.minima.scatter import measure_scatter, scatter_of, scatter_said

ERROR = 0.0017
BUDGETS = 1e18 * 4.0 ** np.arange(10)
X = np.linspace(-1, 1, 10)
SMOOTH = 1.8 + 1.1 * np.exp(-0.5 * X)
BENT = SMOOTH - 0.1 * np.tanh(X / 0.35)


def noisy(loss: np.ndarray, scatter: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 17])
    return loss + np.hypot(ERROR, scatter) * rng.standard_normal(len(loss))


def test_a_bend_is_found_and_most_of_it_is_not_called_scatter() -> None:
    found = [measure_scatter(BUDGETS, noisy(BENT, 0.0, seed), np.full(10, ERROR)) for seed in range(20)]
    assert all(side.bends for side in found)
    assert max(side.sd for side in found) < 0.012  # off the smooth law lie .026 nats
    assert min(side.chi2 for side in found) > 500
    assert all(2 < side.sd_dof < side.dof for side in found)


def test_scatter_is_not_called_a_bend_and_its_size_is_right() -> None:
    """Neighbours show the true scatter, and few sets are called bent."""
    called, sizes = 0, []
    for seed in range(150):
        loss = noisy(SMOOTH, 0.01, seed)
        side = measure_scatter(BUDGETS, loss, np.full(10, ERROR))
        called += side.bends
        sizes.append(compare_neighbours(X, loss, np.full(10, ERROR), -0.5, 0.01).sd)
    assert called / 150 <= IMPROBABLE
    assert np.sqrt(np.mean(np.square(sizes))) == pytest.approx(0.01, rel=0.1)


def test_scatter_beside_a_bend_is_kept() -> None:
    sizes = [measure_scatter(BUDGETS, noisy(BENT, 0.01, seed), np.full(10, ERROR)).sd for seed in range(60)]
    assert np.median(sizes) > 0.008


def test_probabilities_are_uniform_where_all_is_scatter() -> None:
    """The law is known here; a fitted law and a fitted scatter make the test more careful."""
    p = [compare_neighbours(X, noisy(SMOOTH, 0.01, seed), np.full(10, ERROR), -0.5, 0.01).p for seed in range(400)]
    for share in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(p) < share) == pytest.approx(share, abs=0.06)


def test_a_line_has_no_disagreement_and_uneven_budgets_are_weighed() -> None:
    """Neighbours' line is straight in log C, however unevenly the budgets lie."""
    x = np.sort(np.r_[-1.0, 1.0, np.random.default_rng(0).uniform(-1, 1, 8)])
    exact = compare_neighbours(x, 3.0 - 0.4 * x, np.full(10, ERROR), 0.0, 0.01)
    assert exact.sd == 0.0
    assert exact.p < 1e-12
    moved = [
        compare_neighbours(x, noisy(3.0 - 0.4 * x, 0.01, seed), np.full(10, ERROR), 0.0, 0.01).sd for seed in range(150)
    ]
    assert np.sqrt(np.mean(np.square(moved))) == pytest.approx(0.01, rel=0.12)


@pytest.mark.parametrize("budgets", [4, 5, 6, 7])
def test_fewer_budgets_are_not_asked(budgets: int) -> None:
    side = measure_scatter(
        BUDGETS[:budgets], BENT[:budgets] + 0.05 * (-1) ** np.arange(budgets), np.full(budgets, ERROR)
    )
    assert np.isnan(side.bend_p)
    assert not side.bends
    assert side.sd_dof == side.dof


def test_a_bend_is_a_finding_and_intervals_include_only_what_lies_beside_it() -> None:
    budgets = {"arm": BUDGETS, "mdm": 1e19 * 4.0 ** np.arange(5)}
    rows = sweeps.both(budgets, sd=0.003)
    for row in rows:
        if row["family"] == "arm":
            row["loss"] -= 0.1 * np.tanh(np.log(row["budget"] / 5e20) / 2.2)
    fit = fit_isoflop(sweeps.table(rows))
    (message,) = [finding.message for finding in check(fit.runs, fit) if finding.code == "loss_bends"]
    assert message.startswith("ARM: the minima lie off a smooth law by chi-squared")
    assert "but follow a bend: scatter would leave neighbours further apart" in message
    assert "of scatter beside the bend" in scatter_said(fit, "run")[0]
    side = scatter_of(fit)["arm"]
    assert bootstrap(fit, n=200).scatter["arm"] == side
    off_the_law = np.sqrt(side.chi2 / side.dof) * ERROR
    assert side.sd < off_the_law / 3


def test_none_of_fifteen_published_sweeps_bends(reference_data: Path) -> None:
    """Porian et al. 2024. Two of them scatter, in which the learning rates were not tuned for each size."""
    sides = [scatter_of(fit_isoflop(read_runs(pd.DataFrame(columns))))["arm"] for _, columns in porian(reference_data)]
    assert sum(np.isfinite(side.bend_p) for side in sides) >= 6
    assert not any(side.bends for side in sides)
    assert sum(side.p < 0.05 for side in sides) == 2
