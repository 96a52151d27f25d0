"""Scatter from budget to budget: how far the minima lie off any smooth law, beyond the errors that their runs explain.

Runs of one budget share what no curve through them can see: a learning rate that suits this budget less, a batch size,
an unlucky order of the data. It moves the whole curve, so residuals around the curve do not know of it.

The smooth law is loss = a + b (C^s - 1) / s with free a, b and s (Box and Cox 1964). It has every law with a floor in
it, a straight line in log C (s = 0), and bends of the other sign, so it favours neither laws with a floor nor those
without. Its three parameters leave one degree of freedom to a family of four budgets. The residuals are weighted by the
minima's standard errors.

Scatter that exceeds the errors becomes an error of its own: a variance common to the family's minima, by the estimator
of Paule and Mandel (1982), which makes chi-squared as large as its degrees of freedom. The bootstrap moves each minimum
by a normal of that variance, times Student's factor, sqrt(dof / chi2) of the draw: few degrees of freedom tell a
variance badly. That factor pools the degrees of freedom of all families, because one or two of a single family would
make it enormous. The variance is not pooled, because published sweeps scatter in one family alone: read off figures,
SMDM's ARM has a chi-squared of 12 a degree of freedom and its MDM .4, and the sweep of arXiv 2602.15014 .6 and 34.

From eight budgets on, what lies off the smooth law can be told to be a bend of the curve. The scatter is then what
neighbouring minima show beside the bend (`analysis.minima.bend`).

Chosen by simulation: two families, minima with errors of .0017 nats, budgets a factor 4 apart, scatter of 0, .002 and
.01 nats in both families or in one, 200 sweeps each. Entries are the lowest and the highest coverage of the gap's 95%
interval, interpolated in the middle of the overlap. The last column is its mean width where five budgets do not
scatter, in units of the first row's.

| intervals include | 4 budgets | 5 budgets | 8 budgets | clean width |
|---|---|---|---|---|
| the runs' errors | 25-98% | 29-98% | 28-96% | 1 |
| the same, times sqrt(max(1, chi2 / dof)), pooled | 80-99% | 91-99% | 92-97% | 1.13 |
| a pooled variance, times Student's factor | 86-99% | 93-99% | 95-98% | 1.19 |
| a variance for each family, times that factor (this one) | 87-99% | 95-99% | 96-98% | 1.26 |
| variances drawn from all that chi-squared allows | 92-100% | 95-100% | 95-99% | 1.40 |
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis.minima import bend
from analysis.minima.fit import IsoFlopFit
from analysis.minima.noise import paule_mandel
from analysis.runs.load import numbers
from analysis.wording import family_name, plural, significant

PARAMETERS = 3
"""Number of parameters of the smooth law."""
FEWEST = PARAMETERS + 1
"""Budgets of a family that can disagree with a smooth law."""
STEEPEST = 3.0
"""Largest |s|, with log C scaled to run from -1 to 1: from one end to the other the slope changes 400-fold."""
EXACT = 1e-6
"""Nats: no minimum is taken to be known better, so that exact losses do not divide by zero."""
ZOOMS, POINTS = 7, 41
"""Zooms of the search for s, and values that each zoom tries. A zoom narrows the range twentyfold."""
FEWEST_DOF = 2.0
"""Student's factor of one degree of freedom would draw losses below zero."""


@dataclass(frozen=True)
class Scatter:
    """How far one family's minima lie off a smooth law."""

    chi2: float
    """Nan where nothing tells it."""
    dof: int
    """0 where nothing tells the scatter: fewer than four usable budgets, or a noise that is unknown."""
    noise_dof: float
    """Degrees of freedom that the minima's errors were estimated with; inf where they are known."""
    sd: float
    """Scatter between budgets beyond the minima's errors, nats per token; 0 where the errors explain the scatter."""
    widening: float
    """Factor by which adding `sd` multiplies the error of a minimum's loss (median); 1 where nothing is added."""
    sd_dof: float
    """Degrees of freedom that `sd` was estimated with: `dof`, or fewer where the curve bends."""
    bend_p: float = math.nan
    """Probability that neighbouring minima agree so well, if all that lies off the law is scatter; nan if not asked."""
    bends: bool = False
    """Whether the minima follow a bend that the smooth law cannot; `sd` is the scatter beside the bend then."""

    @property
    def p(self) -> float:
        """Probability of a larger chi-squared from the runs' errors alone; nan where nothing tells the scatter."""
        from scipy.special import chdtrc, fdtrc

        if not self.dof:
            return math.nan
        if math.isinf(self.noise_dof):
            return float(chdtrc(self.dof, self.chi2))
        return float(fdtrc(self.dof, self.noise_dof, self.chi2 / self.dof))


UNKNOWN_SCATTER = Scatter(math.nan, 0, math.nan, 0.0, 1.0, 0.0)


def scatter_of(fit: IsoFlopFit) -> dict[str, Scatter]:
    """The scatter of each family's usable minima."""
    out = {}
    for family in fit.families:
        rows = fit.minima_of(family)
        budget, loss, se = (numbers(rows, name) for name in ("budget", "loss_opt", "loss_opt_se"))
        out[family] = measure_scatter(budget, loss, se, float(fit.noise[family].dof))
    return out


def measure_scatter(budget: np.ndarray, loss: np.ndarray, se: np.ndarray, noise_dof: float = math.inf) -> Scatter:
    """The scatter of minima around one smooth law, or around the bend that they follow.

    Args:
        budget: FLOPs, [B], all different.
        loss: nats per token, [B].
        se: standard errors of the losses, [B].
        noise_dof: degrees of freedom that the errors were estimated with.
    """
    if len(loss) < FEWEST or not np.isfinite(se).all():
        return UNKNOWN_SCATTER
    rising = np.argsort(budget)
    budget, loss, errors = budget[rising], loss[rising], np.maximum(se, EXACT)[rising]
    dof, x = len(loss) - PARAMETERS, np.log(budget)
    x = 2 * (x - (x.max() + x.min()) / 2) / np.ptp(x)
    chi2, sd, sd_dof, bend_p, bends = _smooth_law(x, loss, errors, 0.0)[0], 0.0, float(dof), math.nan, False
    if chi2 > dof:
        low, high = 1e-3 * float(errors.min()), 2 * float(np.ptp(loss)) + EXACT
        sd = paule_mandel(lambda extra: _smooth_law(x, loss, errors, extra)[0], dof, low, high)
        if len(loss) >= bend.FEWEST:
            s = _smooth_law(x, loss, errors, sd)[1]
            neighbours = bend.compare_neighbours(x, loss, errors, s, sd)
            bend_p, bends = neighbours.p, neighbours.follow_a_bend
            if bends:
                sd, sd_dof = neighbours.sd, neighbours.dof
    widening = float(np.median(np.hypot(1, sd / errors)))
    return Scatter(chi2, dof, noise_dof, sd, widening, sd_dof, bend_p, bends)


def scatter_added(fit: IsoFlopFit) -> dict[str, Scatter]:
    """The scatter that intervals include, by family; empty where the recipe ignores it."""
    return scatter_of(fit) if fit.recipe.scatter == "add" else {}


def scatter_dof(scatter: dict[str, Scatter]) -> float:
    """Degrees of freedom of Student's factor, which all families share."""
    return max(sum((side.sd_dof for side in scatter.values()), 0.0), FEWEST_DOF)


def student_factors(scatter: dict[str, Scatter], rng: np.random.Generator, n: int) -> np.ndarray:
    """[n] factors of the families' `sd`, one a draw, that make them as uncertain as their degrees of freedom do."""
    dof = scatter_dof(scatter)
    return np.sqrt(dof / rng.chisquare(dof, n))


def _smooth_law(x: np.ndarray, loss: np.ndarray, errors: np.ndarray, extra_sd: float) -> tuple[float, float]:
    """Chi-squared of losses [B] around their smooth law in x [B], and the law's s.

    For a given s the rest of the law is linear, so the search has one dimension.
    """
    weights = 1 / (errors**2 + extra_sd**2)
    low, high, center, best = -STEEPEST, STEEPEST, 0.0, math.inf
    for _ in range(ZOOMS):
        s = np.linspace(low, high, POINTS)
        squares = _weighted_squares(x, loss, weights, s)
        center, best = float(s[squares.argmin()]), float(squares.min())
        step = (high - low) / (POINTS - 1)
        low, high = max(center - step, -STEEPEST), min(center + step, STEEPEST)
    return best, center


def _weighted_squares(x: np.ndarray, loss: np.ndarray, weights: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Weighted squares [P] around a + b (e^(s x) - 1) / s for s [P]; weights, x and loss [B]."""
    steep = np.where(np.abs(s) < 1e-9, 1e-9, s)[:, None]
    f = np.expm1(steep * x) / steep
    df = f - np.average(f, axis=1, weights=weights)[:, None]
    dy = loss - np.average(loss, weights=weights)
    b = (weights * df * dy).sum(1) / (weights * df * df).sum(1)
    return (weights * (dy - b[:, None] * df) ** 2).sum(1)


def scatter_lines(scatter: dict[str, Scatter], added: bool) -> list[str]:
    """One sentence for each family: the test of its scatter, and whether intervals include the scatter."""
    return [f"{family_name(family)}: {_sentence(side, added)}" for family, side in scatter.items()]


def _sentence(scatter: Scatter, added: bool) -> str:
    if not scatter.dof:
        return f"scatter between budgets is unknown, which takes {FEWEST} usable minima with errors; no interval has it"
    said = (
        f"the minima lie off a smooth law by chi-squared {significant(scatter.chi2)} with "
        f"{plural(scatter.dof, 'degree')} of freedom"
    )
    if scatter.bends:
        said += f", but follow a bend: scatter would leave neighbours further apart (p = {scatter.bend_p:.1g})"
    if scatter.sd == 0:
        rest = "; the runs' errors explain the rest" if scatter.bends else ", which the runs' errors explain"
        return f"{said}{rest}; intervals include none"
    size = f"{significant(scatter.sd, 2)} nats of scatter {'beside the bend' if scatter.bends else 'between budgets'}"
    if not added:
        return f"{said}; no interval includes the {size} (--scatter ignore)"
    return (
        f"{said}; intervals include {size}, which makes a minimum's error {significant(scatter.widening)} times as "
        "large (--scatter ignore leaves it out)"
    )


def scatter_said(fit: IsoFlopFit, unit: str) -> list[str]:
    """A sentence a family; empty where the draws redraw the minima by their own scatter (unit="budget")."""
    return scatter_lines(scatter_of(fit), fit.recipe.scatter == "add") if unit == "run" else []
