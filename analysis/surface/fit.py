"""Parametric fits: L(N, D) = E + A/N^alpha + B/D^beta through all runs of a family (Hoffmann et al. 2022, approach 3).

The published values of that paper are not at the minimum of its own objective (Besiroglu et al. 2024), because the
objective's numbers were below the optimiser's tolerances. The replication's values are 2e-4 above the minimum, for the
same reason. The optimiser here does not depend on the objective's scale (`surface/solver.py`), and it starts from many
exponents. A fit is converged only if at least half of the starts end in the same place, no further step gains anything,
and the data determine all five parameters; `reason` says what fails.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.laws.saturating import SaturatingPowerLaw
from analysis.runs.groups import check_one_group, check_one_loss
from analysis.runs.load import as_runs, numbers, select, usable_runs
from analysis.surface.frontier import (
    SIX_ND,
    ComputeOptimal,
    SurfaceFrontier,
    TokenCost,
    fit_token_cost,
    optimum_terms,
)
from analysis.surface.problem import HOFFMANN, Criterion, SurfaceRuns, centred, natural
from analysis.surface.solver import Points, State, decrement, minimise, predict
from mdm_jax.files.results import FLOP_COLUMNS, flop_column

EXPONENTS = (0.15, 0.3, 0.5, 0.8, 1.2)
"""Starts are all pairs of these as (alpha, beta); the other parameters follow by linear least squares."""
PARAMETERS = ("E", "A", "B", "alpha", "beta")
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
    reason: str
    """Why the fit is not converged; empty if it is."""
    decrement: float
    """Share of the objective that another Newton step would gain."""
    runs: SurfaceRuns
    """The fitted runs with their weights."""
    criterion: Criterion

    @property
    def converged(self) -> bool:
        """Whether nothing speaks against the fit."""
        return not self.reason

    @property
    def family(self) -> str:
        """The family whose runs were fitted."""
        return self.runs.family

    def predict(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Loss, nats per token, of n parameters trained on d tokens."""
        n, d = np.asarray(n, np.float64), np.asarray(d, np.float64)
        return np.asarray(self.E + self.A * n**-self.alpha + self.B * d**-self.beta)

    @property
    def residuals(self) -> np.ndarray:
        """Measured minus predicted, [m]: of log loss in log space, else nats per token."""
        losses, predicted = self.runs.losses, self.predict(self.runs.n, self.runs.d)
        return np.log(losses / predicted) if self.criterion.space == "log" else losses - predicted

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
        return NEGLIGIBLE * float(self.runs.losses.min()) > self.E

    def token_cost(self, convention: str) -> TokenCost:
        """FLOPs per token as a function of N, from these runs' own; exactly 6 N under smdm_6nd.

        Raises:
            ValueError: an unknown convention, or runs whose FLOPs under it do not tell such a function.
        """
        if flop_column(convention) == "flops_6nd":
            return SIX_ND
        if convention not in self.runs.flops:
            raise ValueError(f"{convention}: the runs' FLOPs under it are unknown")
        try:
            return fit_token_cost(self.runs.n, self.runs.flops[convention] / self.runs.d)
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
    space: str = "log",
    loss: str = "huber",
    delta: float = 1e-3,
    family: str | None = None,
    over: float = 10.0,
) -> ParametricFit:
    """The surface E + A/N^alpha + B/D^beta through a family's usable runs (Hoffmann et al. 2022, approach 3).

    N is params_non_embedding, D is tokens. Runs are weighted by their `loss_se_mc` where they have one. The default is
    that paper's objective, Huber's loss of log residuals. Look at `converged` and `reason` before anything else;
    `optimum` has the best N and D at 6 N D FLOPs.

    Args:
        runs: from `read_runs`, or any table with its needed columns.
        space: residuals of "log" loss or of the loss itself ("linear").
        loss: of a residual: "huber"; "asymmetric_mae", absolute errors with weight `over` where the prediction lies
            above the measured loss; or "squares".
        delta: where Huber's loss turns linear.
        family: which family; needed where the runs hold several.
        over: see `loss`; for other losses without effect.

    Raises:
        ValueError: an unknown option, no or several families, several groups, or runs that `SurfaceRuns` refuses.
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
    fitted = SurfaceRuns(n, d, losses, name, budgets=budgets, se_mc=se_mc, flops=flops)
    return fit_surface(fitted, Criterion(space, loss, delta, over))


def _precision(fit: ParametricFit, se_mc: np.ndarray) -> np.ndarray:
    """Weights [m], mean 1, inverse to the variance of a run's loss: the scatter around `fit`, and Monte Carlo's own.

    The scatter (1.4826 median absolute residuals, squared) holds a typical Monte Carlo variance already, which is taken
    off first.
    """
    own = (se_mc / fit.runs.losses if fit.criterion.space == "log" else se_mc) ** 2
    total = (1.4826 * float(np.median(np.abs(fit.residuals)))) ** 2
    other = max(total - float(np.median(own)), 0.01 * total)
    precision = 1 / (other + own)
    return precision / precision.mean()


def fit_surface(runs: SurfaceRuns, criterion: Criterion = HOFFMANN) -> ParametricFit:
    """The fit of `fit_parametric`, from arrays.

    Monte Carlo errors give the weights: the runs are fitted alike first, which tells the other scatter.

    Args:
        runs: of one family.
        criterion: what is minimised; that of Hoffmann et al. 2022 by default.
    """
    if (runs.se_mc > 0).any():
        alike = replace(runs, weights=np.ones(len(runs)), se_mc=np.zeros(len(runs)))
        runs = replace(runs, weights=_precision(fit_surface(alike, criterion), runs.se_mc))
    huber = criterion.huber
    points, means = centred(runs, huber.log)
    begun = starts(points, runs.losses, huber.log)
    state = minimise(begun, np.broadcast_to(runs.weights, (len(begun), len(runs))), points, huber, MOST_STEPS)
    best = int(np.argmin(np.where(np.isfinite(state.value), state.value, np.inf)))
    spread = np.abs(state.theta - state.theta[best]).max(1)
    close = state.value <= state.value[best] * (1 + SAME_OBJECTIVE) + 1e-20 * runs.weights.sum()
    agreeing = int((close & (spread < SAME_PARAMETERS)).sum())
    left, end = float(decrement(state)[best]), State(*(np.asarray(values[best]) for values in state))
    predicted, _ = predict(end.theta, points.u, points.v, huber.log)
    objective = float((runs.weights * huber.of(predicted - points.y)).sum())
    reason = (
        _undetermined(end.theta, points, runs.losses)
        or _not_at_a_minimum(left, agreeing, len(begun))
        or _along_a_line(end.hessian)
    )
    E, A, B, alpha, beta = (float(value) for value in natural(end.theta, means))
    return ParametricFit(E, A, B, alpha, beta, objective, len(begun), agreeing, reason, left, runs, criterion)


def solver_theta(fit: ParametricFit, means: np.ndarray) -> np.ndarray:
    """The solver's parameters [5] of a fit: the inverse of `natural`."""
    a, b = math.log(fit.A) - fit.alpha * means[0], math.log(fit.B) - fit.beta * means[1]
    return np.array([math.log(fit.E), a, b, fit.alpha, fit.beta])


def starts(points: Points, losses: np.ndarray, log: bool) -> np.ndarray:
    """Starts [S, 5]: for each pair of exponents the best E, A and B by linear least squares (variable projection).

    In log space a run weighs 1/loss^2, which is the same to first order in the residual. Terms that come out negative
    start at a small positive part of the loss.
    """
    row = np.sqrt(1 / losses if log else np.ones_like(losses))
    found = []
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            design = np.stack([np.ones_like(losses), np.exp(-alpha * points.u), np.exp(-beta * points.v)], axis=1)
            solution = np.linalg.lstsq(design * row[:, None] ** 2, losses * row**2, rcond=None)[0]
            terms = np.log(np.maximum(solution, 0.02 * losses.min()))
            found.append([*terms, alpha, beta])
    return np.array(found)


def _undetermined(theta: np.ndarray, points: Points, losses: np.ndarray) -> str:
    """The term that the runs do not determine, or nothing."""
    parts = predict(theta, points.u, points.v, False)[1]
    for name, part in zip(("E", "A/N^alpha", "B/D^beta"), parts, strict=True):
        if float(part.max()) < NEGLIGIBLE * float(losses.min()):
            return f"{name} ran to zero: these runs show no such term"
    for name, value in (("alpha", theta[3]), ("beta", theta[4])):
        if not NEGLIGIBLE < value < MOST_EXPONENT:
            return f"{name} = {value:.3g} is no exponent of a loss that falls: these runs do not determine it"
    return ""


def _not_at_a_minimum(left: float, agreeing: int, tried: int) -> str:
    """Why the end of the iteration is not the one minimum, or nothing."""
    if left > MOST_DECREMENT:
        return f"stopped before a minimum: one more step would lower the objective by {left:.2g} of it"
    if agreeing < AGREEING_SHARE * tried:
        return f"only {agreeing} of {tried} starts agree: there are several minima, or a valley without one"
    return ""


def _along_a_line(hessian: np.ndarray) -> str:
    """Why the terms cannot be told apart, if the runs leave a direction of the parameters free, or nothing."""
    scale = 1 / np.sqrt(np.diag(hessian))
    if float(np.linalg.eigvalsh(hessian * scale[:, None] * scale)[0]) < 1e-12:
        return "the runs lie along a line on which the terms cannot be told apart: vary N and D independently"
    return ""
