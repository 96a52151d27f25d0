"""The cells of a sweep: one budget of one family each, with its runs around a common centre and the curve's form."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.minima.choices import ABSCISSAE, CURVES, SCATTER, WEIGHTS
from analysis.minima.curves import Curve, distinct, make_curve, merged, powers, within_window
from analysis.runs.load import numbers, select, usable_runs
from mdm_jax.files.results import FLOP_COLUMNS

QUANTITIES = ("loss_opt", "n_opt", "d_opt")
"""The quantities of a minimum that laws describe: loss (nats per token), parameters and tokens."""
AT_VERTEX = {"n_opt": "params_non_embedding", "d_opt": "tokens", **{name: name for name in FLOP_COLUMNS.values()}}
REPLICATES = ("params_non_embedding", "params", "tokens", "lr", "batch_size", "warmup_steps", "objective_variant")
"""Runs of a budget that agree in these, and whose seeds are not known to be the same, are repetitions."""
MOST_NOISE = 10.0
"""Nats: no run-to-run sd is as large as losses are."""
OUTSIDE = "outside the window"


@dataclass(frozen=True)
class Recipe:
    """How IsoFLOP curves are fitted."""

    x: str = "params_non_embedding"
    """Abscissa: params_non_embedding, params, tokens, or flops_per_token (exact FLOPs over tokens)."""
    curve: str = "quadratic"
    log_loss: bool = False
    window: float | None = None
    """Only runs within this factor of the minimum are fitted; None fits all."""
    noise_sd: float | Mapping[str, float] | None = None
    """Run-to-run sd of a loss, nats per token, where it is known, of all families or by family; None estimates it."""
    weights: str = "errors"
    """errors: by the inverse variance of each run; equal: ordinary least squares."""
    scatter: str = "add"
    """add: intervals include the scatter of the minima around smooth laws beyond their errors; ignore: they do not."""

    def __post_init__(self) -> None:
        choices = {"x": ABSCISSAE, "curve": CURVES, "weights": WEIGHTS, "scatter": SCATTER}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} = {value!r}: must be one of {', '.join(known)}")
        if self.window is not None and not (math.isfinite(self.window) and self.window > 1):
            raise ValueError(f"window = {self.window}: must be a factor above 1, such as 4 (from N*/4 to 4 N*)")
        given = self.noise_sd.values() if isinstance(self.noise_sd, Mapping) else (self.noise_sd,)
        if not all(sd is None or 0 <= sd <= MOST_NOISE for sd in given):
            raise ValueError(f"noise_sd = {self.noise_sd}: must be a standard deviation in nats, 0 to {MOST_NOISE:g}")

    def known_noise(self, family: str) -> float | None:
        """The family's noise, nats per token, where it was given."""
        return self.noise_sd.get(family) if isinstance(self.noise_sd, Mapping) else self.noise_sd


@dataclass(frozen=True, eq=False)
class Cell:
    """One budget of one family: its m runs, its curve's k coefficients, and the smooth quantities along it."""

    family: str
    budget: float
    center: float
    u: np.ndarray
    """log abscissa minus `center`, [m]; sizes that count as one have their mean."""
    y: np.ndarray
    """loss, or log loss, [m]."""
    known: np.ndarray
    """Known standard error of y (Monte Carlo, and the noise where it was given), [m]."""
    sizes: int
    along: dict[str, np.ndarray]
    """log of N, D and FLOPs as quadratics in u, [3] each; nan where the table lacks them."""
    curve: Curve
    design: np.ndarray
    """The curve's design matrix at the runs, [m, k]."""
    missed: np.ndarray | None
    """The shape that the curve misses at every budget alike, [m]; None for curves that miss little."""
    replicate_group: np.ndarray
    """Number of the group of seed replicates that each run belongs to, [m]."""
    rows: np.ndarray
    """Positions of the runs in the fit's table, [m]."""
    variance: np.ndarray = field(default_factory=lambda: np.zeros(0))
    smoother: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    coefficients: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def enough(self) -> bool:
        """Whether there are enough sizes for a curve."""
        return self.sizes >= self.curve.min_sizes

    @property
    def fitted(self) -> bool:
        """Whether the cell has its curve."""
        return len(self.coefficients) > 0

    @property
    def vertex(self) -> tuple[float, float]:
        """Abscissa u and y of the curve's minimum; nan where it has none."""
        u, y = self.curve.vertex(self.coefficients)
        return float(u), float(y)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the coefficients, [k, k]."""
        return (self.smoother * self.variance) @ self.smoother.T

    def by_size(self) -> tuple[np.ndarray, np.ndarray]:
        """The positions of the runs by rising size [m], and where each size begins in them [sizes]."""
        u = np.round(self.u, 9)
        order = np.argsort(u, kind="stable")
        return order, np.flatnonzero(np.diff(u[order], prepend=-np.inf) > 0)

    @property
    def swept(self) -> tuple[float, float]:
        """The least and the largest abscissa u of the cell's runs."""
        return float(self.u.min()), float(self.u.max())

    def read(self, name: str, u: np.ndarray) -> np.ndarray:
        """N, D or FLOPs (a key of AT_VERTEX) at abscissa u, [...]."""
        return np.asarray(np.exp(powers(u, 2) @ self.along[name]))


def least_supported(y: np.ndarray, by_size: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The least y [...] of a minimum that a cell's runs support.

    The least y lies as far below the lowest size's mean loss as the median size lies above that loss. A parabola
    through evenly spaced sizes dips by an eighth of this distance at most. A curve that dips further has its minimum
    from an outlier, or from a gap between sizes. Bad runs cannot widen the range if they are fewer than half.

    Args:
        y: [..., m] of the cell's runs, measured or redrawn.
        by_size: the cell's `by_size()`.
    """
    order, starts = by_size
    means = np.add.reduceat(y[..., order], starts, axis=-1) / np.diff(starts, append=len(order))
    ranked = np.sort(means, axis=-1)
    return np.asarray(2 * ranked[..., 0] - ranked[..., ranked.shape[-1] // 2])


def without_window(runs: pd.DataFrame) -> pd.DataFrame:
    """A copy in which the runs that only a window left out are back."""
    runs = runs.copy()
    runs.loc[runs["excluded_reason"] == OUTSIDE, "excluded_reason"] = ""
    return runs


def make_cells(runs: pd.DataFrame, budgets: np.ndarray, recipe: Recipe) -> list[Cell]:
    """One cell for each family and budget, in that order, of the usable runs that lie within the recipe's window.

    Args:
        runs: a table that has the recipe's abscissa.
        budgets: FLOPs of each run's budget, [n]; runs share a cell where these are equal.
        recipe: of the IsoFLOP curves.
    """
    rows = np.flatnonzero(runs["excluded_reason"] == "")
    usable = usable_runs(runs).assign(budget=budgets[rows])
    usable["replicate_group"] = _replicate_groups(usable)
    return [_make_cell(own, rows[own.index], recipe) for _, own in usable.groupby(["family", "budget"])]


def _replicate_groups(runs: pd.DataFrame) -> np.ndarray:
    """Number of the group of repetitions of each run, [m]; a seed that a group has already makes a group of its own."""
    alike = runs.groupby(["family", "budget", *REPLICATES], dropna=False).ngroup().to_numpy(copy=True)
    seeds = numbers(runs, "seed")
    again = pd.DataFrame({"alike": alike, "seed": seeds}).duplicated().to_numpy() & np.isfinite(seeds)
    alike[again] = len(alike) + np.arange(int(again.sum()))
    return alike


def _make_cell(runs: pd.DataFrame, rows: np.ndarray, recipe: Recipe) -> Cell:
    """The cell of one budget's runs, whose positions in the fit's table are `rows` [m]."""
    family, budget = str(runs["family"].iloc[0]), float(runs["budget"].iloc[0])
    log_x, loss = np.log(numbers(runs, recipe.x)), numbers(runs, "loss")
    y = np.log(loss) if recipe.log_loss else loss
    if recipe.window is not None:
        inside = within_window(merged(log_x - log_x.mean()), y, recipe.curve, math.log(recipe.window))
        runs, rows, log_x, loss, y = select(runs, inside), rows[inside], log_x[inside], loss[inside], y[inside]
    center = float(log_x.mean())
    own = log_x - center
    u = merged(own)
    known = np.hypot(np.nan_to_num(numbers(runs, "loss_se_mc")), recipe.known_noise(family) or 0.0)
    sizes = len(distinct(u))
    along = {}
    for name, column in AT_VERTEX.items():
        values = numbers(runs, column)
        design = powers(own, min(2, sizes - 1))
        fit = np.linalg.pinv(design) @ np.log(values) if (values > 0).all() else np.full(design.shape[1], np.nan)
        along[name] = np.pad(fit, (0, 3 - len(fit)))
    curve, group = make_curve(recipe.curve, u), runs["replicate_group"].to_numpy()
    known = known / loss if recipe.log_loss else known
    at_runs = curve.design(u), curve.missed(u)
    return Cell(family, budget, center, u, y, known, sizes, along, curve, *at_runs, group, rows)
