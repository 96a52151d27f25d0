"""Loss against compute: minima, the curve through them, the power law and its band, and the gap as an arrow."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.series import FamilyMinima, family_minima
from analysis.figures.style import (
    DASHED,
    DOTTED,
    HALO,
    INK,
    LOSS_LABEL,
    MUTED,
    SHADE,
    Picture,
    draw_curve,
    draw_law,
    draw_minima,
    empty,
    family_colour,
    log_axis,
    styled,
)
from analysis.gap.curve import GapCurve
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.saturating import fit_saturating_power_law
from analysis.minima.bootstrap import Bootstrap
from analysis.minima.fit import IsoFlopFit
from analysis.runs.columns import ROLES
from analysis.wording import CONVENTIONS, with_interval

FEWEST_FOR_A_FLOOR = 3
"""Minima of each family that a shared floor is fitted to."""


def plot_loss(
    fit: IsoFlopFit,
    convention: str = "smdm_6nd",
    draws: Bootstrap | None = None,
    gap: GapCurve | None = None,
    level: float = 0.95,
) -> Picture:
    """Loss against compute: minima, the curve through them, the power law and its band, and the gap as an arrow.

    Args:
        fit: from `fit_isoflop`.
        convention: how FLOPs are counted.
        draws: bootstrap of the fit, for the bands.
        gap: a gap curve whose middle point the arrow shows; pass one of a single loss to choose it.
        level: of the bands and of the minima's intervals.
    """
    with styled():
        figure = Picture(figsize=(5.6, 4.6), layout="constrained")
        sides = family_minima(fit, "loss_opt", convention, draws, level, reach=4.0)
        if not sides:
            return empty(figure, "no budget has a usable minimum")
        flops, losses = [side.flops for side in sides], [side.values for side in sides]
        floored = len(sides) > 1 and min(map(len, losses)) >= FEWEST_FOR_A_FLOOR
        floors = fit_saturating_power_law(flops, losses, "shared") if floored else ()
        shared = overlap(*map(Frontier, ROLES, flops, losses)) if len(sides) == len(ROLES) else None
        axes = figure.subplots()
        if gap is not None:
            _gap_arrow(axes, gap)
        _minima(axes, sides)
        for side, law in zip(sides, floors, strict=False):
            c = np.geomspace(*axes.get_xlim(), 100)
            axes.plot(c, law.predict(c), color=family_colour(side.family), lw=1.2, ls=DOTTED, zorder=2)
        if shared is not None:
            axes.axhspan(*shared, **SHADE)
        _legend(figure, floored, shared is not None)
        axes.set(xlabel=f"training compute C ({CONVENTIONS[convention]})", ylabel=LOSS_LABEL)
        return figure


def _minima(axes: Axes, sides: list[FamilyMinima]) -> None:
    """All families' minima, and what goes through them, on log axes around the minima."""
    for side in sides:
        draw_minima(axes, side)
    log_axis(axes, "x", "flops", margin=0.08)
    log_axis(axes, "y", "plain", margin=0.15)
    for side in sides:
        _family(axes, side)


def _family(axes: Axes, side: FamilyMinima) -> None:
    """A family's error bars, the curve through its minima, its law and its name."""
    colour, name = family_colour(side.family), side.name
    draw_law(axes, side, width=1.0)
    draw_curve(axes, side, color=colour)
    if side.line is not None:
        name += f"\n$L \\propto C^{{\\,{side.line.law.exponent:.3f}}}$"
    if side.family == "arm":  # names stand outside the overlap: at the ARM's lowest loss, at the others' highest
        end, place = -1, dict[str, Any](xytext=(-9, -7), ha="right", va="top")
    else:
        end, place = 0, dict[str, Any](xytext=(9, 5), ha="left", va="bottom")
    style = dict[str, Any](color=colour, fontweight="bold", fontsize=9.5, path_effects=HALO, zorder=6)
    axes.annotate(name, (side.flops[end], side.values[end]), textcoords="offset points", **place, **style)


def _legend(figure: Picture, floored: bool, shared: bool) -> None:
    """What solid, dashed, dotted and the strip mean, in grey, below the panel: lines may go anywhere in it."""
    styles: list[tuple[str, Any]] = [("through the minima", "-"), ("power law", DASHED)]
    styles += [("shared floor", DOTTED)] if floored else []
    handles: list[Artist] = [Line2D([], [], color=MUTED, lw=1.3, ls=style, label=label) for label, style in styles]
    handles += [Patch(**SHADE, label="both measured")] if shared else []
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.4)


def _gap_arrow(axes: Axes, gap: GapCurve) -> None:
    """The gap at the middle of the curve, from the ARM's compute to the MDM's."""
    i = len(gap.loss) // 2
    if not np.isfinite(gap.ratio[i]):
        return
    start, end, loss = gap.flops_arm[i], gap.flops_mdm[i], gap.loss[i]
    arrow = {"arrowstyle": "<|-|>", "color": INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, loss), (start, loss), zorder=6, arrowprops=arrow)
    said = f"×{with_interval(gap.ratio[i], gap.lower[i], gap.upper[i])}"
    style = dict[str, Any](fontsize=9, fontweight="bold", path_effects=HALO, zorder=6)
    middle = (float(np.sqrt(start * end)), loss)
    axes.annotate(said, middle, xytext=(0, 5), textcoords="offset points", ha="center", va="bottom", **style)
