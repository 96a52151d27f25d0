"""Loss against time after the training's end, and how it grows relative to the loss at distance 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.style import ERROR_BAR, MUTED, Picture, family_colour, styled
from mdm_jax.tasks.temporal.report import Results
from mdm_jax.tasks.temporal.settings import Setting
from mdm_jax.tasks.temporal.shift import Cells, Estimate, Statistic

MARKERS = "osD^vP"
ASIDE = 0.012
"""Distance of the marks of two settings in the right panel, as a share of the years, so that error bars can be read."""


def plot_shift(results: Results, settings: Sequence[Setting], cells: Cells) -> Picture:
    """The figure: on the left all losses, on the right those of later texts, relative to the loss at distance 0.

    Hollow marks are texts held out of the training period. Bars are 95% intervals. Lines have the pooled slope.

    Args:
        results: estimates of the settings.
        settings: the settings in the same order.
        cells: the slices' places in time. Slices long before the end are not drawn.
    """
    years_S, later_S = cells.years_S, cells.later_S
    first_year = -2 * max(2.0, float(years_S.max()))
    with styled():
        figure = Picture(figsize=(10.4, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, one in enumerate(settings):
            look = {"marker": MARKERS[number % len(MARKERS)], "color": family_colour(one.family.value)}
            values_S3, shares_S3 = (
                np.array([(p.value, p.low, p.high) for p in curves[number]])
                for curves in (results.curves, results.relative)
            )
            estimates = results.settings[number].estimates
            for shown_S, face in ((~later_S & (years_S >= first_year), "white"), (later_S, look["color"])):
                _curve(left, years_S[shown_S], values_S3[shown_S], face, look, lw=1.0)
            aside = ASIDE * float(np.ptp(years_S[later_S])) * (number - (len(settings) - 1) / 2)
            _curve(right, years_S[later_S] + aside, shares_S3[later_S], look["color"], look, lw=0.0)
            _line(right, estimates, cells, look["color"])
            left.plot([], [], ms=5, lw=1.2, label=one.name, **look)
        left.axvline(0, color=MUTED, lw=0.9)
        right.axhline(1, color=MUTED, lw=0.9)
        left.set(ylabel="loss (nats per byte)", title="Loss")
        right.set(ylabel="loss / loss at distance 0", title="Later texts, relative to distance 0")
        for axes in (left, right):
            axes.set_xlabel("years after the training's end")
        figure.legend(loc="outside lower center", ncols=min(5, len(settings)))
        return figure


def _curve(axes: Axes, years: np.ndarray, values_S3: np.ndarray, face: str, look: dict[str, Any], lw: float) -> None:
    """Losses as marks with their intervals, from columns value, low and high."""
    middle, low, high = values_S3.T
    errors = np.nan_to_num(np.maximum([middle - low, high - middle], 0))
    axes.errorbar(years, middle, yerr=errors, fmt="none", color=look["color"], alpha=0.35, **ERROR_BAR)
    axes.plot(years, middle, ms=5, lw=lw, mfc=face, mew=1.1, zorder=5, **look)


def _line(axes: Axes, estimates: dict[Statistic, Estimate], cells: Cells, colour: str) -> None:
    """The fitted line over the later slices, through their mean loss."""
    later = cells.later_S
    sizes, years = cells.bytes_GS.sum(0)[later], cells.years_S[later]
    ends = np.array([years.min(), years.max()])
    rise, slope = (estimates[name].value / 100 for name in (Statistic.RISE_RELATIVE, Statistic.SLOPE_RELATIVE))
    middle = 1 + rise + slope * (ends - float(sizes @ years / sizes.sum()))
    axes.plot(ends, middle, color=colour, lw=2, alpha=0.5, zorder=2)
