"""One look for all figures: colours that colour-blind readers tell apart, plain axes, SVG and PNG.

Figures are built with matplotlib's object interface, so that importing or drawing leaves no global state behind.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.series import FamilyMinima
from analysis.laws.interpolate import Interpolation
from analysis.wording import count, scientific

FAMILY_COLOURS = {"arm": "#0072B2", "mdm": "#D55E00"}
"""Okabe and Ito's blue and vermillion."""
OTHER_COLOUR = "#009E73"
INK, MUTED, FAINT = "#1f2328", "#59636e", "#d8dee4"
LOSS_LABEL = "validation loss (nats per token)"
DASHED, DOTTED = (0, (4, 3)), (0, (1, 1.6))
SHADE: dict[str, Any] = {"color": FAINT, "alpha": 0.45, "lw": 0, "zorder": 0}
"""The strip of losses that both families reach."""
PNG_DPI = 200
HALO = [withStroke(linewidth=3, foreground="white")]
ENTRY_INCHES = 1.32
"""Width of a legend's entry: seven fit into a row below two panels, and four below one."""
ERROR_BAR: dict[str, Any] = {"elinewidth": 1.2, "capsize": 2.5, "zorder": 4}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "hatch.linewidth": 0.6,
    "hatch.color": "#8c959f",
    "svg.hashsalt": "mdm-jax",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def styled() -> Iterator[None]:
    """Within it, matplotlib draws in this project's style."""
    with mpl.rc_context(STYLE):
        yield


class Picture(Figure):
    """A figure in this project's style, which a notebook shows where it ends a cell."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        with styled():
            self.savefig(png, format="png", dpi=110)
        return png.getvalue()


def family_colour(family: str) -> str:
    """The family's colour in every figure."""
    return FAMILY_COLOURS.get(family, OTHER_COLOUR)


def draw_minima(axes: Axes, side: FamilyMinima) -> None:
    """A family's minima as points."""
    axes.plot(side.flops, side.values, "o", ms=6, color=family_colour(side.family), mec="white", mew=0.8, zorder=5)


def draw_law(axes: Axes, side: FamilyMinima, width: float) -> None:
    """The error bars of a family's minima, and their law with its band."""
    colour, line = family_colour(side.family), side.line
    axes.errorbar(side.flops, side.values, yerr=side.errors, fmt="none", color=colour, **ERROR_BAR)
    if line is not None:
        axes.plot(line.flops, line.values, color=colour, lw=width, ls=DASHED, zorder=2)
        if line.band is not None:
            axes.fill_between(line.flops, *line.band, color=colour, alpha=0.13, lw=0, zorder=1)


def draw_curve(axes: Axes, side: FamilyMinima, **line: Any) -> None:
    """The curve through a family's minima that the interpolated gap reads; nothing for one minimum."""
    if len(side.flops) > 1:
        log_l = np.linspace(np.log(side.values.max()), np.log(side.values.min()), 200)
        log_c = Interpolation(np.log(side.flops)[None], np.log(side.values)[None]).log_flops(log_l)[0]
        axes.plot(np.exp(log_c), np.exp(log_l), lw=1.8, zorder=3, **line)


def budget_colours(budgets: np.ndarray) -> dict[float, str]:
    """Colour of each budget, dark for small and light for large (viridis, safe for the colour-blind)."""
    ranks = np.linspace(0.0, 0.78, len(budgets)) if len(budgets) > 1 else np.zeros(1)
    colours = mpl.colormaps["viridis"](ranks)
    return {float(b): to_hex(c) for b, c in zip(np.sort(budgets), colours, strict=True)}


def log_axis(axes: Axes, which: str, unit: str, margin: float = 0.06, headroom: float = 0.0) -> None:
    """A log axis around what is drawn so far, with readable ticks. What is drawn later does not move it.

    Args:
        axes: to set up; panels that share the axis with it count as drawn.
        which: "x" or "y".
        unit: how ticks read: "flops" (3×10⁹), "count" (30M) or "plain" (2.5).
        margin: at both ends, as a share of the log range.
        headroom: more room at the upper end, as a share of the log range.
    """
    shared = axes.get_shared_x_axes() if which == "x" else axes.get_shared_y_axes()
    boxes = [panel.dataLim for panel in shared.get_siblings(axes)]
    side = "xy".index(which)
    low, high = np.log(min(box.minpos[side] for box in boxes)), np.log(max(box.max[side] for box in boxes))
    edge = max(margin * (high - low), 0.01)
    limits = float(np.exp(low - edge)), float(np.exp(high + edge + headroom * (high - low)))
    axes.set(**{f"{which}scale": "log", f"{which}lim": limits})
    label = {"flops": scientific, "count": count, "plain": _plain_label}[unit]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(_ticks(*limits, 3 if unit == "flops" else 4)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))


def _ticks(low: float, high: float, fewest: int) -> list[float]:
    """Round values in the range, from `fewest` to 9."""
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for subs in ([1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]):
        ticks = [float(f"{t * s:.6g}") for t in tens for s in subs if low <= t * s <= high]
        if len(ticks) >= fewest:
            return ticks[:: 1 + len(ticks) // 10]
    step = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(step))
    step = min((m * unit for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - step))
    return [float(f"{v:.6g}") for v in np.arange(np.ceil(low / step) * step, high, step)]


def budget_legend(figure: Figure, colours: dict[float, str], others: Sequence[Line2D] = ()) -> None:
    """A legend of the budgets' colours and of other marks below the panels, in rows that fit the figure's width."""
    style = dict[str, Any](marker="o", mec="white", mew=0.5, ms=5, lw=1.6)
    handles = [Line2D([], [], color=colour, label=scientific(budget), **style) for budget, colour in colours.items()]
    handles += others
    rows = math.ceil(len(handles) / int(figure.get_figwidth() / ENTRY_INCHES))
    columns = math.ceil(len(handles) / rows)
    by_rows = [handle for column in range(columns) for handle in handles[column::columns]]  # matplotlib fills columns
    spaces = {"columnspacing": 1.4, "handletextpad": 0.6}
    title = {"title": "budget (FLOPs)", "title_fontsize": 8.5}
    figure.legend(handles=by_rows, loc="outside lower center", ncols=columns, **title, **spaces)


def empty(figure: Picture, message: str) -> Picture:
    """The figure with a message in place of panels."""
    figure.text(0.5, 0.5, message, ha="center", va="center", color=MUTED)
    return figure


def _plain_label(value: float) -> str:
    if value >= 1e5:
        return scientific(value)
    return f"{value:,.0f}" if value >= 1e3 else f"{value:.4g}"


def rendered(figure: Figure) -> dict[str, bytes]:
    """The figure as "svg" and as "png" (`PNG_DPI`)."""
    svg, png = io.BytesIO(), io.BytesIO()
    with styled():
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # its places stand, and finding them takes a third of the time
        figure.savefig(png, format="png", dpi=PNG_DPI)
    return {"svg": svg.getvalue(), "png": png.getvalue()}
