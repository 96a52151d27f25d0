"""The table of a report: a row for each setting and one for real text, as CSV and as text, and notes to the reader."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from jaxtyping import Float64

from mdm_jax.command import aligned
from mdm_jax.files.results import csv_text
from mdm_jax.sample.report.metrics import variety
from mdm_jax.sample.report.nats import Nats
from mdm_jax.sample.report.resampling import Measured, of_draws, ratio_draws
from mdm_jax.sample.report.self_bleu import self_bleu
from mdm_jax.sample.report.texts import REAL, Text


@dataclass(frozen=True)
class Row:
    """A setting's quality and cost. `*_se` are standard errors over texts (see `resampling`).

    A number that is not known is NaN. `tokens`, `nfe` and `ended` are means over texts. `seconds` is the median over
    batches of a batch's time divided by its texts, `seconds_least` and `seconds_most` the extremes. `perplexity` is
    that of all texts together, for each token of the reference.
    """

    model: str
    family: str
    sampler: str
    steps: int | None
    texts: int
    tokens: float
    ended: float
    nfe: float
    seconds: float
    seconds_least: float
    seconds_most: float
    compile_seconds: float
    perplexity: float
    perplexity_se: float
    sequence_entropy: float
    sequence_entropy_se: float
    unigram_entropy: float
    unigram_entropy_se: float
    distinct_1: float
    distinct_1_se: float
    distinct_2: float
    distinct_2_se: float
    distinct_3: float
    distinct_3_se: float
    distinct_4: float
    distinct_4_se: float
    repetition: float
    repetition_se: float
    self_bleu: float
    self_bleu_se: float


def units_of(texts: Sequence[Text]) -> np.ndarray:
    """The unit of each text, numbered from 0."""
    return np.unique([text.unit for text in texts], return_inverse=True)[1].reshape(-1)


def log_perplexity(nats: Sequence[Nats]) -> float:
    """The nats of all texts together for each token of the reference; 0 without tokens."""
    return math.fsum(one.nats for one in nats) / max(1, sum(one.tokens for one in nats))


def log_perplexity_draws(texts: Sequence[Text], nats: Sequence[Nats]) -> Float64[np.ndarray, "R"]:
    """The nats for each token of the reference in each bootstrap sample of the texts."""
    sums_S, tokens_S = (np.array([getattr(one, name) for one in nats], float) for name in ("nats", "tokens"))
    return ratio_draws(sums_S, tokens_S, units_of(texts))


def perplexity(texts: Sequence[Text], nats: Sequence[Nats] | None) -> Measured:
    """The generative perplexity of all texts together; NaN without nats or without tokens."""
    if nats is None or not any(one.tokens for one in nats):
        return Measured(math.nan, math.nan)
    draws_R = np.exp(np.minimum(log_perplexity_draws(texts, nats), 700))
    return of_draws(_exp(log_perplexity(nats)), draws_R, units_of(texts))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def row_of(texts: Sequence[Text], family: str, nats: Sequence[Nats] | None) -> Row:
    """The row of one setting, or of real text.

    Args:
        texts: all texts of the setting.
        family: the model's family; empty for real text.
        nats: their nats under the reference, or None.
    """
    unit_S, first = units_of(texts), texts[0]
    ids = [np.array(text.ids, np.int64) for text in texts]
    varied, timed = variety(ids, unit_S), sorted({text.batch: text.seconds for text in texts}.values())
    real = first.model == REAL
    measured = {"perplexity": perplexity(texts, nats), "sequence_entropy": varied.sequence_entropy}
    measured |= {"unigram_entropy": varied.unigram_entropy}
    measured |= {f"distinct_{n}": one for n, one in enumerate(varied.distinct, 1)}
    measured |= {"repetition": varied.repetition, "self_bleu": self_bleu([text.text for text in texts], unit_S)}
    numbers = {name: one.value for name, one in measured.items()} | {f"{k}_se": one.se for k, one in measured.items()}
    return Row(
        model=first.model,
        family=family,
        sampler=first.sampler,
        steps=first.steps,
        texts=len(texts),
        tokens=float(np.mean([text.tokens for text in texts])),
        ended=float(np.mean([text.ended for text in texts])),
        nfe=math.nan if real else float(np.mean([text.nfe for text in texts])),
        seconds=math.nan if real else float(np.median(timed)),
        seconds_least=math.nan if real else timed[0],
        seconds_most=math.nan if real else timed[-1],
        compile_seconds=math.nan if real else max(text.compile_seconds for text in texts),
        **numbers,
    )


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, with all digits; NaN is an empty cell."""
    known = [[None if isinstance(x, float) and math.isnan(x) else x for x in astuple(row)] for row in rows]
    return csv_text([[field.name for field in fields(Row)], *known])


MEASURED = ("perplexity", "sequence_entropy", "unigram_entropy", "distinct_2", "repetition", "self_bleu")
HEADER = ("model", "sampler", "steps", "nfe", "s/text", "perplexity", "seq. entropy", "unigram", "distinct-2")
HEADER += ("repetition", "self-BLEU")


def as_text(rows: Sequence[Row]) -> str:
    """The rows as a table for a reader, with errors."""
    lines = [[row.model, row.sampler, "" if row.steps is None else str(row.steps), *_cost(row)] for row in rows]
    cells = [[*line, *(with_error(row, name) for name in MEASURED)] for line, row in zip(lines, rows, strict=True)]
    return "\n".join(aligned([HEADER, *cells], left=HEADER[:2]))


def _cost(row: Row) -> tuple[str, str]:
    if math.isnan(row.nfe):
        return "-", "-"
    return f"{row.nfe:.1f}", f"{row.seconds:.3g}"


def with_error(row: Row, name: str) -> str:
    """A number of the row with its standard error, rounded to two digits of the error; "-" if it is not known."""
    value, error = getattr(row, name), getattr(row, f"{name}_se")
    if math.isnan(value):
        return "-"
    known = 0 < error < math.inf and value < math.inf
    digits = max(0, min(4, 1 - math.floor(math.log10(error)))) if known else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}" if known else f"{value:.{digits}f}"
