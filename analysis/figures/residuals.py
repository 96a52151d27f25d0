"""Residuals around the IsoFLOP curves: noise, or a shape that the curves miss."""

import itertools

import numpy as np

from analysis.figures.style import FAINT, MUTED, Picture, budget_colours, budget_legend, log_axis, styled
from analysis.minima.fit import IsoFlopFit
from analysis.runs.load import numbers, select
from analysis.wording import family_name

NO_RESIDUAL = 1e-9
"""Nats: curves through every run leave rounding."""


def plot_residuals(fit: IsoFlopFit) -> Picture | None:
    """Residuals around the IsoFLOP curves against N / N*, a panel for each family; None where the curves leave none.

    Lines go through the means of repeated runs. A shape that the budgets share is lack of fit; the rest is noise.
    """
    table = fit.residuals()
    if table.empty or np.abs(numbers(table, "residual")).max() < NO_RESIDUAL:
        return None
    with styled():
        families = sorted(set(table["family"]))
        figure = Picture(figsize=(1.0 + 4.3 * len(families), 3.6), layout="constrained")
        panels = dict(zip(families, figure.subplots(1, len(families), sharey=True, squeeze=False)[0], strict=True))
        colours = budget_colours(np.unique(numbers(table, "budget")))
        budget_legend(figure, colours)
        table["thousandths"], table["x_ratio"] = 1e3 * table["residual"], table["x_ratio"].round(9)
        for (family, axes), (budget, colour) in itertools.product(panels.items(), colours.items()):
            rows = select(table, (table["family"] == family) & (table["budget"] == budget))
            axes.plot(rows["x_ratio"], rows["thousandths"], "o", ms=4.5, mec="white", mew=0.5, color=colour, zorder=3)
            axes.plot(rows.groupby("x_ratio")["thousandths"].mean(), lw=0.8, color=colour, zorder=2)
        for family, axes in panels.items():
            log_axis(axes, "x", "plain")
            sd = 1e3 * fit.noise[family].sd
            if np.isfinite(sd) and not fit.log_loss:
                axes.axhspan(-2 * sd, 2 * sd, color=FAINT, alpha=0.5, lw=0, zorder=0)
            axes.axhline(0.0, color=MUTED, lw=0.8, zorder=1)
            axes.set_title(family_name(family))
            axes.set_xlabel("size over the best size" if fit.x != "tokens" else "tokens over the best tokens")
        panels[families[0]].set_ylabel("loss − curve (thousandths of a nat)")
        return figure
