"""IsoFLOP curves: loss against size, a curve for each budget."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.series import BudgetCurve, budget_curves, name_with_bound
from analysis.figures.style import (
    ERROR_BAR,
    HALO,
    INK,
    LOSS_LABEL,
    MUTED,
    Picture,
    budget_colours,
    budget_legend,
    log_axis,
    styled,
)
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, select, usable_runs

X_LABELS = {
    "params_non_embedding": "N, parameters without embedding and head",
    "params": "parameters",
    "tokens": "D, training tokens",
    "flops_per_token": "exact training FLOPs per token",
}


def plot_isoflop(fit: IsoFlopFit, level: float = 0.95) -> Picture:
    """IsoFLOP curves, a panel for each family: runs, fitted curves, minima; runs that no fit uses are hollow.

    Args:
        fit: from `fit_isoflop`.
        level: of the minima's intervals.
    """
    names = {family: name_with_bound(fit, family) for family in sorted(fit.families)}
    curves = budget_curves(fit, level)
    colours = budget_colours(np.unique([curve.budget for curve in curves]))
    with styled():
        figure = Picture(figsize=(1.0 + 4.3 * len(names), 4.7), layout="constrained")
        panels = dict(zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True))
        budget_legend(figure, colours, _marks(len(usable_runs(fit.runs)) < len(fit.runs), level))
        for curve in curves:
            _points(panels[curve.family], curve, colours[curve.budget])
        for family, axes in panels.items():
            log_axis(axes, "y", "plain", margin=0.08)
            _left_out(axes, fit, family)
            log_axis(axes, "x", "count")
            axes.set(title=names[family], xlabel=X_LABELS[fit.x])
        for curve in curves:
            _line(panels[curve.family], curve, colours[curve.budget])
        next(iter(panels.values())).set_ylabel(LOSS_LABEL)
        return figure


def _points(axes: Axes, curve: BudgetCurve, colour: str) -> None:
    """A budget's runs and its minimum, or why it has none."""
    axes.plot(curve.x, curve.loss, "o", ms=4.5, color=colour, mec="white", mew=0.5, zorder=3)
    if curve.status == "ok":
        axes.plot(*curve.minimum, "D", ms=6.5, mfc="white", mec=colour, mew=1.6, zorder=5)
        return
    last = int(np.argmax(curve.x))
    falls = curve.loss[last] == curve.loss.min()  # the words stand above the largest run, or below falling losses
    place: dict[str, Any] = {"xytext": (0, -6), "va": "top"} if falls else {"xytext": (0, 6), "va": "bottom"}
    style = dict[str, Any](ha="right", fontsize=8, color=MUTED, path_effects=HALO, zorder=6)
    words, at = curve.status.replace("_", " "), (curve.x[last], curve.loss[last])
    axes.annotate(words, at, textcoords="offset points", **place, **style)


def _line(axes: Axes, curve: BudgetCurve, colour: str) -> None:
    """A budget's fitted curve, dashed without a usable minimum, and the interval of its best size."""
    if curve.line is not None:
        dashes = "-" if curve.status == "ok" else (0, (3, 2))
        axes.plot(*curve.line, ls=dashes, color=colour, lw=1.6, zorder=2)
    if curve.status == "ok":
        axes.errorbar(*curve.minimum, xerr=curve.x_errors, fmt="none", color=colour, **ERROR_BAR)


def _left_out(axes: Axes, fit: IsoFlopFit, family: str) -> None:
    """Runs left out that have a loss, hollow; those above the panel as an arrowhead at its top."""
    out = select(fit.runs, (fit.runs["excluded_reason"] != "") & (fit.runs["family"] == family))
    x, loss, top = numbers(out, fit.x), numbers(out, "loss"), axes.get_ylim()[1]
    seen = np.isfinite(loss) & (loss > 0) & (x > 0)
    for where, marker in ((seen & (loss <= top), "o"), (seen & (loss > top), "^")):
        if where.any():  # the layout engine stumbles over lines without points
            y = np.minimum(loss[where], top)
            axes.plot(x[where], y, marker, ms=5, mfc="none", mec=MUTED, zorder=3, clip_on=False)


def _marks(left_out: bool, level: float) -> list[Line2D]:
    """The legend's entries of marks that no budget owns."""
    style, words = dict[str, Any](ls="", ms=5.5), f"minimum, {100 * level:g}%"
    minimum = Line2D([], [], marker="D", mfc="white", mec=INK, mew=1.4, label=words, **style)
    hollow = Line2D([], [], marker="o", mfc="none", mec=MUTED, label="left out", **style)
    return [hollow, minimum] if left_out else [minimum]
