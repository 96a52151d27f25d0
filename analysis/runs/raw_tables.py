"""Tables that did not come through `read_runs`: every function that takes runs accepts them, with the same defaults."""

import numpy as np
import pandas as pd

from analysis.runs.columns import COLUMNS, NUMERIC
from analysis.runs.load import read_runs


def as_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The table as `read_runs` gives it, and as it is where it already comes from there.

    Args:
        table: a run table, or anybody's with our names of the columns: `family`, `params_non_embedding`, `loss` and one
            of `tokens`, `budget` and `flops_6nd` are needed; every other column has its documented default.

    Raises:
        ValueError: a needed column lacks (it is named), or a table that `read_runs` refuses.
    """
    return table if all(map(_typed, [table] * len(COLUMNS), COLUMNS)) else read_runs(table)


def _typed(table: pd.DataFrame, name: str) -> bool:
    """Whether the column is there with its type; text read by others has nan where ours is empty."""
    if name not in table:
        return False
    column = table[name]
    return column.dtype == np.float64 if name in NUMERIC else not bool(column.isna().any())
