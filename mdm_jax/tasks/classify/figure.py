"""A figure of the accuracy of each trunk, with its 95% interval and that of the most frequent label."""

from collections.abc import Sequence
from typing import Any

from analysis.figures.style import ERROR_BAR, INK, MUTED, Picture, family_colour, rendered, styled
from mdm_jax.files.results import csv_text
from mdm_jax.tasks.classify.comparison import SCRATCH

ROW_INCHES = 0.34
MOST_NAME = 44


def accuracy_figure(rows: Sequence[Sequence[Any]], chance: float) -> Picture:
    """A point with an interval for each row of the table of scores; hollow for fresh weights.

    Args:
        rows: the table, with its header.
        chance: accuracy of the most frequent label.
    """
    header, *trials = rows
    cells = [dict(zip(header, row, strict=True)) for row in trials]
    with styled():
        figure = Picture(figsize=(7.2, 1.3 + ROW_INCHES * len(cells)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(chance, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        for place, cell in enumerate(cells):
            value, colour = cell["accuracy"], family_colour(cell["family"])
            around = [[value - cell["accuracy_lower"]], [cell["accuracy_upper"] - value]]
            axes.errorbar([value], [place], xerr=around, fmt="none", color=colour, **ERROR_BAR)
            inside = "white" if cell["trunk"].endswith(f"({SCRATCH})") else colour
            axes.plot([value], [place], "o", ms=7, color=colour, mfc=inside, zorder=5)
        axes.set_yticks(range(len(cells)), [_label(cell) for cell in cells], color=INK)
        axes.set(ylim=(len(cells) - 0.4, -0.6), xlabel="accuracy (dashed: most frequent label)")
        axes.grid(visible=False, axis="y")
    return figure


def _label(cell: dict[str, Any]) -> str:
    """The family, and the end of the trunk's name."""
    name = cell["trunk"]
    return f"{cell['family'].upper()}: {name if len(name) <= MOST_NAME else '…' + name[-MOST_NAME:]}"


def result_files(tables: dict[str, list[list[Any]]], chance: float) -> dict[str, str | bytes]:
    """The content of each result file by its name: the tables as CSV, and the figure of `scores`."""
    files: dict[str, str | bytes] = {f"{name}.csv": csv_text(rows) for name, rows in tables.items()}
    return files | {"accuracy.svg": rendered(accuracy_figure(tables["scores"], chance))["svg"]}
