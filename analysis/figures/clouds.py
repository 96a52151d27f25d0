"""Clouds of bootstrapped exponents, the MDM's against the ARM's."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from analysis.figures.series import LawLine, family_minima
from analysis.figures.style import DASHED, INK, MUTED, Picture, styled
from analysis.laws.power_law import SlopeTest, compare_slopes
from analysis.laws.saturating import compare_saturating_slopes
from analysis.minima.bootstrap import Bootstrap
from analysis.minima.fit import IsoFlopFit
from analysis.runs.columns import ROLES
from analysis.sampling import LEVEL
from analysis.wording import family_name, significant

POINTS = 1500
"""Draws that a panel shows."""
CHI2_95 = 5.991
"""95% quantile of chi-squared with two degrees of freedom."""
EXPONENTS = {"loss_opt": "Loss exponent", "n_opt": "N* exponent"}


def plot_clouds(fit: IsoFlopFit, draws: Bootstrap, convention: str = "smdm_6nd") -> Picture | None:
    """Draws of the exponents, the MDM's against the ARM's, with the 95% ellipse and the line of equal exponents.

    None where a family has no law or no draws.

    Args:
        fit: from `fit_isoflop`.
        draws: its bootstrap.
        convention: how FLOPs are counted.
    """
    clouds: dict[str, list[LawLine]] = {}
    tests: dict[str, dict[str, SlopeTest]] = {}
    for quantity in EXPONENTS:
        sides = [side for side in family_minima(fit, quantity, convention, draws, LEVEL) if side.family in ROLES]
        lines = [side.line for side in sides if side.line is not None and len(side.line.exponents)]
        if len(lines) < len(ROLES):
            return None
        clouds[quantity] = lines
        tests[quantity] = {"straight lines": compare_slopes(lines[0].law, lines[1].law)}
        if quantity == "loss_opt":
            floored = compare_saturating_slopes([side.flops for side in sides], [side.values for side in sides])
            tests[quantity]["with a shared floor"] = floored
    with styled():
        figure = Picture(figsize=(9.6, 4.7), layout="constrained")
        for axes, quantity in zip(figure.subplots(1, 2), EXPONENTS, strict=True):
            _cloud(axes, *clouds[quantity])
            _title(axes, EXPONENTS[quantity], tests[quantity])
            axes.set(xlabel=f"{family_name('arm')} exponent", ylabel=f"{family_name('mdm')} exponent")
        return figure


def _cloud(axes: Axes, arm: LawLine, mdm: LawLine) -> None:
    """The draws, their ellipse, the fitted exponents, and the line on which both are equal."""
    fitted = np.array([arm.law.exponent, mdm.law.exponent])
    cloud = np.stack([arm.exponents, mdm.exponents], axis=1)
    cloud = cloud[np.isfinite(cloud).all(1)]
    if len(cloud) > 2:
        axes.plot(*cloud[:POINTS].T, ".", ms=3, color=MUTED, alpha=0.4, mew=0, rasterized=True, zorder=2)
        values, vectors = np.linalg.eigh(np.cov(cloud.T))
        width, height = 2 * np.sqrt(np.maximum(values, 0.0) * CHI2_95)
        angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        axes.add_patch(Ellipse(tuple(cloud.mean(0)), width, height, angle=angle, fill=False, ec=INK, lw=1.2, zorder=3))
        reach = np.sqrt(CHI2_95 * cloud.var(0, ddof=1))
        ends = np.quantile(cloud, [0.002, 0.998], axis=0)
        shown = np.stack([fitted, *ends, cloud.mean(0) - reach, cloud.mean(0) + reach])
        low, high = shown.min(0), shown.max(0)
        margin = 0.06 * np.maximum(high - low, 1e-9)
        axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.plot(*fitted, "D", ms=6.5, mfc="white", mec=INK, mew=1.5, zorder=4)
    axes.axline((fitted[0], fitted[0]), slope=1, color=MUTED, lw=1.0, ls=DASHED, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _title(axes: Axes, title: str, tests: dict[str, SlopeTest]) -> None:
    """The panel's title, and between title and panel what the tests of equal exponents say."""
    lines = [f"equal exponents, {assumed}: {_p_value(test)}" for assumed, test in tests.items()]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    seen = max(left, bottom) < min(right, top)
    lines.append("dashed: equal exponents" if seen else "the line of equal exponents lies beyond the panel")
    axes.set_title(title, pad=8 + 12 * len(lines))
    place = {"xy": (0, 1), "xytext": (0, 5), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate("\n".join(lines), **place, va="bottom", fontsize=8.5, color=MUTED)


def _p_value(test: SlopeTest) -> str:
    return "too few budgets" if np.isnan(test.p) else f"p = {significant(test.p, 2)}"
