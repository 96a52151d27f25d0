"""The comparison of two families as lines, CSV and a figure; and the lines of single models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.figures.style import rendered
from analysis.wording import scientific
from mdm_jax.command import aligned
from mdm_jax.files.results import csv_text
from mdm_jax.tasks.capability.draws import at_chance, family_runs
from mdm_jax.tasks.capability.equal_accuracy import AccuracyGap, accuracy_gaps
from mdm_jax.tasks.capability.equal_loss import Difference, differences
from mdm_jax.tasks.capability.figure import draw
from mdm_jax.tasks.capability.measure import Measured
from mdm_jax.tasks.capability.questions import SIZES
from mdm_jax.tasks.capability.table import accuracy

COLUMNS = (
    *("task", "size", "score", "likelihood", "degree", "loss", "loss_low", "loss_high", "arms", "mdms"),
    *("accuracy_arm", "accuracy_mdm", "log_odds", "log_odds_low", "log_odds_high"),
    *("slope_arm", "slope_arm_low", "slope_arm_high", "slope_mdm", "slope_mdm_low", "slope_mdm_high"),
    *("gap_accuracy", "arm_flops", "gap_at_accuracy", "gap_at_accuracy_low", "gap_at_accuracy_high"),
    *("gap_at_loss", "gap_at_loss_low", "gap_at_loss_high", "gap_ratio", "gap_ratio_low", "gap_ratio_high", "no_gap"),
)


@dataclass(frozen=True)
class Comparison:
    """What `compared` found, ready to be printed and written."""

    lines: list[str]
    csv: str
    svg: bytes


def compared(rows: Sequence[Measured], score: str, likelihood: str, degree: int) -> Comparison:
    """The families at equal loss and at equal accuracy. The CSV also has each size of a task by itself.

    Args:
        rows: answers of all models.
        score: "corrected" or "plain".
        likelihood: the MDM's loss: "nelbo" or "left_to_right".
        degree: degree of the curves through the runs.

    Raises:
        ValueError: there is nothing to compare (see `family_runs` and `differences`).
    """
    runs = family_runs(rows, score, likelihood)
    less, gaps = differences(runs, degree), accuracy_gaps(runs)
    chances: dict[str, list[float]] = {}
    for row in rows:
        chances.setdefault(row.task.value, []).append(row.chance)
    figure = draw(runs, less, {task: float(np.mean(one)) for task, one in chances.items()})
    settings = (score, likelihood, degree)
    cells = [_cells(one, gap, ("", *settings)) for one, gap in zip(less, gaps, strict=True)]
    sizes = dict.fromkeys((row.task, row.size) for row in rows)
    for task, size in sizes if len(sizes) > 1 else ():
        alone = [row for row in rows if (row.task, row.size) == (task, size)]
        if not at_chance(alone[0]):
            one = differences(family_runs(alone, score, likelihood), degree)[0]
            cells.append(_cells(one, AccuracyGap(one.task, "all sizes together"), (size, *settings)))
    lines = [*_difference_lines(less), "", *_gap_lines(gaps)]
    return Comparison(lines, csv_text([COLUMNS, *cells]), rendered(figure)["svg"])


def _cells(one: Difference, gap: AccuracyGap, settings: tuple) -> list:
    slopes = [(one.lines[family].coefficients[1], *one.lines[family].slope_interval) for family in ("arm", "mdm")]
    about = [one.task, *settings, one.loss, *one.losses, *one.runs, one.accuracy("arm"), one.accuracy("mdm")]
    read = [gap.accuracy, gap.arm_flops, *gap.at_accuracy, *gap.at_loss, *gap.ratio]
    numbers = [None if np.isnan(number) else number for number in read]
    cells = [*about, one.log_odds, *one.interval, *slopes[0], *slopes[1], *numbers, gap.reason]
    return [float(f"{cell:.6g}") if isinstance(cell, float) else cell for cell in cells]


def _difference_lines(less: Sequence[Difference]) -> list[str]:
    first = less[0]
    arms, mdms = first.runs
    where = f"from {arms} ARMs and {mdms} MDMs with losses from {first.losses[0]:.3f} to {first.losses[1]:.3f}:"
    table = [["task", "ARM right", "MDM right", "log odds, MDM less ARM", "95% interval"]]
    for one in less:
        shares = [f"{one.accuracy(family):.1%}" for family in ("arm", "mdm")]
        table.append([one.task, *shares, f"{one.log_odds:+.3f}", "[{:+.3f}, {:+.3f}]".format(*one.interval)])
    return [f"At a loss of {first.loss:.3f} nats per token, {where}", *aligned(table, ["task"])]


def _gap_lines(gaps: Sequence[AccuracyGap]) -> list[str]:
    table = [["task", "right", "ARM's FLOPs", "gap at equal accuracy", "gap at equal loss", "ratio"]]
    for one in gaps:
        if one.reason:
            table.append([one.task, "-", "-", one.reason, "-", "-"])
            continue
        read = ["{:.3g} [{:.3g}, {:.3g}]".format(*values) for values in (one.at_accuracy, one.at_loss, one.ratio)]
        table.append([one.task, f"{one.accuracy:.1%}", scientific(one.arm_flops), *read])
    return ["Training compute of the MDM divided by the ARM's (6ND):", *aligned(table, table[0])]


def model_lines(rows: Sequence[Measured]) -> list[str]:
    """A table of the accuracies of each model, with standard errors over the groups of questions."""
    table = [["model", "task", "size", "questions", "chance", "right", "corrected"]]
    for row in rows:
        shares = [accuracy(one, row.chance) for one in (row.answers.right_G, row.answers.corrected_G)]
        shown = [f"{share:.3f} ± {error:.3f}" for share, error in shares]
        size, count = f"{SIZES[row.task]} {row.size}", f"{len(row.answers.right_G) / row.chance:.0f}"
        table.append([row.model, row.task.value, size, count, f"{row.chance:.3f}", *shown])
    return aligned(table, ["model", "task", "size"])
