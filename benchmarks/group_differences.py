"""The final losses of a sweep's groups, subtracted cell by cell.

    python -m benchmarks.group_differences runs/level_samplers --base count-antithetic
    python -m benchmarks.group_differences experiments/results/objective_weights/run_table.csv --base elbo

A cell is a family, a budget, a size and a seed. In an experiment whose groups differ in the training loss alone, the
runs of a cell have the same initial weights and batches in every group. The table has the mean difference of each group
from the base over the cells that both have, and its standard error over the cells.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import scipy.stats
from matplotlib.figure import Figure

from analysis import read_runs
from analysis.figures.style import FAMILY_COLOURS, MUTED, rendered, styled
from analysis.runs.load import select, usable_runs
from analysis.wording import some
from mdm_jax.command import DONE, exit_code, new_parser

CELL = ["family", "budget", "params_non_embedding", "seed"]


def differences(runs: pd.DataFrame, base: str) -> pd.DataFrame:
    """The row of each group: its cells, mean loss, and mean difference from `base` with its standard error, in nats.

    `cells` are those that both groups have, and `cells below` the number with a lower loss than in `base`.

    Args:
        runs: from `read_runs`. Runs that it excludes, and those without a group, are left out.
        base: the group that is subtracted.

    Raises:
        ValueError: no run belongs to `base`, or a group has two runs of a cell.
    """
    used = usable_runs(runs)
    used = select(used, used["group"] != "").fillna({"budget": 0.0, "seed": 0.0})  # the table does not say which
    twice = select(used, used.duplicated(["group", *CELL]))
    if len(twice):
        raise ValueError(f"a group has two runs of a cell (family, budget, size and seed): {some(twice['run_id'])}")
    cells = used.pivot(index=CELL, columns="group", values="loss")
    if base not in cells:
        groups = ", ".join(map(str, cells.columns))
        raise ValueError(f"--base {base}: {f'must be one of {groups}' if groups else 'no run has a group'}")
    less = cells.sub(cells[base], axis=0)
    shared = less.notna().sum()
    table = {"cells": shared, "loss": cells.mean(), "difference": less.mean(), "se": less.std(ddof=1) / shared**0.5}
    return pd.DataFrame(table | {"cells below": (less < 0).sum()}).sort_values("difference")


def draw(table: pd.DataFrame, base: str) -> Figure:
    """Each group's mean difference from `base`, with a 95% interval by Student's t over the cells."""
    shown = table.drop(index=base).iloc[::-1]
    error, places = scipy.stats.t.ppf(0.975, shown["cells"] - 1) * shown["se"], range(len(shown))
    with styled():
        figure = Figure(figsize=(6.2, 0.9 + 0.34 * len(shown)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, lw=1)
        axes.errorbar(shown["difference"], places, xerr=error, fmt="o", color=FAMILY_COLOURS["mdm"], capsize=2.5)
        axes.set_yticks(places, list(shown.index))
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("nats per token; lower is better")
        axes.set_title(f"Final NELBO less that of {base}")
        return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, and draws it if a path is given. Exit code: 0 done, 1 an error (one line says which)."""
    flags = new_parser("benchmarks.group_differences", __doc__)
    flags.add_argument("runs", metavar="RUNS", help="a sweep's folder, or a run table")
    flags.add_argument("--base", required=True, metavar="GROUP", help="the group that is subtracted")
    flags.add_argument("--figure", type=Path, help="SVG file to write: the differences with 95%% intervals")
    given = flags.parse_args(argv)

    def work() -> int:
        table = differences(read_runs(given.runs), given.base)
        print(table.round(4).to_string())
        if given.figure:
            given.figure.write_bytes(rendered(draw(table, given.base))["svg"])
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
