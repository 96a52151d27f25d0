"""Learning rates of a cell: where a sweep ran a cell with several, the best one stands for it.

IsoFLOP curves compare sizes at their own best hyperparameters (Porian et al. 2024, section 3.4). Runs that differ in
the peak learning rate (and the seed) alone are one cell; those at the rate of the lowest loss stay, the others keep
their rows and are left out. Several seeds are averaged first, and a rate that lost a seed (diverged) stands behind one
that has them all, so that luck does not choose.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mdm_jax.files.results import Status

DROPPED = "not the best learning rate of its cell"
MODEL = ("params", "params_non_embedding", "n_layers", "d_model", "n_heads", "ffn", "seq_len", "vocab_size")
TRAINING = ("tokens", "objective_variant", "lr_final_fraction", "batch_size", "warmup_steps", "steps", "schedule")
CELL = ("family", "group", "budget", "budget_convention", *MODEL, *TRAINING, "tokenizer_hash", "data_hash")
"""Runs that agree in these differ in learning rate and seed only."""
TRIED = (Status.OK.value, Status.DIVERGED.value)


@dataclass(frozen=True)
class LrSweep:
    """How many cells of a table have several learning rates, and how many runs the choice of the best left out."""

    cells: int
    """Cells that were run with several rates."""
    dropped: int
    """Runs left out because another rate was better."""
    at_edge: int
    """Cells whose best rate is the lowest or the highest tried, so that a better one may lie beyond."""


def best_lr_reasons(runs: pd.DataFrame) -> list[str]:
    """`excluded_reason` of each run of a table from `read_runs`, with DROPPED where another rate is better."""
    reasons = [str(reason) for reason in runs["excluded_reason"]]
    for cell in _swept_cells(runs):
        best = cell.best_lr
        for row, lr, used in zip(cell.rows, cell.lr, cell.used, strict=True):
            if used and lr != best:
                reasons[row] = DROPPED
    return reasons


def lr_sweep_of(runs: pd.DataFrame) -> LrSweep:
    """The counts for a table that `best_lr_reasons` has seen."""
    chosen = [cell for cell in _swept_cells(runs) if cell.used.any()]
    at_edge = sum(cell.best_lr in (cell.lr[cell.tried].min(), cell.lr[cell.tried].max()) for cell in chosen)
    return LrSweep(len(chosen), list(runs["excluded_reason"]).count(DROPPED), at_edge)


@dataclass(frozen=True, eq=False)
class _Cell:
    """The runs of one cell, [m] each."""

    rows: np.ndarray
    """Positions in the table."""
    lr: np.ndarray
    loss: np.ndarray
    used: np.ndarray
    tried: np.ndarray
    """Whether the run came to an end, be it a divergence."""

    @property
    def best_lr(self) -> float:
        """The rate with the most seeds, among those the lowest mean loss, and the lower of two equal ones."""
        ranked = []
        for lr in np.unique(self.lr[self.used]):
            loss = self.loss[self.used & (self.lr == lr)]
            ranked.append((-len(loss), float(loss.mean()), float(lr)))
        return min(ranked)[2] if ranked else np.nan


def _swept_cells(runs: pd.DataFrame) -> Iterator[_Cell]:
    """Every cell with more than one known rate."""
    lr, loss = (np.asarray(runs[name], np.float64) for name in ("lr", "loss"))
    reasons, status = np.asarray(runs["excluded_reason"]), np.asarray(runs["status"])
    cells = runs.groupby(list(CELL), dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(cells, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
        if len(rows) == 1:
            continue
        rows = rows[np.isfinite(lr[rows])]
        if len(np.unique(lr[rows])) > 1:
            yield _Cell(rows, lr[rows], loss[rows], reasons[rows] == "", np.isin(status[rows], TRIED))
