"""The best size N* and its tokens D* against compute."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.series import FamilyMinima, family_minima
from analysis.figures.style import DASHED, Picture, draw_law, draw_minima, empty, family_colour, log_axis, styled
from analysis.minima.bootstrap import Bootstrap
from analysis.minima.fit import IsoFlopFit
from analysis.wording import CONVENTIONS, significant

QUANTITIES = {
    "n_opt": ("Best size N*", "parameters without embedding and head"),
    "d_opt": ("Best tokens D*", "training tokens"),
}
SHOWN_ERROR = 4.0
"""The largest factor by which an error bar widens the panel."""


def plot_allocation(
    fit: IsoFlopFit, convention: str = "smdm_6nd", draws: Bootstrap | None = None, level: float = 0.95
) -> Picture:
    """The best size N* and its tokens D* against compute, with the exponents of their power laws.

    Args:
        fit: from `fit_isoflop`.
        convention: how FLOPs are counted.
        draws: bootstrap of the fit, for the bands and the exponents' intervals.
        level: of the bands and of the minima's intervals.
    """
    with styled():
        figure = Picture(figsize=(9.6, 4.0), layout="constrained")
        sides = {quantity: family_minima(fit, quantity, convention, draws, level) for quantity in QUANTITIES}
        if not all(sides.values()):
            return empty(figure, "no budget has a usable minimum")
        for axes, (quantity, (title, unit)) in zip(figure.subplots(1, 2), QUANTITIES.items(), strict=True):
            _panel(axes, sides[quantity])
            axes.set(title=title, xlabel=f"training compute C ({CONVENTIONS[convention]})", ylabel=unit)
        return figure


def _panel(axes: Axes, sides: list[FamilyMinima]) -> None:
    """All families' minima and laws."""
    handles = [_handle(side) for side in sides]
    for side in sides:
        draw_minima(axes, side)
        ends = [side.values - side.errors[0], side.values + side.errors[1]]
        shown = np.clip(ends, side.values / SHOWN_ERROR, side.values * SHOWN_ERROR)
        axes.update_datalim(np.column_stack([np.tile(side.flops, 2), shown.ravel()]))
    log_axis(axes, "x", "flops", margin=0.08)
    log_axis(axes, "y", "count", margin=0.08, headroom=0.2)
    for side in sides:
        draw_law(axes, side, width=1.2)
    axes.legend(handles=handles, loc="upper left", handlelength=1.4, borderaxespad=0.2)


def _handle(side: FamilyMinima) -> Line2D:
    """The legend's entry: the family, and its law's exponent with the interval."""
    label, colour = side.name, family_colour(side.family)
    if side.line is not None:
        label += f":  $\\propto C^{{\\,{side.line.law.exponent:.3f}}}$"
        if side.line.exponent_interval is not None:
            label += "  [{}, {}]".format(*map(significant, side.line.exponent_interval))
    return Line2D([], [], color=colour, marker="o", mec="white", ms=6, lw=1.2, ls=DASHED, label=label)
