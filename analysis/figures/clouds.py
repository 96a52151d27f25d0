"""Clouds of bootstrapped exponents, the MDM's against the ARM's."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from analysis.figures.minima import FamilyMinima, family_minima
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
    clouds = {}
    for quantity in EXPONENTS:
        sides = {side.family: side for side in family_minima(fit, quantity, convention, draws, LEVEL)}
        clouds[quantity] = [sides[role] for role in ROLES if role in sides and sides[role].draws is not None]
    if any(len(pair) < len(ROLES) or any(side.law is None for side in pair) for pair in clouds.values()):
        return None
    with styled():
        figure = Picture(figsize=(9.6, 4.7), layout="constrained")
        for axes, (quantity, (arm, mdm)) in zip(figure.subplots(1, 2), clouds.items(), strict=True):
            _cloud(axes, arm, mdm)
            _title(axes, quantity, arm, mdm)
            axes.set(xlabel=f"{family_name('arm')} exponent", ylabel=f"{family_name('mdm')} exponent")
        return figure


def _cloud(axes: Axes, arm: FamilyMinima, mdm: FamilyMinima) -> None:
    """The draws, their ellipse, the fitted exponents, and the line on which both are equal."""
    assert arm.law is not None and mdm.law is not None  # noqa: PT018
    assert arm.draws is not None and mdm.draws is not None  # noqa: PT018
    fitted = np.array([arm.law.exponent, mdm.law.exponent])
    cloud = np.stack([arm.draws[1], mdm.draws[1]], axis=1)
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


def _title(axes: Axes, quantity: str, arm: FamilyMinima, mdm: FamilyMinima) -> None:
    """The panel's title, and above the panel what tests of equal exponents say."""
    assert arm.law is not None and mdm.law is not None  # noqa: PT018
    lines = [f"equal exponents, straight lines: {_p_value(compare_slopes(arm.law, mdm.law))}"]
    if quantity == "loss_opt":
        floored = compare_saturating_slopes([arm.flops, mdm.flops], [arm.values, mdm.values])
        lines.append(f"equal exponents, with a shared floor: {_p_value(floored)}")
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    seen = max(left, bottom) < min(right, top)
    lines.append("dashed: equal exponents" if seen else "the line of equal exponents lies beyond the panel")
    axes.set_title(EXPONENTS[quantity], pad=8 + 12 * len(lines))
    place = {"xy": (0, 1), "xytext": (0, 5), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate("\n".join(lines), **place, va="bottom", fontsize=8.5, color=MUTED)


def _p_value(test: SlopeTest) -> str:
    return "no test, too few budgets" if np.isnan(test.p) else f"p = {significant(test.p, 2)}"
