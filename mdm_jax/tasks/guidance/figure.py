"""The figure of guidance: right answers against the scale. Each training has a line, each temperature a panel."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.colors import to_hex

from analysis.figures.style import DOTTED, ERROR_BAR, FAMILY_COLOURS, MUTED, Picture, styled
from mdm_jax.tasks.guidance.table import Estimate, Line

MARKS = "osD^vP"
CHARACTER_INCHES = 0.075
"""Width of a character of the legend."""


def draw(table: Sequence[Line]) -> Picture:
    """Right answers of each training, with a standard error over the seeds, or over the pairs for one seed."""
    temperatures = list(dict.fromkeys(line.temperature for line in table))
    names = list(dict.fromkeys(line.training for line in table))
    colours, spread = _colours(table, names), 0.006 * _width(table)
    with styled():
        figure = Picture(figsize=(1.2 + 3.3 * len(temperatures), 3.9), layout="constrained")
        panels = figure.subplots(1, len(temperatures), sharey=True, squeeze=False)[0]
        for axes, temperature in zip(panels, temperatures, strict=True):
            axes.axvline(0, color=MUTED, lw=0.8, ls=DOTTED)
            for n, name in enumerate(names):
                chosen = [one for one in table if (one.training, one.temperature) == (name, temperature)]
                chosen.sort(key=lambda one: one.scale)
                x = [one.scale + spread * (n - (len(names) - 1) / 2) for one in chosen]
                y, error = [one.exact.mean for one in chosen], [_bar(one.exact) for one in chosen]
                look = {"color": colours[name], "marker": MARKS[n % len(MARKS)], "ms": 4.5, "lw": 1.4}
                axes.errorbar(x, y, yerr=error, label=name, **look, **ERROR_BAR)
            axes.set_title(f"temperature {temperature:g}")
            axes.set_xlabel("guidance w")
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("share of right answers")
        handles, labels = panels[0].get_legend_handles_labels()
        entry_inches = 0.6 + CHARACTER_INCHES * max(map(len, labels))
        columns = min(len(names), max(1, int(figure.get_figwidth() / entry_inches)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        return figure


def _width(table: Sequence[Line]) -> float:
    scales = [line.scale for line in table]
    return max(scales) - min(scales)


def _bar(value: Estimate) -> float:
    return 0.0 if math.isnan(value.shown_error) else value.shown_error


def _colours(table: Sequence[Line], names: Sequence[str]) -> dict[str, str]:
    """Trainings that drop prompts are dark for a small share and light for a large one; the others are vermillion."""
    shares = {line.training: line.drop_prompt for line in table}
    dropping = sorted((name for name in names if shares[name]), key=lambda name: shares[name] or 0.0)
    map_of_colours, last = mpl.colormaps["viridis"], max(len(dropping) - 1, 1)
    found = {name: to_hex(map_of_colours(0.15 + 0.65 * n / last)) for n, name in enumerate(dropping)}
    others = [FAMILY_COLOURS["mdm"], "#CC79A7", "#E69F00", MUTED]
    rest = [name for name in names if name not in found]
    return found | {name: others[n % len(others)] for n, name in enumerate(rest)}
