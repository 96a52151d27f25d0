"""Best loss against compute: the ARM's minima, and the MDM's under each likelihood."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.series import FamilyMinima, family_minima
from analysis.figures.style import ERROR_BAR, LOSS_LABEL, SHADE, Picture, empty, family_colour, log_axis, styled
from analysis.gap.likelihoods import LikelihoodGaps
from analysis.laws.interpolate import Interpolation
from analysis.wording import CONVENTIONS, LIKELIHOODS, family_name

MARKS: dict[str, tuple[str, str]] = {
    "nelbo": (family_colour("mdm"), "o"),
    "left_to_right": ("#CC79A7", "s"),
    "confidence": ("#009E73", "^"),
}
"""Colour and marker of the MDM under each likelihood: Okabe and Ito's colours."""


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
        for label, side, colour, marker in lines:
            _line(axes, label, side, colour, marker)
        log_axis(axes, "x", "flops", margin=0.08)
        log_axis(axes, "y", "plain", margin=0.1)
        if gaps.common_range is not None:
            axes.axhspan(*gaps.common_range, **SHADE, label="all measured")
        axes.set(xlabel=f"training compute C ({CONVENTIONS[convention]})", ylabel=LOSS_LABEL)
        axes.legend(loc="lower left", handlelength=1.8, borderaxespad=0.2)
        return figure


def _lines(gaps: LikelihoodGaps, convention: str, level: float) -> list[tuple[str, FamilyMinima, str, str]]:
    """Label, minima, colour and marker: the ARM, then the MDM under each likelihood."""
    found = []
    for one in gaps.fits:
        for side in family_minima(one.fit, "loss_opt", convention, None, level):
            if side.family == "mdm":
                label = f"{family_name('mdm')}, {LIKELIHOODS[one.likelihood]}"
                found.append((label, side, *MARKS[one.likelihood]))
            elif side.family == "arm" and one is gaps.fits[0]:
                found.insert(0, (family_name("arm"), side, family_colour("arm"), "D"))
    return found


def _line(axes: Axes, label: str, side: FamilyMinima, colour: str, marker: str) -> None:
    """Minima with their error bars, and the curve through them that the interpolated gap reads."""
    axes.errorbar(side.flops, side.values, yerr=side.errors, fmt="none", color=colour, **ERROR_BAR)
    style = dict[str, Any](marker=marker, ms=6, color=colour, mec="white", mew=0.8, zorder=5)
    axes.plot(side.flops, side.values, lw=0 if len(side.flops) > 1 else 1.8, **style)
    if len(side.flops) > 1:
        log_l = np.linspace(np.log(side.values.max()), np.log(side.values.min()), 200)
        log_c = Interpolation(np.log(side.flops)[None], np.log(side.values)[None]).log_flops(log_l)[0]
        axes.plot(np.exp(log_c), np.exp(log_l), color=colour, lw=1.8, zorder=3)
    axes.plot([], [], lw=1.8, label=label, **style)
