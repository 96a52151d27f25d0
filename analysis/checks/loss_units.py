"""Losses that cannot be nats per token: perplexities, bits per byte, losses above that of a uniform guess.

A guess that gives all tokens of a vocabulary of V the same probability has a loss of log V nats. No trained model does
worse, so a table whose losses lie above it holds another quantity, mostly perplexities. Losses in another unit move
every floor, every law and the place at which a gap is read, without any sign in the fits.
"""

import math
import re

import numpy as np
import pandas as pd

from analysis.checks.finding import Finding, Severity
from analysis.runs.load import LOSS_HEADER, numbers, usable_runs
from analysis.wording import family_name, significant, some

LARGEST_VOCABULARY = 2**18
"""No vocabulary in use has more tokens; it stands for one that the table does not name."""
NEARLY_UNIFORM = 0.75
"""A typical loss above this share of log V is hardly better than a uniform guess."""
FEW_NATS = 1.3
"""Median loss, nats per token, below which losses of large vocabularies look like bits per byte."""
LARGE_VOCABULARY = 8192
"""Such a vocabulary has tokens of several bytes."""
ALIKE = 1e-3
NAMED = (
    (re.compile(r"(?:^|[^a-z])ppl(?:[^a-z]|$)|perplex", re.IGNORECASE), "a perplexity", "take its natural logarithm"),
    (
        re.compile(r"(?:^|[^a-z])(?:bpb|bpc|bpd|bits|log2)(?:[^a-z]|$)", re.IGNORECASE),
        "in bits",
        "multiply bits per token by ln 2",
    ),
)
"""The unit that a column's own name states."""


def loss_unit_findings(runs: pd.DataFrame) -> list[Finding]:
    """Findings about losses that are no nats per token, by their column's name, their size, or another column."""
    used = usable_runs(runs)
    out = _by_name(runs)
    for family, group in used.groupby("family"):
        out += [*_by_size(str(family), group), *_by_bits(str(family), group)]
    return out


def _by_name(runs: pd.DataFrame) -> list[Finding]:
    header = str(runs.attrs.get(LOSS_HEADER, ""))
    for pattern, what, how in NAMED:
        if pattern.search(header):
            message = f"loss is the table's column {header!r}, {what} by its name; losses must be nats per token"
            return [Finding(Severity.ERROR, "loss_unit", message, math.nan, f"{how}, or rename the column")]
    return []


def _by_size(family: str, group: pd.DataFrame) -> list[Finding]:
    """Losses above log V, or nearly so; and losses so low that they look like bits per byte."""
    loss, vocabulary = numbers(group, "loss"), numbers(group, "vocab_size")
    known = vocabulary > 1
    uniform = np.log(np.where(known, vocabulary, LARGEST_VOCABULARY))
    limit = f"log {vocabulary[known][0]:.0f}" if known.any() else f"log {LARGEST_VOCABULARY} of the largest vocabulary"
    above, name, middle = loss > uniform, family_name(family), float(np.median(loss))
    worst = float(loss.max())
    remedy = "give nats per token: the natural logarithm of a perplexity; or correct vocab_size"
    if above.any():
        message = (
            f"{name}: {above.sum()} of {len(loss)} losses lie above {limit} = {float(uniform[above][0]):.4g}, up to "
            f"{significant(worst)}, worse than a uniform guess: "
        )
        if 2 * above.sum() > len(loss):
            message += "are these perplexities?"
            return [Finding(Severity.ERROR, "impossible_loss", message, worst, remedy)]
        message += some(group["run_id"][above])
        return [Finding(Severity.WARNING, "impossible_loss", message, worst, "leave out runs that went wrong")]
    if middle > NEARLY_UNIFORM * float(np.median(uniform)):
        message = f"{name}: half of the losses lie above {significant(middle)}, near a uniform guess's {limit}"
        return [Finding(Severity.WARNING, "nearly_uniform_loss", f"{message}: are these perplexities?", middle, remedy)]
    if middle < FEW_NATS and bool((~known | (vocabulary >= LARGE_VOCABULARY)).all()):
        message = f"{name}: half of the losses lie below {significant(middle)}: are these bits per byte?"
        remedy = "give nats per token; if they are, and tokens are bytes or another small alphabet, give vocab_size"
        return [Finding(Severity.WARNING, "low_loss", message, middle, remedy)]
    return []


def _by_bits(family: str, group: pd.DataFrame) -> list[Finding]:
    """Losses that equal the table's own bits per byte."""
    loss, bits = numbers(group, "loss"), numbers(group, "bits_per_byte")
    same = np.isfinite(bits) & (np.abs(loss - bits) < ALIKE * loss)
    if 2 * same.sum() <= len(loss):
        return []
    message = f"{family_name(family)}: {same.sum()} of {len(loss)} losses equal bits_per_byte, so they are no nats"
    remedy = "multiply bits per byte by ln 2 and by the bytes of a token"
    return [Finding(Severity.ERROR, "loss_unit", message, float(np.median(loss)), remedy)]
