"""What one more run tells, by formula, against simulated sweeps that are fitted by other means."""

import math

import numpy as np
import pytest
from imitated_sweep import SD, gap_variance
from synthetic_sweeps import ARM, BUDGETS, MDM, both, table

from analysis import bootstrap, compute_gap, fit_isoflop, middle_of_overlap
from analysis.minima.information import Knowledge, knowledge


def on_surface(family: str, budget: float, n: float) -> float:
    return float({"arm": ARM, "mdm": MDM}[family].loss(n, budget / 6 / n))


def synthetic() -> tuple[Knowledge, list[tuple[str, float, float]]]:
    """A noisy sweep of the planted surfaces: what its fit knows, and its runs."""
    rows = both(sd=SD, sizes=7)
    fit = fit_isoflop(table(rows), noise_sd=SD)
    middle = middle_of_overlap(fit.frontier("arm"), fit.frontier("mdm"))
    return knowledge(fit, middle), [(r["family"], r["budget"], r["params_non_embedding"]) for r in rows]


def test_predicted_reduction_is_the_simulated_one() -> None:
    known, runs = synthetic()
    assert math.sqrt(gap_variance(runs, known.loss, on_surface, 2000) / known.gap_variance) == pytest.approx(
        1, abs=0.08
    )
    after, more = known, list(runs)
    for _ in range(8):
        keys = [(family, float(f"{budget:.6g}"), n) for family, budget, n in runs]
        family, budget, n = max(keys, key=lambda key: after.gap_gain(*key) / key[1])
        gain, variance = after.gap_gain(family, budget, n), after.gap_variance
        after = after.with_run(family, budget, n)
        assert after.gap_variance == pytest.approx(variance - gain, rel=1e-9)
        more.append((family, budget, n))
    predicted = after.gap_variance / known.gap_variance
    realised = gap_variance(more, known.loss, on_surface, 2000) / gap_variance(runs, known.loss, on_surface, 2000)
    assert predicted < 0.8
    assert realised == pytest.approx(predicted, rel=0.12)  # two variances of 2000 draws: 4.5% by chance alone


def test_size_is_known_as_well_as_the_simulation_says() -> None:
    known, runs = synthetic()
    family, budget = "mdm", float(BUDGETS["mdm"][2])
    n = np.array([size for f, b, size in runs if (f, b) == (family, budget)])
    key = family, float(f"{budget:.6g}")
    for sizes, knows in ((n, known), (np.append(n, n[0]), known.with_run(*key, float(n[0])))):
        u = np.log(sizes)
        truth = np.array([on_surface(family, budget, size) for size in sizes])
        y = truth[:, None] + SD * np.random.default_rng(3).standard_normal((len(u), 4000))
        _, c1, c2 = np.linalg.lstsq(np.stack([np.ones_like(u), u, u**2], axis=1), y, rcond=None)[0]
        assert np.std(-c1 / (2 * c2)) == pytest.approx(knows.size_sd(*key), rel=0.1)


def test_interval_is_the_reports() -> None:
    fit = fit_isoflop(table(both(sd=SD)))
    middle = middle_of_overlap(fit.frontier("arm"), fit.frontier("mdm"))
    gap = compute_gap(fit.frontier("arm"), fit.frontier("mdm"), grid=np.array([middle]), draws=bootstrap(fit, n=4000))
    factor = math.sqrt(gap.upper[0] / gap.lower[0])
    known = knowledge(fit, middle)
    assert math.log(known.gap_factor()) == pytest.approx(math.log(factor), rel=0.15)
    assert known.ratio == pytest.approx(gap.ratio[0])
