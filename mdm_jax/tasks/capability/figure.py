"""Accuracy against training compute and against loss, a column of two panels for each task."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.figures.style import INK, MUTED, SHADE, Picture, family_colour, log_axis, styled
from analysis.wording import family_name
from mdm_jax.tasks.capability.draws import ALL, FamilyRuns
from mdm_jax.tasks.capability.equal_accuracy import better_half
from mdm_jax.tasks.capability.equal_loss import Difference

POINTS = 50
FAINT_ALPHA = 0.28


def draw(runs: Mapping[str, FamilyRuns], differences: Sequence[Difference], chances: Mapping[str, float]) -> Picture:
    """The figure.

    Args:
        runs: the runs of "arm" and "mdm".
        differences: the differences at equal loss.
        chances: accuracy of a model that does not read the prompts, of each task.
    """
    tasks = [one for one in differences if one.task != ALL]
    with styled():
        figure = Picture(figsize=(2.55 * len(tasks) + 0.5, 5.4), layout="constrained")
        panels = figure.subplots(2, len(tasks), squeeze=False, sharey="col")
        for column, one in zip(panels.T, tasks, strict=True):
            _against_compute(column[0], runs, one)
            _against_loss(column[1], runs, one)
            for axes in column:
                axes.axhline(chances[one.task], color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
                axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
                axes.yaxis.set_major_locator(MaxNLocator(5))
            column[0].set_title(one.task.replace("_", " "))
        panels[0, 0].set_ylabel("right answers")
        panels[1, 0].set_ylabel("right answers")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        chance = panels[0, 0].lines[-1]
        labels = [*labels, "does not read the prompt"]
        figure.legend([*handles, chance], labels, loc="outside lower center", ncols=len(labels))
        return figure


def _against_compute(axes: Axes, runs: Mapping[str, FamilyRuns], one: Difference) -> None:
    """All runs, with those of a loss in the better half of their budget in full colour."""
    for family, of_family in runs.items():
        colour, best = family_colour(family), better_half(of_family)
        accuracy_R = of_family.accuracy[one.task][0]
        axes.plot(of_family.flops_R[~best], accuracy_R[~best], "o", ms=3.2, color=colour, alpha=FAINT_ALPHA, mew=0)
        name = family_name(family)
        axes.plot(of_family.flops_R[best], accuracy_R[best], "o", ms=4, color=colour, mec="white", mew=0.4, label=name)
    log_axis(axes, "x", "flops")
    axes.set_xlabel("training FLOPs (6ND)")


def _against_loss(axes: Axes, runs: Mapping[str, FamilyRuns], one: Difference) -> None:
    """All runs, and each family's curve over the losses that both reach; above, the difference in log odds."""
    for family, of_family in runs.items():
        colour = family_colour(family)
        axes.plot(of_family.loss_R, of_family.accuracy[one.task][0], "o", ms=4, color=colour, mec="white", mew=0.4)
        loss = np.linspace(*one.losses, POINTS)
        odds = np.polynomial.polynomial.polyval(loss - one.loss, one.lines[family].coefficients)
        axes.plot(loss, 1 / (1 + np.exp(-odds)), color=colour, lw=2, zorder=4)
    axes.axvspan(*one.losses, **SHADE)
    axes.invert_xaxis()
    axes.set_xlabel("loss (nats per token)")
    low, high = one.interval
    said = f"MDM less ARM {one.log_odds:+.2f} [{low:+.2f}, {high:+.2f}]"
    axes.set_title(said, fontsize=8.5, fontweight="normal", color=INK)
