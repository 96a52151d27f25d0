"""The final losses of a sweep's groups, subtracted cell by cell.

    python -m benchmarks.group_differences runs/level_samplers --base count-antithetic
    python -m benchmarks.group_differences experiments/results/objective_weights/run_table.csv --base elbo

A cell is a family, a budget, a size and a seed. In an experiment whose groups differ in the training loss alone, the
runs of a cell have the same initial weights and batches in every group. The table has the mean difference of each group
from the base over the cells that both have, and its standard error over the cells.
"""

import argparse

import pandas as pd

from analysis import read_runs

CELL = ["family", "budget", "params_non_embedding", "seed"]


def differences(runs: pd.DataFrame, base: str) -> pd.DataFrame:
    """One line for each group: its cells, mean loss, and mean difference from `base` with a standard error, in nats.

    Args:
        runs: a run table with finished runs.
        base: the group that is subtracted.

    Raises:
        ValueError: no run belongs to `base`.
    """
    cells = runs.pivot(index=CELL, columns="group", values="loss")
    if base not in cells:
        raise ValueError(f"--base {base}: must be one of {', '.join(map(str, cells.columns))}")
    less = cells.sub(cells[base], axis=0)
    shared = less.notna().sum()
    lower = (less < 0).sum()
    table = {"cells": shared, "loss": cells.mean(), "difference": less.mean(), "se": less.std(ddof=1) / shared**0.5}
    return pd.DataFrame(table | {"cells below": lower}).sort_values("difference")


def main() -> None:
    """Prints the table."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.group_differences")
    made.add_argument("runs", help="folder of a sweep, or a run table")
    made.add_argument("--base", required=True, help="group that is subtracted")
    given = made.parse_args()
    runs = read_runs(given.runs)
    finished = runs.loc[(runs["status"] == "ok") & runs["group"].fillna("").ne("")]
    print(differences(pd.DataFrame(finished), given.base).round(4).to_string())


if __name__ == "__main__":
    main()
