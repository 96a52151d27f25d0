"""The figures that doubt: residuals of the IsoFLOP curves, and clouds of bootstrapped exponents."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import (
    FAINT,
    INK,
    MUTED,
    OTHER_COLOUR,
    Picture,
    budget_colours,
    legend_columns,
    log_axis,
    padded,
    styled,
)  # fmt: skip
from analysis.laws.power_law import PowerLaw, SlopeTest, compare_slopes
from analysis.laws.saturating import compare_saturating_slopes
from analysis.minima.bootstrap import Bootstrap, fit_law
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, select
from analysis.wording import family_name, scientific, significant

CLOUD = 1500
NO_RESIDUAL = 1e-9
"""Nats: curves through every run leave rounding."""
CHI2_95 = 5.991
"""95% quantile of chi-squared with two degrees of freedom."""
EXPONENTS = {"loss_opt": "Loss exponent", "n_opt": "N* exponent"}


def plot_residuals(fit: IsoFlopFit) -> Picture | None:
    """Residuals around the IsoFLOP curves against N / N*, a panel a family; None where the curves leave none.

    Lines, through the means of repeated runs, that share a shape over the budgets are lack of fit; others are noise.
    """
    table = fit.residuals()
    if table.empty or np.abs(numbers(table, "residual")).max() < NO_RESIDUAL:
        return None
    with styled():
        families = sorted(set(table["family"]))
        figure = Picture(figsize=(1.0 + 4.3 * len(families), 3.6), layout="constrained")
        panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
        colours = budget_colours(np.unique(numbers(table, "budget")))
        for axes, family in zip(panels, families, strict=True):
            own = select(table, table["family"] == family)
            for budget in np.unique(numbers(own, "budget")):
                rows = select(own, own["budget"] == budget)
                colour = colours[float(budget)]
                axes.plot(numbers(rows, "x_ratio"), 1e3 * numbers(rows, "residual"), "o", ms=4.5, mec="white", mew=0.5,
                          color=colour, zorder=3)  # fmt: skip
                x, which = np.unique(np.round(numbers(rows, "x_ratio"), 9), return_inverse=True)
                means = np.bincount(which, numbers(rows, "residual")) / np.bincount(which)
                axes.plot(x, 1e3 * means, lw=0.8, color=colour, zorder=2)
            sd = 1e3 * fit.noise[family].sd
            if np.isfinite(sd) and not fit.log_loss:
                axes.axhspan(-2 * sd, 2 * sd, color=FAINT, alpha=0.5, lw=0, zorder=0)
            axes.axhline(0.0, color=MUTED, lw=0.8, zorder=1)
            log_axis(axes, "x", *padded(numbers(own, "x_ratio")), unit="plain")
            axes.set_title(family_name(family))
            axes.set_xlabel("size over the best size" if fit.x != "tokens" else "tokens over the best tokens")
        panels[0].set_ylabel("loss − curve (thousandths of a nat)")
        handles = [Line2D([], [], color=c, marker="o", ms=5, mec="white", label=scientific(b))
                   for b, c in colours.items()]  # fmt: skip
        columns = legend_columns(len(handles), len(families))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, title="budget (FLOPs)",
                      title_fontsize=8.5, columnspacing=1.4, handletextpad=0.6)  # fmt: skip
        return figure


def plot_clouds(fit: IsoFlopFit, draws: Bootstrap, convention: str = "smdm_6nd") -> Picture | None:
    """Draws of the exponents, the MDM's against the ARM's, with the 95% ellipse and the line of equal exponents.

    None where a family has no law or no draws.

    Args:
        fit: from `fit_isoflop`.
        draws: its bootstrap.
        convention: how FLOPs are counted.
    """
    pairs = {y: (fit_law(fit, "arm", y, convention), fit_law(fit, "mdm", y, convention)) for y in EXPONENTS}
    if any(law is None for pair in pairs.values() for law in pair) or not {"arm", "mdm"} <= set(draws.families):
        return None
    with styled():
        figure = Picture(figsize=(9.6, 4.3), layout="constrained")
        for axes, (y, (arm, mdm)) in zip(figure.subplots(1, 2), pairs.items(), strict=True):
            assert arm is not None
            assert mdm is not None
            cloud = np.stack([draws.power_laws(family, y, convention)[1] for family in ("arm", "mdm")], axis=1)
            tests = {"": compare_slopes(arm, mdm)}
            if y == "loss_opt":
                sides = [fit.frontier(family, convention) for family in ("arm", "mdm")]
                saturating = compare_saturating_slopes([s.flops for s in sides], [s.loss for s in sides])
                tests = {"straight lines, ": tests[""], "with a shared floor, ": saturating}
            _cloud(axes, cloud[np.isfinite(cloud).all(1)], arm, mdm, tests)
            axes.set_title(EXPONENTS[y])
            axes.set_xlabel(f"{family_name('arm')} exponent")
            axes.set_ylabel(f"{family_name('mdm')} exponent")
        return figure


def _cloud(axes: Axes, cloud: np.ndarray, arm: PowerLaw, mdm: PowerLaw, tests: dict[str, SlopeTest]) -> None:
    """The panel; `tests` of equal exponents by what they assume."""
    if len(cloud) > 2:
        axes.plot(*cloud[:CLOUD].T, ".", ms=3, color=OTHER_COLOUR, alpha=0.45, mew=0, rasterized=True, zorder=2)
        values, vectors = np.linalg.eigh(np.cov(cloud.T))
        width, height = 2 * np.sqrt(np.maximum(values, 0.0) * CHI2_95)
        angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        axes.add_patch(Ellipse(tuple(cloud.mean(0)), width, height, angle=angle, fill=False, ec=INK, lw=1.2, zorder=3))
        low, high = np.quantile(cloud, [0.002, 0.998], axis=0)
        low, high = np.minimum(low, [arm.exponent, mdm.exponent]), np.maximum(high, [arm.exponent, mdm.exponent])
        margin = 0.12 * np.maximum(high - low, 1e-9)
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.plot(arm.exponent, mdm.exponent, "D", ms=6.5, mfc="white", mec=INK, mew=1.5, zorder=4)
    axes.axline((arm.exponent, arm.exponent), slope=1, color=MUTED, lw=1.0, ls=(0, (4, 3)), zorder=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    said = "\n".join(f"equal exponents, {name}{_p_value(test)}" for name, test in tests.items())
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    seen = max(left, bottom) < min(right, top)
    note = "dashed: equal exponents" if seen else "equal exponents lie beyond the panel"
    axes.text(0.02, 0.98, f"{said}\n{note}", transform=axes.transAxes, va="top", fontsize=8.5, color=MUTED)


def _p_value(test: SlopeTest) -> str:
    return "too few budgets: no test" if np.isnan(test.p) else f"p = {significant(test.p, 2)}"
