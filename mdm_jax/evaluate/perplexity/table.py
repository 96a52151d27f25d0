"""The table: a row for each model and corpus, with Monte Carlo and sampling errors, as text and as CSV."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from jaxtyping import Float64, Int64

from mdm_jax.command import aligned
from mdm_jax.evaluate.ratio import Ratio, ratio
from mdm_jax.files.results import csv_text
from mdm_jax.spec import Family, Likelihood

FEW_BLOCKS = 10


@dataclass(frozen=True)
class Score:
    """The nats of one model on the blocks of one corpus, in each draw; R is 1 for an exact likelihood."""

    nats_RG: Float64[np.ndarray, "R G"]
    tokens_G: Int64[np.ndarray, "G"]
    bytes_G: Int64[np.ndarray, "G"]


@dataclass(frozen=True)
class TableRow:
    """One model on one corpus. A number that cannot be estimated is NaN.

    `kind` is `nelbo` for an MDM's bound, `nll` for an ARM's likelihood, or the exact likelihood of an MDM. `*_se_mc` is
    the error of the Monte Carlo draws, `*_se_data` that of the choice of the texts, over blocks of documents; see
    `Ratio`. `difference` is the model's `bits_per_byte` less that of the first model, with paired errors.
    """

    model: str
    corpus: str
    family: str
    kind: str
    seq_len: int
    tokenizer_hash: str
    documents: int
    blocks: int
    tokens: int
    bytes: int
    nats_per_token: float
    nats_per_token_se_mc: float
    nats_per_token_se_data: float
    perplexity: float
    perplexity_se_mc: float
    perplexity_se_data: float
    bits_per_byte: float
    bits_per_byte_se_mc: float
    bits_per_byte_se_data: float
    difference: float
    difference_se_mc: float
    difference_se_data: float


def kind_of(family: Family, method: Likelihood) -> str:
    """What the nats of a model are: see `TableRow.kind`."""
    return "nll" if family is Family.ARM else method.value


def measures(score: Score, first: Score) -> dict[str, float]:
    """The measured columns of a row, with the difference to the first model on the same blocks."""
    per_token = ratio(score.nats_RG, score.tokens_G)
    perplexity = math.exp(per_token.value) if per_token.value < 700 else math.inf
    as_perplexity = Ratio(perplexity, perplexity * per_token.se_mc, perplexity * per_token.se_data)
    per_byte = ratio(score.nats_RG / math.log(2), score.bytes_G)
    difference = ratio((score.nats_RG - first.nats_RG) / math.log(2), score.bytes_G)
    named = {"nats_per_token": per_token, "perplexity": as_perplexity, "bits_per_byte": per_byte}
    columns = {}
    for name, value in (named | {"difference": difference}).items():
        columns |= {name: value.value, f"{name}_se_mc": value.se_mc, f"{name}_se_data": value.se_data}
    return columns


def as_csv(rows: Sequence[TableRow]) -> str:
    """The rows as CSV, with all digits; NaN is an empty cell."""
    known = [[None if isinstance(x, float) and math.isnan(x) else x for x in astuple(row)] for row in rows]
    return csv_text([[field.name for field in fields(TableRow)], *known])


HEADER = ("model", "family", "likelihood", "tokens", "nats/token", "perplexity", "bits/byte", "difference")


def as_text(rows: Sequence[TableRow]) -> str:
    """The rows as text: a table for each corpus, and then notes that say what can be compared."""
    lines = ["Each number: value ± error of the choice of the texts ± error of the Monte Carlo draws."]
    for name in dict.fromkeys(row.corpus for row in rows):
        own = [row for row in rows if row.corpus == name]
        size = f"{own[0].documents:,} documents in {own[0].blocks} blocks, {own[0].bytes:,} bytes"
        cells = [list(_cells(row)) for row in own]
        cells[0][-1] = "(reference)"
        lines += ["", f"{name}: {size}", *aligned([HEADER, *cells], left=HEADER)]
    return "\n".join([*lines, "", *notes(rows)]).rstrip()


def _cells(row: TableRow) -> tuple[str, ...]:
    bound = "≤ " if row.kind == Likelihood.NELBO else ""
    numbers = [_with_errors(row, name) for name in ("nats_per_token", "perplexity", "bits_per_byte", "difference")]
    return row.model, row.family, row.kind, f"{row.tokens:,}", *(bound + n for n in numbers[:3]), numbers[3]


def _with_errors(row: TableRow, name: str) -> str:
    value, errors = getattr(row, name), [getattr(row, f"{name}_{error}") for error in ("se_data", "se_mc")]
    known = [error for error in errors if error > 0 and math.isfinite(error)]
    digits = max(0, min(6, 1 - math.floor(math.log10(min(known))))) if known else 4
    return " ".join([f"{value:.{digits}f}", *("± -" if math.isnan(e) else f"± {e:.{digits}f}" for e in errors)])


def notes(rows: Sequence[TableRow]) -> list[str]:
    """What a reader must know to compare the rows, a line each."""
    found = []
    if any(row.kind == Likelihood.NELBO for row in rows):
        found.append("≤: the NELBO is an upper bound of the negative log-likelihood. An ARM's nll is exact.")
    if len({row.tokenizer_hash for row in rows}) > 1:
        which = "The tokenizers differ: nats per token and perplexity cannot be compared between these models."
        found.append(f"{which} Compare bits per byte.")
    if len(lengths := sorted({row.seq_len for row in rows})) > 1:
        found.append(f"The rows have {lengths[0]} to {lengths[-1]} tokens: a model with longer rows sees more context.")
    few = [row.corpus for row in rows if row.blocks < FEW_BLOCKS]
    if few:
        names = ", ".join(dict.fromkeys(few))
        found.append(f"Fewer than {FEW_BLOCKS} blocks in {names}: the error of the choice of the texts is rough there.")
    return found
