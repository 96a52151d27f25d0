"""Approach 1 (Hoffmann et al. 2022): the lower envelope of all training curves, without budgets planned in advance.

Each run's curve is smoothed over a share of its own compute and read at common FLOPs; at each of them the run with the
lowest loss is optimal. If that run has the smallest or the largest size trained that far, the sizes bound the envelope,
not compute, and the point is marked `edge`.

Two cautions, both by construction. A training loss is not an evaluation loss, and for the MDM it is one noisy draw of
the bound a step. And a run in the middle of its schedule has not decayed its learning rate: its loss lies above what a
run that ended there would reach, so that the envelope is too high by an unknown amount. Its N* favours sizes whose runs
end near the given compute.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws.frontier import Frontier
from analysis.laws.power_law import PowerLaw, fit_power_law
from analysis.runs.load import numbers, select
from mdm_jax.files.results import flop_column

POINTS = 60
SMOOTHING = 0.05
FIRST_SHARE = 0.1
"""The first tenth of a run, warm-up and the steep start, is not read."""


@dataclass(frozen=True, eq=False)
class Envelope:
    """The envelope's points and, a family each, the power laws of loss, N and D through those that are `ok`."""

    points: pd.DataFrame
    """family, flops, n, d, loss (smoothed, nats per token), run_id, runs (how many reach there), status ok | edge."""
    laws: dict[tuple[str, str], PowerLaw]
    """The power laws, by (family, "loss" | "n" | "d")."""
    convention: str

    def frontier(self, family: str) -> Frontier:
        """The family's usable points; neighbours share runs, so that they are not independent."""
        rows = select(self.points, (self.points["family"] == family) & (self.points["status"] == "ok"))
        return Frontier(family, numbers(rows, "flops"), numbers(rows, "loss"), self.convention)


def fit_envelope(
    curves: pd.DataFrame, convention: str = "smdm_6nd", points: int = POINTS, smoothing: float = SMOOTHING
) -> Envelope:
    """The envelope of training curves, from `read_curves` or any table with its columns.

    Args:
        curves: run_id, family, params_non_embedding, tokens, loss and the convention's FLOPs, a row a logged step.
        convention: how FLOPs are counted.
        points: FLOPs at which the curves are compared, evenly in log.
        smoothing: half width, in log FLOPs, of the running mean.

    Raises:
        ValueError: a column lacks, an argument is out of range, a loss or an amount is no positive number, or fewer
            than two runs a family overlap in FLOPs.
    """
    column = flop_column(convention)
    lacking = [c for c in ("run_id", "family", "params_non_embedding", "tokens", "loss", column) if c not in curves]
    if lacking:
        raise ValueError(f"curves: lack {', '.join(lacking)}; read them with read_curves, or rename your columns")
    if not (2 <= points <= 10_000 and math.isfinite(smoothing) and smoothing >= 0):
        raise ValueError(f"points = {points}, smoothing = {smoothing}: must be 2 to 10000, and at least 0")
    _refuse_bad_numbers(curves, ("params_non_embedding", "tokens", "loss", column))
    tables = [
        _family_points(str(family), group, column, points, smoothing) for family, group in curves.groupby("family")
    ]
    table = pd.concat(tables, ignore_index=True)
    laws: dict[tuple[str, str], PowerLaw] = {}
    for family in table["family"].unique():
        rows = select(table, (table["family"] == family) & (table["status"] == "ok"))
        if len(np.unique(numbers(rows, "flops"))) >= 2:
            laws |= {(family, y): fit_power_law(numbers(rows, "flops"), numbers(rows, y)) for y in ("loss", "n", "d")}
    return Envelope(table, laws, convention)


def _refuse_bad_numbers(curves: pd.DataFrame, columns: tuple[str, ...]) -> None:
    for name in columns:
        values = numbers(curves, name)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise ValueError(
                f"curves: run {curves['run_id'].iloc[bad[0]]} has {name} = {values[bad[0]]:g} ({len(bad)} such rows in "
                "all); must be finite and above 0: leave those rows out"
            )


def _family_points(family: str, group: pd.DataFrame, column: str, points: int, smoothing: float) -> pd.DataFrame:
    runs = []
    for run_id, steps in group.groupby("run_id"):
        curve = steps.sort_values(column, kind="stable")
        log_c, loss = np.log(numbers(curve, column)), numbers(curve, "loss")
        keep = log_c >= log_c.max() + math.log(FIRST_SHARE)
        if keep.sum() >= 2:
            n, tokens_per_flop = numbers(curve, "params_non_embedding")[0], numbers(curve, "tokens") / np.exp(log_c)
            smooth = _running_mean(log_c, np.log(loss), smoothing)
            runs.append((str(run_id), float(n), log_c[keep], smooth[keep], float(tokens_per_flop[-1])))
    if len(runs) < 2:
        raise ValueError(f"{family}: {len(runs)} runs have a curve, an envelope needs two; log more steps")
    low, high = min(r[2][0] for r in runs), max(r[2][-1] for r in runs)
    rows = [row for c in np.linspace(low, high, points) if (row := _lowest(family, float(c), runs)) is not None]
    if not rows:
        raise ValueError(f"{family}: no two curves reach the same FLOPs, so there is no envelope")
    return pd.DataFrame(rows)


def _lowest(
    family: str, c: float, runs: list[tuple[str, float, np.ndarray, np.ndarray, float]]
) -> dict[str, object] | None:
    """The best run at log FLOPs c, among those whose curve reaches there; None where fewer than two do."""
    there = [(name, n, float(np.interp(c, x, y)), rate) for name, n, x, y, rate in runs if x[0] <= c <= x[-1]]
    if len(there) < 2:
        return None
    name, n, log_loss, rate = min(there, key=lambda run: run[2])
    sizes = sorted({run[1] for run in there})
    status = "ok" if sizes[0] < n < sizes[-1] else "edge"
    best = {"family": family, "flops": math.exp(c), "n": n, "d": math.exp(c) * rate, "loss": math.exp(log_loss)}
    return best | {"run_id": name, "runs": len(there), "status": status}


def _running_mean(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    """Mean of y over |x - x_i| <= half, narrowed evenly at the ends so that a slope stays unbiased."""
    reach = np.minimum(half, np.minimum(x - x[0], x[-1] - x))
    first = np.searchsorted(x, x - reach - 1e-12, side="left")
    last = np.searchsorted(x, x + reach + 1e-12, side="right")
    sums = np.concatenate([[0.0], np.cumsum(y)])
    return (sums[last] - sums[first]) / (last - first)
