"""The table of guidance: means over the seeds of a training, and gains over no guidance, with errors.

A gain is the difference between two scales of the same runs on the same pairs. `se_seeds` is the standard error over
the seeds, for these pairs. `se_pairs` is that over the pairs, of each pair's mean over the seeds, for these runs. Read
the larger one.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from mdm_jax.command import aligned
from mdm_jax.files.results import csv_text
from mdm_jax.tasks.guidance.measure import Measured

SCORES = ("exact", "near")


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard errors, nan where there is one value only."""

    mean: float
    se_seeds: float
    se_pairs: float

    @property
    def shown_error(self) -> float:
        """The error over the seeds, or over the pairs for one seed."""
        return self.se_pairs if math.isnan(self.se_seeds) else self.se_seeds


@dataclass(frozen=True)
class Line:
    """One training at one temperature and scale.

    Attributes:
        training: its name.
        drop_prompt: share of the rows whose prompt was MASK in training; None if unknown.
        temperature: the temperature of the draws.
        scale: w.
        seeds: runs.
        pairs: pairs that each run answered.
        exact: share of right answers.
        exact_gain: the same less that without guidance.
        near: mean nearness to a right answer, from 0 to 1; see `measure.Check`.
        near_gain: the same less that without guidance.
        foreign: share of the answers with a character that no response has.
    """

    training: str
    drop_prompt: float | None
    temperature: float
    scale: float
    seeds: int
    pairs: int
    exact: Estimate
    exact_gain: Estimate
    near: Estimate
    near_gain: Estimate
    foreign: Estimate


def estimate(values_SP: np.ndarray) -> Estimate:
    """The mean over seeds and pairs, and its errors.

    Args:
        values_SP: a value of each seed's run and each pair.
    """
    return Estimate(float(values_SP.mean()), _error(values_SP.mean(1)), _error(values_SP.mean(0)))


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def lines(found: Sequence[Measured]) -> list[Line]:
    """A line for each training, temperature and scale. Trainings are sorted by name.

    Raises:
        ValueError: two runs have the same training and seed.
    """
    runs: dict[tuple[str, float, float], dict[int, Measured]] = {}
    for one in found:
        seeds = runs.setdefault((one.training.name, one.temperature, one.scale), {})
        if one.training.seed in seeds:
            raise ValueError(f"two runs of {one.training.name!r} have the seed {one.training.seed}: give each run once")
        seeds[one.training.seed] = one
    made = []
    for (name, temperature, scale), seeds in sorted(runs.items(), key=lambda item: item[0][0]):
        base = runs[name, temperature, 0.0]
        estimates = list[Estimate]()
        for score in SCORES:
            values_SP = np.stack([getattr(seeds[seed], f"{score}_P") for seed in seeds])
            without_SP = np.stack([getattr(base[seed], f"{score}_P") for seed in seeds])
            estimates += [estimate(values_SP), estimate(values_SP - without_SP)]
        estimates.append(estimate(np.stack([one.foreign_P for one in seeds.values()])))
        first = next(iter(seeds.values()))
        drop, pairs = first.training.drop_prompt, len(first.exact_P)
        made.append(Line(name, drop, temperature, scale, len(seeds), pairs, *estimates))
    return made


def to_csv(table: Sequence[Line]) -> str:
    """The table as CSV. Each estimate has three columns: its mean, `se_seeds` and `se_pairs`."""
    names = list[str]()
    for field in fields(Line):
        parts = ("", "_se_seeds", "_se_pairs") if field.type is Estimate else ("",)
        names += [field.name + part for part in parts]
    rows = [[cell for value in astuple(line) for cell in _cells(value)] for line in table]
    return csv_text([names, *rows])


def _cells(value: object) -> list[object]:
    if isinstance(value, tuple):
        return ["" if math.isnan(number) else round(number, 6) for number in value]
    return [value]


def runs_csv(found: Sequence[Measured]) -> str:
    """A line for each run, temperature and scale. `exact_se` is the standard error over the pairs."""
    names = [
        "training",
        "drop_prompt",
        "seed",
        "temperature",
        "scale",
        "pairs",
        "exact",
        "exact_se",
        "near",
        "near_se",
        "foreign",
    ]
    rows = []
    for one in found:
        about = [one.training.name, one.training.drop_prompt, one.training.seed, one.temperature, one.scale]
        scores = [round(number, 6) for each in (one.exact_P, one.near_P) for number in (each.mean(), _error(each))]
        rows.append([*about, len(one.exact_P), *scores, round(one.foreign_P.mean(), 6)])
    return csv_text([names, *rows])


def shown(table: Sequence[Line]) -> list[str]:
    """The table for a terminal. The errors are those over the seeds, or over the pairs for one seed."""
    rows = [["training", "temperature", "w", "seeds", "exact", "gain", "near", "gain", "foreign"]]
    for line in table:
        cells = [line.training, f"{line.temperature:g}", f"{line.scale:g}", f"{line.seeds}"]
        for value, gain in ((line.exact, line.exact_gain), (line.near, line.near_gain)):
            cells.append(f"{value.mean:.3f} ± {value.shown_error:.3f}")
            cells.append("" if line.scale == 0 else f"{gain.mean:+.3f} ± {gain.shown_error:.3f}")
        rows.append([*cells, f"{line.foreign.mean:.3f}"])
    return aligned(rows, ["training"])
