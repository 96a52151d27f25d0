"""IsoFLOP curves: loss against size, a curve for each budget."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.style import (
    HALO,
    INK,
    MUTED,
    Picture,
    budget_colours,
    legend_below,
    log_axis,
    styled,
)
from analysis.laws.power_law import t_quantile
from analysis.minima.cells import Cell
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, records, select, usable_runs
from analysis.wording import family_name, scientific

X_LABELS = {
    "params_non_embedding": "N, parameters without embedding and head",
    "params": "parameters",
    "tokens": "D, training tokens",
    "flops_per_token": "exact training FLOPs per token",
}
LOSS_LABEL = "validation loss (nats per token)"


def plot_isoflop(fit: IsoFlopFit, level: float = 0.95) -> Picture:
    """IsoFLOP curves, a panel for each family: runs, fitted curves, minima; runs that no fit uses are hollow.

    Args:
        fit: from `fit_isoflop`.
        level: of the minima's intervals.
    """
    with styled():
        families = sorted(fit.families)
        figure = Picture(figsize=(1.0 + 4.3 * len(families), 4.7), layout="constrained")
        panels = dict(zip(families, figure.subplots(1, len(families), sharey=True, squeeze=False)[0], strict=True))
        colours = budget_colours(np.unique([cell.budget for cell in fit.cells]))
        cells = list(zip(fit.cells, records(fit.minima), strict=True))
        for cell, row in cells:
            _runs(panels[cell.family], fit, cell, row, colours[cell.budget])
        for family, axes in panels.items():
            log_axis(axes, "y", "plain", margin=0.08)
            _left_out(axes, fit, family)
            log_axis(axes, "x", "count")
            axes.set_title(name_with_bound(fit, family))
            axes.set_xlabel(X_LABELS[fit.x])
        for cell, row in cells:
            _curve(panels[cell.family], fit, cell, row, colours[cell.budget], level)
        panels[families[0]].set_ylabel(LOSS_LABEL)
        _legend(figure, fit, colours, level)
        return figure


def name_with_bound(fit: IsoFlopFit, family: str) -> str:
    """The family's name, with a word where its losses are bounds."""
    used = usable_runs(fit.runs)
    bounded = "nelbo" in set(used.loc[used["family"] == family, "loss_kind"])
    return family_name(family) + (" (NELBO, a bound)" if bounded else "")


def _runs(axes: Axes, fit: IsoFlopFit, cell: Cell, row: dict[str, Any], colour: str) -> None:
    """A budget's runs and its minimum, or why it has none."""
    runs = fit.runs.iloc[cell.rows]
    x, loss = numbers(runs, fit.x), numbers(runs, "loss")
    axes.plot(x, loss, "o", ms=4.5, color=colour, mec="white", mew=0.5, zorder=3)
    if row["status"] == "ok":
        axes.plot(row["x_opt"], row["loss_opt"], "D", ms=6.5, mfc="white", mec=colour, mew=1.6, zorder=5)
        return
    last = int(np.argmax(x))
    falls = loss[last] == loss.min()  # the words stand above the largest run, or below it where losses still fall
    place: dict[str, Any] = {"xytext": (0, -6), "va": "top"} if falls else {"xytext": (0, 6), "va": "bottom"}
    style = dict[str, Any](fontsize=8, color=colour, path_effects=HALO, zorder=6)
    words = row["status"].replace("_", " ")
    axes.annotate(words, (x[last], loss[last]), textcoords="offset points", ha="right", **place, **style)


def _curve(axes: Axes, fit: IsoFlopFit, cell: Cell, row: dict[str, Any], colour: str, level: float) -> None:
    """A budget's fitted curve, dashed without a usable minimum, and the interval of its best size."""
    if cell.fitted:
        x = np.exp(np.linspace(*cell.swept, 200) + cell.center)
        usable = row["status"] == "ok"
        axes.plot(x, fit.predict(cell, x), ls="-" if usable else (0, (3, 2)), color=colour, lw=1.6, zorder=2)
        if usable:
            factor = np.exp(t_quantile(level, row["noise_dof"]) * row["log_x_se"])
            best, ends = row["x_opt"], row["x_opt"] * np.array([[1 - 1 / factor], [factor - 1]])
            axes.errorbar(
                best, row["loss_opt"], xerr=ends, fmt="none", color=colour, elinewidth=1.2, capsize=2.5, zorder=4
            )


def _left_out(axes: Axes, fit: IsoFlopFit, family: str) -> None:
    """Runs left out that have a loss, hollow; those above the panel as an arrowhead at its top."""
    out = select(fit.runs, (fit.runs["excluded_reason"] != "") & (fit.runs["family"] == family))
    x, loss, top = numbers(out, fit.x), numbers(out, "loss"), axes.get_ylim()[1]
    seen = np.isfinite(loss) & (loss > 0) & (x > 0)
    for where, marker in ((seen & (loss <= top), "o"), (seen & (loss > top), "^")):
        if where.any():  # the layout engine stumbles over lines without points
            y = np.minimum(loss[where], top)
            axes.plot(x[where], y, marker, ms=5, mfc="none", mec=MUTED, zorder=3, clip_on=False)


def _legend(figure: Picture, fit: IsoFlopFit, colours: dict[float, str], level: float) -> None:
    style = dict[str, Any](marker="o", mec="white", mew=0.5, ms=5, lw=1.6)
    handles = [Line2D([], [], color=colour, label=scientific(budget), **style) for budget, colour in colours.items()]
    if len(usable_runs(fit.runs)) < len(fit.runs):
        handles.append(Line2D([], [], ls="", marker="o", mfc="none", mec=MUTED, ms=5, label="left out"))
    minimum = f"minimum, {100 * level:g}%"
    handles.append(Line2D([], [], ls="", marker="D", mfc="white", mec=INK, mew=1.4, ms=5.5, label=minimum))
    legend_below(figure, handles, len(fit.families), "budget (FLOPs)")
