"""How long 4000 resamples of a 240-point parametric fit take: our solver and scipy's BFGS, on one machine in one run.

    python benchmarks/fit_speed.py [--draws 4000] [--repeats 5] [--scipy 200]

The program takes about a minute on two cores, and writes benchmarks/results/fit_speed.json. The points are those of
Hoffmann et al. 2022, Fig. 4, if the reference data are present (see tests/conftest.py). Otherwise 240 points of the
same range and scatter are simulated. scipy's BFGS gets the analytic gradient and a scaled objective, and starts from
the full fit as ours does. It is timed on a subset of the resamples, and its time for all of them is extrapolated.
Wall-clock times depend on the machine's other work; their ratio hardly does.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from analysis import ParametricFit, bootstrap_parametric, fit_parametric, read_runs
from analysis.surface.fit import fit_surface, solver_theta
from analysis.surface.problem import SurfaceRuns, centred
from analysis.surface.solver import minimise, predict

HERE = Path(__file__).resolve().parent
COLUMNS = "params_non_embedding=Model Size,budget=Training FLOP,loss=loss,family==arm"
SCALE = 1e3
"""Factor of scipy's objective. It makes scipy's absolute tolerances this many times stricter."""


def fit_of_240_points() -> tuple[str, ParametricFit]:
    folder = Path(os.environ.get("MDM_REFERENCE_DATA") or HERE.parent.parent / "shared" / "data")
    file = folder / "scaling" / "epoch_chinchilla_svg_extracted.csv"
    if file.exists():
        runs = read_runs(file, COLUMNS).sort_values("loss").head(240)
        return "Hoffmann et al. 2022, Fig. 4, digitised", fit_parametric(runs)
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 240))
    d = np.exp(rng.uniform(np.log(1e18), np.log(3e21), 240)) / 6 / n
    losses = (1.8172 + 477.8 / n**0.3473 + 2143 / d**0.3672) * np.exp(0.007 * rng.standard_normal(240))
    return "simulated", fit_surface(SurfaceRuns(n, d, losses))


def seconds_of_bootstrap(fit: ParametricFit, draws: int, seed: int) -> float:
    begin = time.perf_counter()
    bootstrap_parametric(fit, n=draws, seed=seed)
    return time.perf_counter() - begin


def with_scipy(fit: ParametricFit, draws: int) -> tuple[float, float]:
    """Seconds per resample, and the share of resamples that end 1e-6 or more above our minimum."""
    huber, size = fit.criterion.huber, len(fit.runs)
    points, means = centred(fit.runs, huber.log)
    start = solver_theta(fit, means)
    weights = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), draws).astype(np.float64)
    ours = minimise(np.tile(start, (draws, 1)), weights, points, huber)

    def scaled(theta: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
        predicted, (p0, p1, p2) = predict(theta, points.u, points.v, huber.log)
        r = predicted - points.y
        psi = w * np.clip(r, -huber.delta, huber.delta)
        gradient = np.array([psi @ p0, psi @ p1, psi @ p2, -(psi * points.u) @ p1, -(psi * points.v) @ p2])
        return float(w @ huber.of(r)) * SCALE, gradient * SCALE

    above, begin = 0, time.perf_counter()
    for w, best in zip(weights, ours.value, strict=True):
        found = minimize(scaled, start, args=(w,), jac=True, method="BFGS").fun
        above += found > SCALE * best * (1 + 1e-6)
    return (time.perf_counter() - begin) / draws, above / draws


def measure(draws: int, repeats: int, scipy_draws: int) -> dict[str, Any]:
    data, fit = fit_of_240_points()
    seconds = [seconds_of_bootstrap(fit, draws, seed) for seed in range(repeats)]
    each, above = with_scipy(fit, scipy_draws)
    return {
        "data": data,
        "points": len(fit.runs),
        "draws": draws,
        "seconds": seconds,
        "median_s": {"ours": statistics.median(seconds), "scipy": each * draws},
        "scipy": {"method": "BFGS", "draws_timed": scipy_draws, "share_above_minimum": above},
        "machine": {"processors": os.cpu_count(), "load_average_1min": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000, help="resamples (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timings; the median is printed (default %(default)s)")
    parser.add_argument("--scipy", type=int, default=200, help="resamples that scipy is timed on (default %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fit_speed.json")
    options = parser.parse_args()
    found = measure(options.draws, options.repeats, options.scipy)
    ours, scipy = found["median_s"].values()
    print(f"{found['draws']} resamples of {found['points']} points ({found['data']}): {ours:.2f} s")
    print(f"scipy: {scipy:.2f} s, {scipy / ours:.1f} times as long (extrapolated from {options.scipy} resamples)")
    print(f"scipy ends above our minimum by more than 1e-6 in {found['scipy']['share_above_minimum']:.0%} of resamples")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
