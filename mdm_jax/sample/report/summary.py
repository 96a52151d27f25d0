"""What a report says beside its table: where each sampler meets each ARM, and notes that a reader needs."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdm_jax.command import aligned
from mdm_jax.files.results import csv_text
from mdm_jax.sample.report.equal_quality import Meeting, Point, meeting
from mdm_jax.sample.report.metrics import Ids, text_entropies
from mdm_jax.sample.report.nats import Nats
from mdm_jax.sample.report.resampling import ratio_draws
from mdm_jax.sample.report.settings import Setting
from mdm_jax.sample.report.table import Row, log_perplexity, log_perplexity_draws, units_of
from mdm_jax.sample.report.texts import Text
from mdm_jax.spec import Family

FEW_TEXTS = 30
SHORTER = 0.95
"""Mean lengths of settings that differ by more than this ratio are told to the reader."""


@dataclass(frozen=True)
class Result:
    """A finished setting; `setting` is None for real text."""

    setting: Setting | None
    texts: Sequence[Text]
    nats: Sequence[Nats] | None
    row: Row


@dataclass(frozen=True)
class EqualQuality:
    """The point at which one sampler of an MDM meets an ARM."""

    arm: str
    mdm: str
    sampler: str
    meeting: Meeting


def equal_quality(results: Sequence[Result]) -> list[EqualQuality]:
    """Every sampler of every MDM against every ARM; none without nats under a reference."""
    curves, arms = dict[tuple[str, str], list[Result]](), list[Result]()
    for result in results:
        if result.setting is not None and result.nats is not None:
            if result.setting.family is Family.ARM:
                arms.append(result)
            else:
                curves.setdefault((result.setting.model, result.setting.curve), []).append(result)
    points = {key: [_point(one) for one in sorted(curve, key=lambda r: r.row.nfe)] for key, curve in curves.items()}
    return [
        EqualQuality(arm, model, sampler, meeting(curve, point))
        for arm, point in [(one.row.model, _point(one)) for one in arms]
        for (model, sampler), curve in points.items()
    ]


def _point(result: Result) -> Point:
    unit_S, nats = units_of(result.texts), result.nats or ()
    ids: Ids = [np.array(text.ids, np.int64) for text in result.texts]
    entropy_S = text_entropies(ids)
    draws_R = ratio_draws(entropy_S, np.ones(len(ids)), unit_S)
    perplexity_R = log_perplexity_draws(result.texts, nats)
    return Point(result.row.seconds, log_perplexity(nats), perplexity_R, result.row.sequence_entropy, draws_R)


def as_csv(found: Sequence[EqualQuality]) -> str:
    """The meetings as CSV; NaN and infinity are empty cells."""
    names = [field.name for field in dataclasses.fields(Meeting)]
    lines = [
        [one.arm, one.mdm, one.sampler, *(_cell(float(x)) for x in dataclasses.astuple(one.meeting))] for one in found
    ]
    return csv_text([["arm", "mdm", "sampler", *names], *lines])


def _cell(value: float) -> float | None:
    return value if math.isfinite(value) else None


HEADER = ("MDM", "sampler", "speed-up at the perplexity of", "95% interval", "entropy there less the ARM's")


def as_text(found: Sequence[EqualQuality]) -> str:
    """The meetings as a table for a reader; empty if there are none."""
    if not found:
        return ""
    cells = [[one.mdm, one.sampler, *_cells(one)] for one in found]
    hint = "*: the entropies differ by more than two errors, so that the texts are not of equal quality."
    return "\n".join([*aligned([HEADER, *cells], left=HEADER[:2]), hint])


def _cells(one: EqualQuality) -> tuple[str, str, str]:
    m = one.meeting
    if math.isnan(m.speed_up):
        return f"{one.arm}: not reached", f"{m.reached:.0%} of draws reach it", "-"
    least = "at least " if m.at_first else ""
    other = "*" if abs(m.entropy_difference) > 2 * m.entropy_difference_se else ""
    difference = f"{m.entropy_difference:+.3f} ± {m.entropy_difference_se:.3f}{other}"
    return f"{one.arm}: {least}{m.speed_up:.2g}", f"[{m.low:.2g}, {m.high:.2g}]", difference


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader must know to compare the rows, a line each."""
    found, rows = [], [result.row for result in results]
    if any(result.nats is None for result in results):
        found.append("No reference: score the texts with another program, and give its JSONL by --nats.")
    if all(result.setting is not None for result in results):
        found.append("No real text to compare with: give --texts.")
    if rows and min(row.texts for row in rows) < FEW_TEXTS:
        found.append(f"Fewer than {FEW_TEXTS} texts: the errors are rough, and distinct-n is high.")
    lengths = sorted(row.tokens for row in rows)
    if rows and lengths[0] < SHORTER * lengths[-1]:
        range_of = f"{lengths[0]:.0f} to {lengths[-1]:.0f} tokens in the mean, because EOS ends some"
        found.append(f"Texts have {range_of}: entropies, distinct-n and self-BLEU depend on the length too.")
    return found
