"""Loss against time after the training's end, and the same relative to the loss at distance 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.style import ERROR_BAR, MUTED, Picture, family_colour, styled
from mdm_jax.tasks.temporal.report import Results
from mdm_jax.tasks.temporal.settings import Setting
from mdm_jax.tasks.temporal.shift import Cells, Estimate, Statistic

MARKERS = "osD^vP"


def plot_shift(results: Results, settings: Sequence[Setting], cells: Cells, first_year: float) -> Picture:
    """The figure: hollow marks are texts held out of the training period, full marks are later texts.

    Args:
        results: estimates of the settings.
        settings: in the same order.
        cells: the slices' places in time.
        first_year: earlier slices are not drawn.
    """
    shown_S = cells.years_S >= first_year
    with styled():
        figure = Picture(figsize=(10.4, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, one in enumerate(settings):
            look = {"marker": MARKERS[number % len(MARKERS)], "color": family_colour(one.family.value)}
            base = results.settings[number].estimates[Statistic.BASE].value
            _curve(left, results.curves[number], cells, shown_S, 1.0, look)
            _curve(right, results.curves[number], cells, shown_S, base, look)
            _line(right, results.settings[number].estimates, cells, look["color"])
            left.plot([], [], ms=5, lw=1.2, label=one.name, **look)
        for axes in (left, right):
            axes.axvline(0, color=MUTED, lw=0.9)
            axes.set_xlabel("years after the training's end")
        right.axhline(1, color=MUTED, lw=0.9)
        left.set(ylabel="loss (nats per byte)", title="Loss")
        right.set(ylabel="loss / loss at distance 0", title="Loss relative to distance 0")
        figure.legend(loc="outside lower center", ncols=min(4, len(settings)))
        return figure


def _curve(
    axes: Axes, losses: Sequence[Estimate], cells: Cells, shown_S: np.ndarray, base: float, look: dict[str, Any]
) -> None:
    """The losses as marks with their intervals; thin lines join the slices of one side of the end."""
    value_S, low_S, high_S = (
        np.array([getattr(one, name) for one in losses]) / base for name in ("value", "low", "high")
    )
    for side_S, face in ((~cells.later_S & shown_S, "white"), (cells.later_S & shown_S, look["color"])):
        years, middle = cells.years_S[side_S], value_S[side_S]
        errors = np.nan_to_num(np.maximum([middle - low_S[side_S], high_S[side_S] - middle], 0))
        axes.errorbar(years, middle, yerr=errors, fmt="none", color=look["color"], alpha=0.35, **ERROR_BAR)
        axes.plot(years, middle, ms=5, lw=1.0, mfc=face, mew=1.1, zorder=5, **look)


def _line(axes: Axes, estimates: dict[Statistic, Estimate], cells: Cells, colour: str) -> None:
    """The fitted line over the later slices, through their mean loss."""
    later = cells.later_S
    sizes, years = cells.bytes_GS.sum(0)[later], cells.years_S[later]
    base, slope = estimates[Statistic.BASE].value, estimates[Statistic.SLOPE].value
    ends = np.array([years.min(), years.max()])
    middle = estimates[Statistic.LATER].value + slope * (ends - float(sizes @ years / sizes.sum()))
    axes.plot(ends, middle / base, color=colour, lw=2, alpha=0.5, zorder=2)
