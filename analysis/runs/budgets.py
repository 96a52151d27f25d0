"""Groups runs by budget, and finds runs that belong to no budget's curve.

Budgets in a table are often the FLOPs that each run really spent, which whole steps move by a percent. Budgets closer
together than a sweep would plan them count as one. A run whose compute is not its budget, such as one that stopped at
half its tokens, is left out: it would move the minimum of its budget's curve, and nothing would show it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.runs.load import numbers
from mdm_jax.files.results import FLOP_COLUMNS

BUDGET_STEP = 0.03
"""Sorted budgets that differ by a larger share than this are two."""
WIDEST_BUDGET = 0.25
"""Budgets that run on without such a step may differ by this share in all, and are then still one."""
MOST_OFF_BUDGET = 0.05
"""A run's compute may differ from its budget by this share."""
MANY_CELLS = 4
OFF_BUDGET = "its compute is not its budget"
REMEDY = "map the planned budget with columns='budget=THEIRS', or fit all runs at once with --approach parametric"


def with_abscissa(runs: pd.DataFrame, x: str) -> pd.DataFrame:
    """A copy with the column x, whose `excluded_reason` also names the runs that no curve against x can use.

    These are runs without a budget or an abscissa, and runs whose compute is not their budget.
    """
    runs = runs.reset_index(drop=True)
    if x == "flops_per_token":
        runs[x] = numbers(runs, "flops_exact") / numbers(runs, "tokens")
    for bad, why in ((~(runs["budget"] > 0), "no budget"), (~(runs[x] > 0), f"{x} is missing or not positive")):
        runs.loc[bad & (runs["excluded_reason"] == ""), "excluded_reason"] = why
    for family in spending(runs):
        runs.loc[family.off, "excluded_reason"] = OFF_BUDGET
    return runs


def same_budgets(runs: pd.DataFrame) -> np.ndarray:
    """Each run's budget, with those that lie within 3% of a neighbour called by the largest of them; [n] FLOPs.

    Raises:
        ValueError: budgets run on without a step, or most of them hold one size: they were not planned as budgets.
    """
    budgets = numbers(runs, "budget")
    known = np.flatnonzero(np.isfinite(budgets) & (budgets > 0))
    labels = budgets.copy()
    if not len(known):
        return labels
    order = known[np.argsort(budgets[known], kind="stable")]
    ranked = budgets[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(np.log(ranked)) > np.log1p(BUDGET_STEP)]))
    ends = np.append(starts[1:], len(ranked)) - 1
    widest = int(np.argmax(ranked[ends] / ranked[starts]))
    if ranked[ends[widest]] > (1 + WIDEST_BUDGET) * ranked[starts[widest]]:
        raise ValueError(
            f"budget: {ends[widest] - starts[widest] + 1} runs lie without a step from {ranked[starts[widest]]:.3g} to "
            f"{ranked[ends[widest]]:.3g} FLOPs, so no runs share a budget; {REMEDY}"
        )
    group = np.repeat(np.arange(len(starts)), ends - starts + 1)
    labels[order] = np.array([float(f"{value:.6g}") for value in ranked[ends]])[group]
    _refuse_lone_sizes(runs, labels)
    return labels


def _refuse_lone_sizes(runs: pd.DataFrame, labels: np.ndarray) -> None:
    """Raises where a table that states no convention has a budget a run, as of runs planned without budgets."""
    if "budget_convention" in runs and set(runs["budget_convention"]) - {""}:
        return
    cells = runs.assign(budget=labels).groupby(["family", "budget"])["params_non_embedding"].nunique()
    sizes = np.asarray(cells, np.int64)
    sizes = sizes[sizes > 0]
    lone = int((sizes == 1).sum())
    if len(sizes) >= MANY_CELLS and 2 * lone > len(sizes):
        raise ValueError(f"budget: {lone} of {len(sizes)} hold a single size, so there are no curves; {REMEDY}")


@dataclass(frozen=True, eq=False)
class Spending:
    """A family's compute against its budgets."""

    family: str
    convention: str
    """The convention of the budgets: as stated, else the one that fits the most runs; empty where none fits."""
    rows: np.ndarray
    """Positions in the table of the family's runs that have both, [m]."""
    ratio: np.ndarray
    """Compute over budget under the convention (under 6 N D where there is none), [m]."""

    @property
    def off(self) -> np.ndarray:
        """Positions of the runs whose compute is not their budget; none where no convention is known."""
        return self.rows[_is_off_budget(self.ratio)] if self.convention else self.rows[:0]


def spending(runs: pd.DataFrame) -> list[Spending]:
    """Compute against budget of the runs that nothing but this leaves out, a family each."""
    kept = runs["excluded_reason"].isin(("", OFF_BUDGET)).to_numpy() & (numbers(runs, "budget") > 0)
    out = []
    for family in dict.fromkeys(runs.loc[kept, "family"]):
        rows = np.flatnonzero(kept & (runs["family"] == family).to_numpy())
        own = runs.iloc[rows]
        six_nd = 6 * numbers(own, "params_non_embedding") * numbers(own, "tokens") / numbers(own, "budget")
        ratios = {name: numbers(own, column) / numbers(own, "budget") for name, column in FLOP_COLUMNS.items()}
        ratios["smdm_6nd"] = six_nd  # the column may hold a product that overflowed, which is another finding
        stated = set(own["budget_convention"]) - {""} if "budget_convention" in own else set()
        if len(stated) == 1:
            name = stated.pop()
            ratio = ratios.get(name, np.full(len(rows), np.nan))
        else:
            name = max(ratios, key=lambda c: int((~_is_off_budget(ratios[c]) & np.isfinite(ratios[c])).sum()))
            ratio = ratios[name]
            if 2 * int((~_is_off_budget(ratio) & np.isfinite(ratio)).sum()) < len(rows):
                name, ratio = "", six_nd
        known = np.isfinite(ratio)
        out.append(Spending(str(family), name, rows[known], ratio[known]))
    return out


def _is_off_budget(ratio: np.ndarray) -> np.ndarray:
    """Whether each run's compute differs from its budget."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(np.log(ratio)) > np.log1p(MOST_OFF_BUDGET)
