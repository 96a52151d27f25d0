"""How long 4000 resamples of a 240-point parametric fit take: jax, numpy and scipy, on one machine in one run.

    python benchmarks/fit_speed.py [--draws 4000] [--repeats 5] [--scipy 200]

About a minute on two cores. The points are those of Hoffmann et al. 2022, Fig. 4, where the reference data are (see
tests/conftest.py), else 240 simulated ones of the same range and scatter. scipy's BFGS has the analytic gradient and a
scaled objective, starts from the full fit as ours does, and is timed on a subset of the resamples: its time for all is
extrapolated, and the table says so. Wall-clock times depend on what else the machine does; the ratios hardly.
Writes benchmarks/results/fit_speed.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from analysis import ParametricFit, bootstrap_parametric, read_runs
from analysis.surface.fit import centred, criterion_of, fit_surface, solver_theta
from analysis.surface.solver import minimise, predict

HERE = Path(__file__).resolve().parent
COLUMNS = "params_non_embedding=Model Size,budget=Training FLOP,loss=loss,family==arm"
SCALE = 1e3
"""The factor of scipy's objective, so that its tolerances end where the fit does."""


def points() -> tuple[str, ParametricFit]:
    folder = Path(os.environ.get("MDM_REFERENCE_DATA") or HERE.parent.parent / "shared" / "data")
    file = folder / "scaling" / "epoch_chinchilla_svg_extracted.csv"
    if file.exists():
        runs = read_runs(file, COLUMNS).sort_values("loss").head(240)
        n, d, losses = (np.asarray(runs[name], np.float64) for name in ("params_non_embedding", "tokens", "loss"))
        return "Hoffmann et al. 2022, Fig. 4, digitised", fit_surface(n, d, losses)
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 240))
    d = np.exp(rng.uniform(np.log(1e18), np.log(3e21), 240)) / 6 / n
    losses = (1.8172 + 477.8 / n**0.3473 + 2143 / d**0.3672) * np.exp(0.007 * rng.standard_normal(240))
    return "simulated", fit_surface(n, d, losses)


def timed(run: Callable[[int], Any], repeats: int) -> list[float]:
    """Seconds of each repeat, with another seed each."""
    seconds = []
    for seed in range(repeats):
        begin = time.perf_counter()
        run(seed)
        seconds.append(time.perf_counter() - begin)
    return seconds


def with_scipy(fit: ParametricFit, draws: int) -> tuple[float, float]:
    """Seconds per resample, and the share of resamples that end 1e-6 or more above our minimum."""
    criterion = criterion_of(fit.form, fit.space, fit.loss, fit.delta)
    points, means = centred(fit.n, fit.d, fit.losses, criterion)
    start, size, delta = solver_theta(fit, means), len(fit.n), fit.delta
    weights = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), draws).astype(np.float64)
    ours = minimise(np.tile(start, (draws, 1)), weights, points, criterion)

    def scaled(theta: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
        predicted, (p0, p1, p2) = predict(np, theta, points.u, points.v, log=True)
        r = predicted - points.y
        far, psi = np.abs(r), w * np.clip(r, -delta, delta) * SCALE
        value = w @ np.where(far <= delta, 0.5 * r * r, delta * (far - 0.5 * delta)) * SCALE
        return float(value), np.array([psi @ p0, psi @ p1, psi @ p2, -(psi * points.u) @ p1, -(psi * points.v) @ p2])

    above, begin = 0, time.perf_counter()
    for w, best in zip(weights, ours.value, strict=True):
        found = minimize(scaled, start, args=(w,), jac=True, method="BFGS").fun
        above += found > SCALE * best * (1 + 1e-6)
    return (time.perf_counter() - begin) / draws, above / draws


def measure(draws: int, repeats: int, with_scipy_draws: int) -> dict[str, Any]:
    data, fit = points()
    first = timed(lambda seed: bootstrap_parametric(fit, n=512, seed=seed, backend="jax"), 1)[0]
    seconds = {
        backend: timed(lambda seed, name=backend: bootstrap_parametric(fit, n=draws, seed=seed, backend=name), repeats)
        for backend in ("jax", "numpy")
    }
    each, above = with_scipy(fit, with_scipy_draws)
    medians = {name: statistics.median(values) for name, values in seconds.items()} | {"scipy": each * draws}
    return {
        "data": data,
        "points": len(fit.n),
        "draws": draws,
        "repeats": repeats,
        "jax_first_call_of_512_with_import_and_compilation_s": first,
        "seconds": seconds,
        "median_s": medians,
        "times_scipy": {name: medians["scipy"] / value for name, value in medians.items()},
        "scipy": {
            "method": "BFGS",
            "draws_timed": with_scipy_draws,
            "extrapolated": True,
            "share_above_minimum": above,
        },
        "machine": {
            "processors": os.cpu_count(),
            "load_average_1min": os.getloadavg()[0],
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000, help="resamples (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of which the median is quoted (default %(default)s)")
    parser.add_argument("--scipy", type=int, default=200, help="resamples that scipy is timed on (default %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fit_speed.json")
    options = parser.parse_args()
    found = measure(options.draws, options.repeats, options.scipy)
    print(f"{found['draws']} resamples of {found['points']} points ({found['data']}), median of {found['repeats']}")
    print(f"{'':8}{'seconds':>10}{'x scipy':>10}")
    for name, seconds in found["median_s"].items():
        note = f"  extrapolated from {options.scipy} resamples" if name == "scipy" else ""
        print(f"{name:8}{seconds:>10.2f}{found['times_scipy'][name]:>10.1f}{note}")
    first = found["jax_first_call_of_512_with_import_and_compilation_s"]
    print(f"jax's first call (512 resamples, with import and compilation): {first:.1f} s")
    print(f"scipy ends above our minimum by more than 1e-6 in {found['scipy']['share_above_minimum']:.0%} of resamples")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
