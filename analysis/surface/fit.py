"""Parametric fits: L(N, D) = E + A/N^alpha + B/D^beta through all runs of a family (Hoffmann et al. 2022, approach 3).

The published values of that paper are not at the minimum of its own objective (Besiroglu et al. 2024), because the
objective's numbers were below the optimiser's tolerances; the replication's are 2e-4 above it for the same reason. So
here the optimiser is blind to scale (`parametric_solver`), it starts from many exponents, and a fit is called
converged only if at least half of the starts end in the same place, no further step is to be gained, and the data
determine all five parameters; `reason` says what fails.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.laws.saturating import SaturatingPowerLaw
from analysis.runs.groups import check_one_group, check_one_loss
from analysis.runs.load import numbers, select, usable_runs
from analysis.runs.raw_tables import as_runs
from analysis.surface.frontier import (
    SIX_ND,
    ComputeOptimal,
    SurfaceFrontier,
    TokenCost,
    fit_token_cost,
    optimum_terms,
)
from analysis.surface.solver import Criterion, Points, State, decrement, minimise, predict
from mdm_jax.results import FLOP_COLUMNS, flop_column

SPACES = ("log", "linear")
LOSSES = ("huber", "asymmetric_mae", "squares")
NO_BEND = 1e6
"""Huber's delta, nats, beyond any residual: least squares."""
EXPONENTS = (0.15, 0.3, 0.5, 0.8, 1.2)
"""Starts are all pairs of these as (alpha, beta); the other parameters follow by linear least squares."""
PARAMETERS = ("E", "A", "B", "alpha", "beta")
FEWEST_RUNS = 6
FEWEST_VALUES = 3
AGREEING_SHARE = 0.5
SAME_OBJECTIVE = 1e-6
SAME_PARAMETERS = 1e-3
MOST_DECREMENT = 1e-8
NEGLIGIBLE = 1e-4
"""Part of the loss below which a term has vanished."""
MOST_EXPONENT = 5.0
MOST_STEPS = 400
"""Most steps of each start. A start that needs more is lost in a valley, and does not agree with the others."""


@dataclass(frozen=True, eq=False)
class ParametricFit:
    """L(N, D) = E + A / N^alpha + B / D^beta, nats per token, and how far to trust it."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    """Sum over runs of the (weighted) loss of the residual."""
    starts: int
    starts_agreeing: int
    """Starts that ended at the same objective (1e-6) and the same parameters (1e-3) as the best."""
    converged: bool
    reason: str
    """Why the fit is not converged; empty if it is."""
    decrement: float
    """Share of the objective that another Newton step would gain."""
    family: str
    form: str
    space: str
    loss: str
    delta: float
    over: float
    n: np.ndarray = field(repr=False)
    """Parameters of the runs, [m]."""
    d: np.ndarray = field(repr=False)
    """Training tokens, [m]."""
    losses: np.ndarray = field(repr=False)
    """nats per token, [m]."""
    weights: np.ndarray = field(repr=False)
    """Relative weight of each run, [m]; all 1 unless given."""
    budgets: np.ndarray = field(repr=False)
    """FLOPs budget of each run, [m]; nan where the runs name none."""
    se_mc: np.ndarray = field(repr=False)
    """Monte Carlo error of each loss, nats per token, [m]; 0 where there is none."""
    flops: dict[str, np.ndarray] = field(repr=False)
    """FLOPs of each run, [m], by convention; empty where only N and D are known."""

    def predict(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Loss, nats per token, of n parameters trained on d tokens."""
        n, d = np.asarray(n, np.float64), np.asarray(d, np.float64)
        return np.asarray(self.E + self.A * n**-self.alpha + self.B * d**-self.beta)

    @property
    def residuals(self) -> np.ndarray:
        """Measured minus predicted, [m]: of log loss in log space, else nats per token."""
        predicted = self.predict(self.n, self.d)
        return np.log(self.losses / predicted) if self.space == "log" else self.losses - predicted

    @property
    def optimum(self) -> ComputeOptimal:
        """The compute-optimal N, D and loss that the surface implies, under C = 6 N D.

        Raises:
            ValueError: a term vanished or does not fall, so that there is no best N.
        """
        if not (0 < self.A < math.inf and 0 < self.B < math.inf and self.alpha > 0 and self.beta > 0):
            raise ValueError(f"optimum: the surface has none ({self.reason})")
        log_k, exponent, log_g, a = optimum_terms(math.log(self.A), math.log(self.B), self.alpha, self.beta)
        law = SaturatingPowerLaw(math.exp(log_k), float(exponent), self.E, self.floor_vanished)
        return ComputeOptimal(law, float(a), float(log_g))

    @property
    def floor_vanished(self) -> bool:
        """Whether E ran to 0: the runs show no floor."""
        return NEGLIGIBLE * float(self.losses.min()) > self.E

    def token_cost(self, convention: str) -> TokenCost:
        """FLOPs per token as a function of N, from these runs' own; exactly 6 N under smdm_6nd.

        Raises:
            ValueError: an unknown convention, or runs whose FLOPs under it do not tell such a function.
        """
        if flop_column(convention) == "flops_6nd":
            return SIX_ND
        if convention not in self.flops:
            raise ValueError(f"{convention}: the runs' FLOPs under it are unknown")
        try:
            return fit_token_cost(self.n, self.flops[convention] / self.d)
        except ValueError as refusal:
            raise ValueError(f"{self.family}, {convention}: {refusal}") from None

    def frontier(self, convention: str) -> SurfaceFrontier:
        """The best loss at each compute, counted by a convention.

        Raises:
            ValueError: as `token_cost`.
        """
        terms = np.array([self.E, np.log(self.A), np.log(self.B), self.alpha, self.beta])
        return SurfaceFrontier(terms[:, None, None], self.token_cost(convention))


def fit_parametric(
    runs: pd.DataFrame,
    form: str = "chinchilla",
    space: str = "log",
    loss: str = "huber",
    delta: float = 1e-3,
    family: str | None = None,
    over: float = 10.0,
) -> ParametricFit:
    """The surface through the usable runs of one family (Hoffmann et al. 2022, approach 3).

    Runs are weighted by their `loss_se_mc` where they have one. The default is that paper's objective, Huber's loss of
    log residuals. Look at `converged` and `reason` before anything else; `optimum` has the best N and D at 6 N D FLOPs.

    Args:
        runs: from `read_runs`, or any table with its needed columns.
        form: "chinchilla", E + A/N^alpha + B/D^beta; N is params_non_embedding, D is tokens.
        space: residuals of "log" loss or of the loss itself ("linear").
        loss: of a residual: "huber"; "asymmetric_mae", absolute errors with weight `over` where the prediction lies
            above the measured loss; or "squares".
        delta: where Huber's loss turns linear.
        family: which family; needed where the runs hold several.
        over: see `loss`; for other losses without effect.

    Raises:
        ValueError: an unknown option, no or several families, several groups, or runs that `fit_surface` refuses.
    """
    runs = as_runs(runs)
    used = usable_runs(runs)
    present = sorted(set(used["family"]))
    if family is None and len(present) > 1:
        raise ValueError(f"runs: hold {' and '.join(present)}; a surface belongs to one family, so name it: family=")
    name = family if family is not None else "".join(present)
    used = select(used, used["family"] == name)
    if used.empty:
        reasons = sorted(set(runs["excluded_reason"]) - {""})
        said = f" (left out: {', '.join(reasons)})" if reasons else ""
        raise ValueError(f"runs: no usable run of {name or 'any family'}{said}")
    check_one_group(used)
    check_one_loss(used)
    n, d, losses, budgets = (numbers(used, name) for name in ("params_non_embedding", "tokens", "loss", "budget"))
    flops = {convention: numbers(used, column) for convention, column in FLOP_COLUMNS.items()}
    se_mc = np.nan_to_num(numbers(used, "loss_se_mc"))
    return fit_surface(n, d, losses, form, space, loss, delta, over, None, name, budgets, se_mc, flops)


def refit(fit: ParametricFit, keep: np.ndarray) -> ParametricFit:
    """The same fit to some of its runs, `keep` [m] of booleans; weights from Monte Carlo errors are found anew.

    Raises:
        ValueError: fewer than six runs, or fewer than three different N or D.
    """
    weights = None if (fit.se_mc > 0).any() else fit.weights[keep]
    flops = {convention: values[keep] for convention, values in fit.flops.items()}
    return fit_surface(
        fit.n[keep], fit.d[keep], fit.losses[keep], fit.form, fit.space, fit.loss, fit.delta, fit.over, weights,
        fit.family, fit.budgets[keep], fit.se_mc[keep], flops,
    )  # fmt: skip


def _precision(fit: ParametricFit, se_mc: np.ndarray) -> np.ndarray:
    """Weights [m], mean 1, inverse to the variance of a run's loss: the scatter around `fit`, and Monte Carlo's own.

    The scatter (1.4826 median absolute residuals, squared) holds a typical Monte Carlo variance already, which is taken
    off first.
    """
    own = (se_mc / fit.losses if fit.space == "log" else se_mc) ** 2
    total = (1.4826 * float(np.median(np.abs(fit.residuals)))) ** 2
    other = max(total - float(np.median(own)), 0.01 * total)
    precision = 1 / (other + own)
    return precision / precision.mean()


def fit_surface(
    n: np.ndarray,
    d: np.ndarray,
    losses: np.ndarray,
    form: str = "chinchilla",
    space: str = "log",
    loss: str = "huber",
    delta: float = 1e-3,
    over: float = 10.0,
    weights: np.ndarray | None = None,
    family: str = "",
    budgets: np.ndarray | None = None,
    se_mc: np.ndarray | None = None,
    flops: dict[str, np.ndarray] | None = None,
) -> ParametricFit:
    """The fit of `fit_parametric`, from arrays: parameters, tokens and losses (nats per token), [m] each.

    Without weights, Monte Carlo errors give them: the runs are fitted alike first, which tells the other scatter.

    Raises:
        ValueError: an unknown option, arrays of different lengths, values that are not finite and positive, fewer than
            six runs, or fewer than three different N or D.
    """
    if weights is None and se_mc is not None and (se_mc > 0).any():
        alike = fit_surface(n, d, losses, form, space, loss, delta, over, np.ones(len(n)), family, budgets)
        weights = _precision(alike, se_mc)
    criterion = criterion_of(form, space, loss, delta, over)
    n, d, losses = (np.asarray(values, np.float64) for values in (n, d, losses))
    weights = np.ones(len(n)) if weights is None else np.asarray(weights, np.float64)
    _check({"n": n, "d": d, "losses": losses, "weights": weights})
    points, means = centred(n, d, losses, criterion)
    state = _from_starts(starts(points, losses, criterion), weights, points, criterion)
    best = int(np.argmin(np.where(np.isfinite(state.value), state.value, np.inf)))
    spread = np.abs(state.theta - state.theta[best]).max(1)
    floor = 1e-20 * weights.sum()
    close = state.value <= state.value[best] * (1 + SAME_OBJECTIVE) + floor
    agreeing = int((close & (spread < SAME_PARAMETERS)).sum())
    left = float(decrement(state)[best])
    theta = state.theta[best]
    reason = _doubt(theta, state.hessian[best], left, agreeing, len(spread), losses, points, criterion)
    E, A, B, alpha, beta = (float(value) for value in natural(theta, means))
    return ParametricFit(
        E, A, B, alpha, beta, objective_at(theta, weights, points, criterion), len(spread), agreeing,
        not reason, reason, left, family, form, space, loss, delta, over, n, d, losses, weights,
        np.full(len(n), np.nan) if budgets is None else np.asarray(budgets, np.float64),
        np.zeros(len(n)) if se_mc is None else se_mc, flops or {},
    )  # fmt: skip


def criterion_of(form: str, space: str, loss: str, delta: float, over: float = 10.0) -> Criterion:
    """What is minimised, or a ValueError that names the option."""
    for name, value, known in (("form", form, ("chinchilla",)), ("space", space, SPACES), ("loss", loss, LOSSES)):
        if value not in known:
            raise ValueError(f"{name} = {value!r}: must be one of {', '.join(known)}")
    for name, value in (("delta", delta), ("over", over)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value}: must be finite and positive")
    log = space == "log"
    if loss == "asymmetric_mae":
        return Criterion(log, 0.0, over)
    return Criterion(log, delta if loss == "huber" else NO_BEND)


def _check(arrays: dict[str, np.ndarray]) -> None:
    lengths = {name: values.shape for name, values in arrays.items()}
    if len(set(lengths.values())) > 1 or arrays["n"].ndim != 1:
        raise ValueError(f"n, d, losses and weights: must be lists of one length, are {lengths}")
    for name, values in arrays.items():
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise ValueError(f"{name}: run {bad[0]} has {values[bad[0]]}; it must be finite and positive")
    if len(arrays["n"]) < FEWEST_RUNS:
        raise ValueError(f"{len(arrays['n'])} runs: a surface has five parameters, so it needs {FEWEST_RUNS} or more")
    for name in ("n", "d"):
        different = len(np.unique(arrays[name]))
        if different < FEWEST_VALUES:
            raise ValueError(f"{name}: {different} different values cannot show a curve; have {FEWEST_VALUES} or more")


def centred(n: np.ndarray, d: np.ndarray, losses: np.ndarray, criterion: Criterion) -> tuple[Points, np.ndarray]:
    """The runs as the solver takes them, and the means of log N and log D, [2]."""
    u, v = np.log(n), np.log(d)
    means = np.array([u.mean(), v.mean()])
    return Points(u - means[0], v - means[1], np.log(losses) if criterion.log else losses), means


def natural(theta: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, ...]:
    """E, A, B, alpha and beta, [...] each, of the solver's parameters [..., 5]."""
    e, a, b, alpha, beta = np.moveaxis(theta, -1, 0)
    with np.errstate(over="ignore"):  # an exponent that ran away is reported, not warned about
        values = np.exp(e), np.exp(a + alpha * means[0]), np.exp(b + beta * means[1]), alpha, beta
    return tuple(np.asarray(value) for value in values)


def solver_theta(fit: ParametricFit, means: np.ndarray) -> np.ndarray:
    """The inverse of `natural`, [5]."""
    a, b = math.log(fit.A) - fit.alpha * means[0], math.log(fit.B) - fit.beta * means[1]
    return np.array([math.log(fit.E), a, b, fit.alpha, fit.beta])


def starts(points: Points, losses: np.ndarray, criterion: Criterion) -> np.ndarray:
    """Starts [S, 5]: for each pair of exponents the best E, A and B by linear least squares (variable projection).

    In log space a run weighs 1/loss^2, which is the same to first order in the residual. Terms that come out negative
    start at a small positive part of the loss.
    """
    row = np.sqrt(1 / losses if criterion.log else np.ones_like(losses))
    found = []
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            design = np.stack([np.ones_like(losses), np.exp(-alpha * points.u), np.exp(-beta * points.v)], axis=1)
            solution = np.linalg.lstsq(design * row[:, None] ** 2, losses * row**2, rcond=None)[0]
            terms = np.log(np.maximum(solution, 0.02 * losses.min()))
            found.append([*terms, alpha, beta])
    return np.array(found)


def _from_starts(theta: np.ndarray, weights: np.ndarray, points: Points, criterion: Criterion) -> State:
    """The states at which the starts [S, 5] end."""
    rows = np.broadcast_to(weights, (len(theta), len(weights)))
    stages = [minimise(theta, rows, points, stage, MOST_STEPS) for stage in criterion.smoothed()[:1]]
    for stage in criterion.smoothed()[1:]:
        stages = [minimise(stages[0].theta, rows, points, stage, MOST_STEPS)]
    return stages[0]


def objective_at(theta: np.ndarray, weights: np.ndarray, points: Points, criterion: Criterion) -> float:
    """Sum over runs of the criterion, at the solver's parameters [5]; absolute errors are not smoothed."""
    r = predict(np, theta, points.u, points.v, criterion.log)[0] - points.y
    size, delta = np.abs(r), criterion.delta
    each = np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta)) if delta else size
    return float((weights * np.where(r > 0, criterion.over, 1.0) * each).sum())


def _doubt(
    theta: np.ndarray, hessian: np.ndarray, left: float, agreeing: int, tried: int, losses: np.ndarray,
    points: Points, criterion: Criterion,
) -> str:  # fmt: skip
    """Why the fit is not to be trusted, or nothing."""
    parts = predict(np, theta, points.u, points.v, False)[1]
    lowest = float(losses.min())
    for name, part in zip(("E", "A/N^alpha", "B/D^beta"), parts, strict=True):
        if float(part.max()) < NEGLIGIBLE * lowest:
            return f"{name} ran to zero: these runs show no such term"
    for name, value in (("alpha", theta[3]), ("beta", theta[4])):
        if not NEGLIGIBLE < value < MOST_EXPONENT:
            return f"{name} = {value:.3g} is no exponent of a loss that falls: these runs do not determine it"
    if left > MOST_DECREMENT:
        return f"stopped before a minimum: one more step would lower the objective by {left:.2g} of it"
    if agreeing < AGREEING_SHARE * tried:
        return f"only {agreeing} of {tried} starts agree: there are several minima, or a valley without one"
    scale = 1 / np.sqrt(np.diag(hessian))
    if float(np.linalg.eigvalsh(hessian * scale[:, None] * scale)[0]) < 1e-12:
        return "the runs lie along a line on which the terms cannot be told apart: vary N and D independently"
    return ""
