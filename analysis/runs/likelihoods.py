"""The MDM's loss by another likelihood of the same tokens, where the run table has a column for it.

The NELBO is a bound: the mean over all orders in which the tokens may be predicted. The chain rule in one order is an
exact likelihood of its own. So a gap may be read under each, and the ARM's loss is the same in all of them.
"""

import numpy as np
import pandas as pd

from analysis.runs.load import as_runs, numbers
from analysis.wording import LIKELIHOODS
from mdm_jax.files.results import LIKELIHOOD_COLUMNS, LossKind
from mdm_jax.spec import Likelihood

NOT_EVALUATED = "not evaluated by this likelihood"


def with_likelihood(runs: pd.DataFrame, likelihood: str) -> pd.DataFrame:
    """A copy of the run table in which the MDM's `loss` is that of another likelihood; the ARM keeps its own.

    The new loss is exact: `loss_se_mc` is 0 and `loss_kind` is "nll". MDM runs that were not evaluated by it keep their
    rows and are left out of the fits, with the reason in `excluded_reason`. Which learning rate stands for a cell is
    not chosen again, so that all likelihoods are read from the same runs.

    Args:
        runs: from `read_runs`, or any table with its needed columns and those of the likelihood.
        likelihood: "left_to_right" or "confidence"; "nelbo" changes nothing.

    Raises:
        ValueError: an unknown likelihood, or no MDM run has been evaluated by it.
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood = {likelihood!r}: must be one of {', '.join(LIKELIHOODS)}")
    runs = as_runs(runs).copy()
    if likelihood == Likelihood.NELBO:
        return runs
    column, se_data = LIKELIHOOD_COLUMNS[likelihood]
    mdm, loss, before = np.asarray(runs["family"] == "mdm"), numbers(runs, column), numbers(runs, "loss")
    if not np.isfinite(loss[mdm]).any():
        how = f"python -m mdm_jax.evaluate.likelihood DIR --likelihoods {likelihood} adds it to finished runs"
        raise ValueError(f"likelihood = {likelihood!r}: no MDM run has a number in {column}; {how}")
    per_nat = numbers(runs, "bits_per_byte") / np.where(before > 0, before, np.nan)
    runs.loc[mdm, "bits_per_byte"] = (loss * per_nat)[mdm]
    runs.loc[mdm, "loss"], runs.loc[mdm, "loss_se_data"] = loss[mdm], numbers(runs, se_data)[mdm]
    runs.loc[mdm, "loss_se_mc"], runs.loc[mdm, "loss_kind"] = 0.0, LossKind.NLL.value
    for bad, reason in ((np.isnan(loss), NOT_EVALUATED), (~(loss > 0) | np.isinf(loss), _not_positive(column))):
        runs.loc[mdm & bad & (runs["excluded_reason"] == ""), "excluded_reason"] = reason
    return runs


def _not_positive(column: str) -> str:
    """Why a run is left out whose number in this column cannot be a loss."""
    return f"{column} is not a finite positive number"


def evaluated_by(runs: pd.DataFrame) -> list[str]:
    """The likelihoods by which at least one usable MDM run was evaluated, "nelbo" first."""
    mdm = np.asarray((runs["family"] == "mdm") & (runs["excluded_reason"] == ""))
    known = {name: np.isfinite(numbers(runs, columns[0])) for name, columns in LIKELIHOOD_COLUMNS.items()}
    return [Likelihood.NELBO.value, *(name for name, finite in known.items() if (mdm & finite).any())]


def left_out(runs: pd.DataFrame) -> dict[str, str]:
    """The runs of a table from `with_likelihood` that it left out: reasons by run_id."""
    reasons = [NOT_EVALUATED, *map(_not_positive, (column for column, _ in LIKELIHOOD_COLUMNS.values()))]
    gone = runs[runs["excluded_reason"].isin(reasons)]
    return dict(zip(gone["run_id"], gone["excluded_reason"], strict=True))
