"""Large tables: draws do not depend on how many are made at once, and nothing grows with the square of the runs."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import both, scattered, table

import analysis.minima.bootstrap as isoflop_bootstrap
import analysis.surface.bootstrap as surface_bootstrap
import analysis.surface.solver as surface_solver
from analysis import bootstrap, bootstrap_parametric, fit_isoflop, fit_parametric, read_runs
from analysis.minima.noise import family_noise, smoother
from analysis.runs.load import numbers
from analysis.surface.bootstrap import ParametricDraws
from benchmarks.analysis_speed import best_size
from benchmarks.analysis_speed import table as columns


@pytest.mark.parametrize("curve", ["quadratic", "akima"])
def test_the_draws_are_the_same_in_blocks_of_any_size(curve, monkeypatch):
    """Akima's errors are normal ones, the parabola's are residuals."""
    fit = fit_isoflop(table(both(sd=0.004)), curve=curve, noise_sd=0.004 if curve == "akima" else None)
    whole = bootstrap(fit, n=100)
    monkeypatch.setattr(isoflop_bootstrap, "BLOCK", 50)
    for family, draws in bootstrap(fit, n=100).families.items():
        at_once = whole.families[family]
        np.testing.assert_allclose(draws.log_loss, at_once.log_loss, rtol=1e-12)
        np.testing.assert_allclose(draws.log_at["n_opt"], at_once.log_at["n_opt"], rtol=1e-12)
        np.testing.assert_array_equal(draws.lost, at_once.lost)


@pytest.mark.parametrize("unit", ["run", "noise"])
def test_the_draws_of_a_surface_are_the_same_in_blocks_of_any_size(unit, monkeypatch):
    n, d, loss = scattered()
    runs = read_runs(pd.DataFrame({"family": "arm", "params_non_embedding": n, "tokens": d, "loss": loss}))
    fit, done = fit_parametric(runs), []

    def draws() -> ParametricDraws:
        done.clear()
        return bootstrap_parametric(fit, unit, 520, progress=lambda *counts: done.append(counts))

    whole = draws()
    assert done == [(512, 520), (520, 520)]
    monkeypatch.setattr(surface_bootstrap, "BLOCK", 40 * len(n))
    monkeypatch.setattr(surface_solver, "BLOCK", 7 * len(n))
    in_blocks = draws()
    assert done == [(512, 520), (520, 520)]
    for name in ("E", "A", "B", "alpha", "beta"):
        np.testing.assert_array_equal(getattr(in_blocks, name), getattr(whole, name))


def test_the_noise_is_that_of_the_whole_hat_matrix():
    fit = fit_isoflop(table(both(sd=0.004)), weights="equal")
    for family in fit.families:
        cells = fit.cells_of(family)
        rest, missed = [], []
        for cell in cells:
            hat = cell.design @ smoother(cell.design, np.ones_like(cell.y))
            assert cell.missed is not None
            rest.append(cell.y - hat @ cell.y)
            missed.append(cell.missed - hat @ cell.missed)
        left, shared = np.concatenate(rest), np.concatenate(missed)
        left -= shared * (shared @ left) / (shared @ shared)
        noise = family_noise(cells, None)
        assert noise.sd == pytest.approx(np.sqrt(left @ left / noise.dof), rel=1e-9)


def test_memory_does_not_grow_with_draws_times_runs(monkeypatch):
    """A cell has 600 runs: their hat matrix would take 2.9 MB, and all redrawn losses 4.8 MB."""
    runs = read_runs(pd.DataFrame(columns(12_000)))
    monkeypatch.setattr(isoflop_bootstrap, "BLOCK", 1 << 14)
    tracemalloc.start()
    try:
        fit = fit_isoflop(runs)
        _, of_fit = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        draws = bootstrap(fit, n=1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept = sum(values.nbytes for side in draws.families.values() for values in [side.log_loss, *side.log_at.values()])
    assert peak - before < kept + 3e6
    assert of_fit < 30e6
    for family in fit.families:
        minima = fit.minima_of(family)
        assert len(minima) == 10
        np.testing.assert_allclose(minima["n_opt"], [best_size(c) for c in minima["budget"]], rtol=0.1)


def test_cells_are_read_by_their_kind_and_as_before():
    """Numbers are taken as they are; objects and text cell by cell."""
    plain = {"family": ["arm"] * 3, "params_non_embedding": [1e6, 2e6, 4e6], "tokens": [10**9, 10**9, 10**9]}
    runs = read_runs(pd.DataFrame(plain | {"loss": [3.0, np.nan, np.inf], "git_sha": ["a\x1bb", None, " c "]}))
    as_text = {name: pd.Series(values, dtype=object).astype(str) for name, values in plain.items()}
    other = read_runs(pd.DataFrame(as_text | {"loss": ["3.0", "", "inf"], "git_sha": ["a\x1bb", None, " c "]}))
    pd.testing.assert_frame_equal(runs, other)
    assert list(runs["git_sha"]) == ["a b", "", "c"]
    assert list(runs["excluded_reason"]) == ["", *["loss is not a finite number"] * 2]
    assert runs["device"].tolist() == ["", "", ""]
    assert np.isnan(numbers(runs, "lr")).all()
