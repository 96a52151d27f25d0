"""The compute gap against loss, under several laws."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.style import INK, LOSS_LABEL, MUTED, SHADE, Picture, empty, log_axis, styled
from analysis.gap.curve import INTERPOLATED, GapCurve
from analysis.wording import CONVENTIONS, LAWS

LAW_LINES: dict[str, tuple[str, Any]] = {
    "interpolated": (INK, "-"),
    "piecewise_linear": (MUTED, "-"),
    "power_law": ("#CC79A7", (0, (4, 2))),
    "shared_floor": ("#009E73", (0, (1, 1.3))),
    "own_floors": ("#E69F00", (0, (3, 1.5, 1, 1.5))),
    "given_floor": ("#56B4E9", (0, (6, 1.5))),
    "parametric": ("#6A4C9C", (0, (5, 3))),
}
"""Colour and dashes of each law: Okabe and Ito's colours, without the two that mean a family, and a violet."""
NO_BAND = ("shared_floor", "own_floors", "parametric")
"""Laws with a fitted floor: where budgets are few their interval fills the panel; it stands in the report's table."""
SHOWN_ENDS = 3.0
"""The factor around all ratios within which an interval's end widens the panel."""


def plot_gap(curves: list[GapCurve]) -> Picture:
    """The gap against loss under several laws, with intervals; hatched where a law is extrapolated."""
    with styled():
        figure = Picture(figsize=(5.6, 4.6), layout="constrained")
        if not curves:
            return empty(figure, "no law gives a gap")
        axes = figure.subplots()
        for curve in curves:
            measured = curve.pair.name.interpolates
            (colour, dashes), width = LAW_LINES[curve.law], 2.0 if measured else 1.4
            label, above = LAWS[curve.law], 4 if measured else 3
            axes.plot(curve.loss, curve.ratio, color=colour, ls=dashes, lw=width, label=label, zorder=above)
        _show_ends(axes, curves)
        log_axis(axes, "x", "plain", margin=0.01)
        log_axis(axes, "y", "plain", margin=0.1, headroom=0.3)
        axes.invert_xaxis()
        for curve in curves:
            _band(axes, curve)
        if curves[0].overlap is not None:
            axes.axvspan(*curves[0].overlap, **SHADE, label="both measured")
        axes.set(xlabel=f"{LOSS_LABEL}, better to the right")
        axes.set(ylabel=f"compute ratio MDM / ARM ({CONVENTIONS[curves[0].convention]})")
        axes.legend(loc="upper left", handlelength=1.8, borderaxespad=0.2)
        return figure


def _show_ends(axes: Axes, curves: list[GapCurve]) -> None:
    """Makes room for the intervals' ends, except for ends far from all ratios."""
    low, high = axes.dataLim.intervaly
    for curve in (curve for curve in curves if curve.law not in NO_BAND):
        for ends in (curve.lower, curve.upper):
            shown = np.isfinite(ends) & (ends > low / SHOWN_ENDS) & (ends < high * SHOWN_ENDS)
            axes.update_datalim(np.column_stack([curve.loss[shown], ends[shown]]))


def _band(axes: Axes, curve: GapCurve) -> None:
    """The curve's interval: shaded, and hatched where the law is extrapolated."""
    if curve.law in NO_BAND or np.isnan(curve.lower).all():
        return
    colour, _ = LAW_LINES[curve.law]
    ends, inside = (curve.loss, curve.lower, curve.upper), curve.support == INTERPOLATED
    axes.fill_between(*ends, where=inside, color=colour, alpha=0.16, lw=0, zorder=2)
    if not curve.pair.name.interpolates:
        outside = ~inside | np.roll(~inside, 1) | np.roll(~inside, -1)  # reach over to the measured part
        axes.fill_between(*ends, where=outside, color=colour, alpha=0.10, lw=0, zorder=2)
        hatched = dict[str, Any](facecolor="none", edgecolor=colour, alpha=0.45, hatch="////", lw=0)
        axes.fill_between(*ends, where=outside, **hatched, zorder=2)
