"""Best loss against compute: the ARM's minima, and the MDM's under each likelihood."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from analysis.figures.series import FamilyMinima, family_minima
from analysis.figures.style import (
    DASHED,
    DOTTED,
    ERROR_BAR,
    LOSS_LABEL,
    SHADE,
    Picture,
    draw_curve,
    empty,
    family_colour,
    log_axis,
    styled,
)
from analysis.gap.likelihoods import LikelihoodGaps
from analysis.wording import CONVENTIONS, LIKELIHOODS, family_name

POINTS = 72
"""Points in an inch."""


@dataclass(frozen=True)
class Look:
    """How a curve and its minima are drawn, so that curves that coincide can still be told apart."""

    colour: str
    marker: str
    size: float
    dashes: Any
    """The line's style."""
    aside: float = 0.0
    """How far its error bars stand beside its minima, points."""


LOOKS = {
    "nelbo": Look(family_colour("mdm"), "o", 8.0, "-"),
    "left_to_right": Look("#CC79A7", "s", 5.0, DASHED, -4.0),
    "confidence": Look("#009E73", "^", 4.0, DOTTED, 4.0),
}
"""Okabe and Ito's colours. Later marks are smaller, so that earlier ones show around them."""
ARM = Look(family_colour("arm"), "D", 6.0, "-")


def plot_likelihoods(gaps: LikelihoodGaps, convention: str = "smdm_6nd", level: float = 0.95) -> Picture:
    """Best loss against compute: the ARM's curve, and the MDM's under each likelihood.

    Args:
        gaps: from `gap_by_likelihood`.
        convention: how FLOPs are counted.
        level: of the minima's intervals.
    """
    with styled():
        figure = Picture(figsize=(5.6, 4.6), layout="constrained")
        lines = _lines(gaps, convention, level)
        if not lines:
            return empty(figure, "no budget has a usable minimum")
        axes = figure.subplots()
        for label, side, look in lines:
            _line(figure, axes, label, side, look)
        log_axis(axes, "x", "flops", margin=0.08)
        log_axis(axes, "y", "plain", margin=0.1)
        if gaps.common_range is not None:
            axes.axhspan(*gaps.common_range, **SHADE, label="all measured")
        axes.set(xlabel=f"training compute C ({CONVENTIONS[convention]})", ylabel=LOSS_LABEL)
        axes.legend(loc="lower left", handlelength=1.8, borderaxespad=0.2)
        return figure


def _lines(gaps: LikelihoodGaps, convention: str, level: float) -> list[tuple[str, FamilyMinima, Look]]:
    """Label, minima and look: the ARM, then the MDM under each likelihood."""
    found = []
    for one in gaps.fits:
        for side in family_minima(one.fit, "loss_opt", convention, None, level):
            if side.family == "mdm":
                label = f"{family_name('mdm')}, {LIKELIHOODS[one.likelihood]}"
                found.append((label, side, LOOKS[one.likelihood]))
            elif side.family == "arm" and one is gaps.fits[0]:
                found.insert(0, (family_name("arm"), side, ARM))
    return found


def _line(figure: Picture, axes: Axes, label: str, side: FamilyMinima, look: Look) -> None:
    """Minima with their error bars, and the curve through them that the interpolated gap reads."""
    aside = axes.transData + ScaledTranslation(look.aside / POINTS, 0, figure.dpi_scale_trans)
    bars = dict[str, Any](yerr=side.errors, fmt="none", color=look.colour, transform=aside)
    axes.errorbar(side.flops, side.values, **bars, **ERROR_BAR)
    axes.update_datalim(np.stack([side.flops, side.values - side.errors[0]], 1))
    axes.update_datalim(np.stack([side.flops, side.values + side.errors[1]], 1))
    mark = dict[str, Any](marker=look.marker, ms=look.size, color=look.colour, mec="white", mew=0.8, zorder=5)
    axes.plot(side.flops, side.values, lw=0, **mark)
    draw_curve(axes, side, color=look.colour, ls=look.dashes)
    axes.plot([], [], lw=1.8, ls=look.dashes, label=label, **mark)
