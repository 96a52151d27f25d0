"""The results of temporal shift: losses of all models on all slices, slopes of all settings, and differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from analysis.wording import plural, with_interval
from mdm_jax.command import aligned
from mdm_jax.evaluate.ratio import ratio
from mdm_jax.files.results import csv_text
from mdm_jax.spec import Family, Likelihood
from mdm_jax.tasks.temporal.folder import SliceEntry
from mdm_jax.tasks.temporal.settings import Scored, Setting
from mdm_jax.tasks.temporal.shift import Cells, Estimate, Resampling, Statistic

COMPARED = (
    Statistic.RISE,
    Statistic.RISE_RELATIVE,
    Statistic.SLOPE,
    Statistic.SLOPE_RELATIVE,
    Statistic.WITHIN_RELATIVE,
)
"""What is compared between families, whose losses differ in level."""


@dataclass(frozen=True)
class Line:
    """The estimates of a setting, or of the difference of two settings."""

    name: str
    seeds: int
    estimates: dict[Statistic, Estimate]


@dataclass(frozen=True)
class Results:
    """All estimates.

    Attributes:
        settings: a line for each setting.
        differences: a line for each pair of an MDM and an ARM, MDM minus ARM.
        curves: the loss of each setting on each slice.
        relative: the same, relative to the loss at distance 0.
        clusters: number of clusters that the bootstrap draws.
        grouped: whether the clusters are groups that the texts name.
    """

    settings: tuple[Line, ...]
    differences: tuple[Line, ...]
    curves: tuple[tuple[Estimate, ...], ...]
    relative: tuple[tuple[Estimate, ...], ...]
    clusters: int
    grouped: bool


def results_of(settings: Sequence[Setting], cells: Cells, draws: int, seed: int, grouped: bool) -> Results:
    """All estimates of settings on the same texts."""
    resampling = Resampling(cells, draws, seed)
    sampled = [resampling.statistics(one.nats_NGS, number) for number, one in enumerate(settings)]
    lines = [
        Line(one.name, len(one.nats_NGS), {name: value.estimate for name, value in own.items()})
        for one, own in zip(settings, sampled, strict=True)
    ]
    differences = []
    for mdm, its in zip(settings, sampled, strict=True):
        for arm, other in zip(settings, sampled, strict=True):
            if (mdm.family, arm.family) == (Family.MDM, Family.ARM):
                estimates = {name: its[name].minus(other[name]).estimate for name in Statistic}
                seeds = min(len(mdm.nats_NGS), len(arm.nats_NGS))
                differences.append(Line(f"{mdm.name} - {arm.name}", seeds, estimates))
    curves, shares = (
        tuple(
            tuple(point.estimate for point in resampling.slice_losses(one.nats_NGS, number, relative))
            for number, one in enumerate(settings)
        )
        for relative in (False, True)
    )
    return Results(tuple(lines), tuple(differences), curves, shares, len(cells.bytes_GS), grouped)


LOSSES_HEADER = (
    *("model", "setting", "family", "seed", "slice", "held_out", "years", "texts", "bytes", "likelihood"),
    *("nats_per_byte", "bits_per_byte", "se_data", "se_mc"),
)


def losses_csv(
    models: Sequence[Scored],
    slices: Sequence[SliceEntry],
    bytes_GS: Int64[np.ndarray, "G S"],
    nats_NGS: Sequence[np.ndarray],
    method: Likelihood,
) -> str:
    """A line for each model and slice.

    `se_data` is the error from the choice of the texts, over clusters, and `se_mc` that of the Monte Carlo draws, both
    in nats per byte.
    """
    lines: list[tuple] = [LOSSES_HEADER]
    for model, nats_GS in zip(models, nats_NGS, strict=True):
        kind = "nll" if model.family is Family.ARM else method.value
        for number, (entry, part) in enumerate(zip(slices, model.slices, strict=True)):
            here_G = bytes_GS[:, number] > 0
            loss = ratio(nats_GS[None, here_G, number], bytes_GS[here_G, number])
            about = (model.path, model.label, model.family.value, model.seed, entry.name, entry.held_out, entry.years)
            errors = (None if math.isnan(loss.se_data) else loss.se_data, part.se_mc / entry.text_bytes)
            sizes = (entry.texts, entry.text_bytes, kind)
            lines.append((*about, *sizes, loss.value, loss.value / math.log(2), *errors))
    return csv_text(lines)


def slopes_csv(results: Results) -> str:
    """A line for each estimate of a setting or of a difference; what cannot be estimated is empty."""
    lines: list[tuple] = [("setting", "seeds", "statistic", "value", "low", "high")]
    for line in (*results.settings, *results.differences):
        for name, one in line.estimates.items():
            numbers = (one.value, one.low, one.high)
            lines.append((line.name, line.seeds, name.value, *(None if math.isnan(x) else x for x in numbers)))
    return csv_text(lines)


def as_text(results: Results, base_years: float, method: Likelihood) -> str:
    """The tables that the command prints: a column for each setting, then a line for each difference."""
    header = ("", *(line.name for line in results.settings))
    rows = [(name.value, *(_shown(line, name) for line in results.settings)) for name in Statistic]
    unit = "groups" if results.grouped else "blocks of texts"
    lines = [
        f"Losses are in nats per byte. Distance 0: texts held out of the last {base_years:g} years before the end.",
        "Slopes are per year; % is percent of the loss at distance 0.",
        f"Brackets: 95% intervals over {results.clusters:,} {unit} and over the seeds.",
        "",
        *aligned([header, ("seeds", *(str(line.seeds) for line in results.settings)), *rows], left=header[:1]),
    ]
    if results.differences:
        names = ("MDM minus ARM", *(name.value for name in COMPARED))
        pairs = [(line.name, *(_shown(line, name) for name in COMPARED)) for line in results.differences]
        lines += ["", *aligned([names, *pairs], left=names[:1])]
    alone = [line.name for line in results.settings if line.seeds == 1]
    if alone:
        lines += ["", f"{plural(len(alone), 'setting')} with one seed: the interval leaves out the seeds' part."]
    if method is Likelihood.NELBO:
        lines += ["", "An MDM's loss is the NELBO, an upper bound of its negative log-likelihood."]
    return "\n".join(lines)


def _shown(line: Line, name: Statistic) -> str:
    one = line.estimates[name]
    return with_interval(one.value, one.low, one.high)
