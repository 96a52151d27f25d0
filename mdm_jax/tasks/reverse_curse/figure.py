"""Exact match, and how often the right answer is preferred, for each relation and direction: a column a relation."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import DASHED, ERROR_BAR, MUTED, Picture, family_colour, styled
from analysis.wording import family_name
from mdm_jax.tasks.reverse_curse.facts import Direction, Order
from mdm_jax.tasks.reverse_curse.table import ALL, DIFFERENCE, ONE_DIRECTION, Line

ASKED = {
    (ONE_DIRECTION, Direction.SAME): "trained\ndirection",
    (ONE_DIRECTION, Direction.REVERSED): "reversed",
    (Order.BOTH, Direction.SAME): "both\ntrained",
}
PANELS = {"exact": "exact match", "preference": "right answer preferred"}
CHANCE = {"exact": None, "preference": 0.5}
SHIFT = 0.14


def draw(table: Sequence[Line]) -> Picture:
    """The figure of all lines over all wordings. Bars are the standard errors `se` of the table."""
    lines = [line for line in table if line.cell.wording == ALL and line.who != DIFFERENCE]
    relations = list(dict.fromkeys(line.cell.relation for line in lines))
    measures = [measure for measure in PANELS if any(measure in line.measures for line in lines)]
    with styled():
        figure = Picture(figsize=(1.9 * len(relations) + 1, 2.3 * len(measures) + 0.6), layout="constrained")
        panels = figure.subplots(len(measures), len(relations), squeeze=False, sharey="row", sharex=True)
        for row, measure in zip(panels, measures, strict=True):
            for axes, relation in zip(row, relations, strict=True):
                _panel(axes, [line for line in lines if line.cell.relation == relation], measure)
            row[0].set_ylabel(PANELS[measure])
        for axes, relation in zip(panels[0], relations, strict=True):
            axes.set_title("all relations" if relation == ALL else relation)
        handles, labels = panels[-1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return figure


def _panel(axes: Axes, lines: Sequence[Line], measure: str) -> None:
    families = list(dict.fromkeys(line.who for line in lines))
    for number, family in enumerate(families):
        shift = SHIFT * (number - (len(families) - 1) / 2)
        known = {(line.cell.order, line.cell.direction): line for line in lines if line.who == family}
        asked = [(x, known[one].measures.get(measure)) for x, one in enumerate(ASKED) if one in known]
        points = [(x, one) for x, one in asked if one is not None]
        places, means = [x + shift for x, _ in points], [one.mean for _, one in points]
        errors, label = [one.se for _, one in points], family_name(family)
        axes.errorbar(places, means, errors, fmt="o", ms=5, color=family_colour(family), label=label, **ERROR_BAR)
    chance = CHANCE[measure]
    if chance is not None:
        axes.axhline(chance, color=MUTED, lw=1, ls=DASHED, zorder=1, label="does not know the fact")
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlim(-0.5, len(ASKED) - 0.5)
    axes.set_xticks(range(len(ASKED)), list(ASKED.values()))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x", visible=False)
