"""Quality of generated texts against their cost: perplexity under a reference, and beside it always the entropy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.style import (
    DASHED,
    DOTTED,
    ERROR_BAR,
    INK,
    MUTED,
    Picture,
    empty,
    family_colour,
    log_axis,
    styled,
)

COLOURS = ("#D55E00", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#882255", "#999933", "#332288", "#44AA99", "#661100")
"""Okabe and Ito's colours without the ARM's blue, and then some of Tol's."""
MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">", "*")
"""Fewer than the colours, so that ninety samplers differ in one of the two."""
ARM_MARKERS = ("D", "d", "p", "8")
LINES = ("-", DASHED, DOTTED)
COSTS = {"nfe": "forward passes a text", "seconds": "seconds a text"}
QUALITIES = {"perplexity": "generative perplexity", "sequence_entropy": "sequence entropy (nats)"}
Row = Mapping[str, Any]


def plot_quality(rows: Sequence[Row]) -> Picture:
    """Perplexity over entropy, each against forward passes and against seconds; without perplexities entropy alone.

    Real text is a line. Bars are two standard errors over texts, and for seconds the range over batches. Curves go from
    few steps to many.

    Args:
        rows: the rows of `python -m mdm_jax.sample.report`, by the names of its table. Those without `nfe` are real
            text.
    """
    shown = [quality for quality in QUALITIES if any(_known(row[quality]) for row in rows)]
    with styled():
        figure = Picture(figsize=(8.4, 1.2 + 2.7 * max(1, len(shown))), layout="constrained")
        if not shown:
            return empty(figure, "no text was written")
        axes = figure.subplots(len(shown), len(COSTS), sharex="col", sharey="row", squeeze=False)
        for line, quality in enumerate(shown):
            for column, cost in enumerate(COSTS):
                _panel(axes[line, column], rows, quality, cost)
            axes[line, 0].set_ylabel(QUALITIES[quality])
        for column, (cost, label) in enumerate(COSTS.items()):
            if any(_known(row[cost]) for row in rows):
                log_axis(axes[-1, column], "x", "plain")
            axes[-1, column].set_xlabel(label)
        if shown[0] == "perplexity":
            log_axis(axes[0, 0], "y", "plain")
            axes[0, 0].set_title("Lower is better, at equal entropy")
        handles, labels = axes[-1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
        return figure


def _known(value: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def curves_of(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """The rows of each family, model and sampler by rising forward passes; a bound makes no curve of its own."""
    found = dict[tuple[str, str, str], list[Row]]()
    for row in rows:
        if _known(row["nfe"]):
            whole = str(row["sampler"])
            name = ",".join(part for part in whole.replace(":", ",", 1).split(",") if not part.startswith("bound="))
            key = (str(row["family"]), str(row["model"]), name if row["steps"] is None else whole)
            found.setdefault(key, []).append(row)
    return {key: sorted(curve, key=lambda row: row["nfe"]) for key, curve in found.items()}


def _panel(axes: Axes, rows: Sequence[Row], quality: str, cost: str) -> None:
    curves = curves_of(rows)
    samplers = list(dict.fromkeys(name for family, _, name in curves if family != "arm"))
    models = {family: list(dict.fromkeys(m for f, m, _ in curves if f == family)) for family in ("arm", "mdm")}
    for (family, model, name), curve in curves.items():
        shown = [row for row in curve if math.isfinite(row[quality])]
        look: dict[str, Any] = {"color": family_colour(family), "label": model, "lw": 0, "ms": 7}
        look["marker"] = ARM_MARKERS[models["arm"].index(model) % len(ARM_MARKERS)] if family == "arm" else "o"
        if family != "arm":
            place = samplers.index(name)
            label = name if len(models["mdm"]) == 1 else f"{model}, {name}"
            look |= {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "label": label}
            look |= {"lw": 1.3, "ms": 4.5, "ls": LINES[models["mdm"].index(model) % len(LINES)]}
        x, y = (np.array([row[key] for row in shown], float) for key in (cost, quality))
        axes.plot(x, y, mec="white", mew=0.6, zorder=5, **look)
        error = 2 * np.nan_to_num(np.array([row[f"{quality}_se"] for row in shown], float))
        across = _range(shown) if cost == "seconds" else None
        bars: dict[str, Any] = {**ERROR_BAR, "capsize": 0}
        axes.errorbar(x, y, yerr=error, xerr=across, fmt="none", color=look["color"], **bars)
        axes.update_datalim(np.stack([np.tile(x, 2), np.concatenate([y - error, y + error])], 1))
    for row in rows:
        if not _known(row["nfe"]) and math.isfinite(row[quality]):
            axes.axhline(row[quality], color=INK, ls=DASHED, lw=1, label="real text")
            half = 2 * float(np.nan_to_num(row[f"{quality}_se"]))
            axes.axhspan(row[quality] - half, row[quality] + half, color=MUTED, alpha=0.15, lw=0, zorder=0)


def _range(rows: Sequence[Row]) -> np.ndarray:
    """Lengths of the bars from the median seconds to the least and the most of any batch."""
    each = [(row["seconds"] - row["seconds_least"], row["seconds_most"] - row["seconds"]) for row in rows]
    return np.array(each, float).reshape(-1, 2).T
