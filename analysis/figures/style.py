"""One look for all figures: colours that colour-blind readers tell apart, plain axes, SVG and PNG.

Figures are built with matplotlib's object interface, so that importing or drawing leaves no global state behind.
"""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.wording import count, scientific
from mdm_jax.files.storage import as_path, write_atomic

FAMILY_COLOURS = {"arm": "#0072B2", "mdm": "#D55E00"}
"""Okabe and Ito's blue and vermillion."""
OTHER_COLOUR = "#009E73"
INK, MUTED, FAINT = "#1f2328", "#59636e", "#d8dee4"
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


def budget_colours(budgets: np.ndarray) -> dict[float, str]:
    """Colour of each budget, dark for small and light for large (viridis, safe for the colour-blind)."""
    ranks = np.linspace(0.0, 0.82, len(budgets)) if len(budgets) > 1 else np.zeros(1)
    colours = mpl.colormaps["viridis"](ranks)
    return {float(b): to_hex(c) for b, c in zip(np.sort(budgets), colours, strict=True)}


def log_axis(axes: Axes, which: str, low: float, high: float, unit: str = "flops") -> None:
    """A log axis from low to high with readable ticks.

    Args:
        axes: to set up.
        which: "x" or "y".
        low: lower end, positive.
        high: upper end.
        unit: how ticks read: "flops" (3×10⁹), "count" (30M) or "plain" (2.5).
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    label = {"flops": scientific, "count": count, "plain": _plain_label}[unit]
    axis.set_major_locator(FixedLocator(_ticks(low, high, 3 if unit == "flops" else 4)))
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


def legend_columns(entries: int, panels: int) -> int:
    """Columns of a legend below so many panels: rows of about equal length that are not wider than the figure."""
    return math.ceil(entries / math.ceil(entries / (4 if panels == 1 else 6)))


def _plain_label(value: float) -> str:
    if value >= 1e5:
        return scientific(value)
    return f"{value:,.0f}" if value >= 1e3 else f"{value:.4g}"


def padded(values: np.ndarray, share: float = 0.06) -> tuple[float, float]:
    """Limits of a log axis around positive values, with a margin on both sides."""
    low, high = float(np.log(np.min(values))), float(np.log(np.max(values)))
    margin = max(share * (high - low), 0.01)
    return float(np.exp(low - margin)), float(np.exp(high + margin))


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> str:
    """Writes `<name>.svg` and `<name>.png` (200 dpi) and returns the SVG's text."""
    svg, png = io.BytesIO(), io.BytesIO()
    with styled():
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # its places stand, and finding them takes a third of the time
        figure.savefig(png, format="png", dpi=200)
    write_atomic(as_path(folder) / f"{name}.svg", svg.getvalue())
    write_atomic(as_path(folder) / f"{name}.png", png.getvalue())
    return svg.getvalue().decode()
