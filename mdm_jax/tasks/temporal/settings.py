"""Settings: the models that differ only in the seed of their training, with the nats of each cluster in each slice."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from jaxtyping import Float64, Int64

from mdm_jax.evaluate.perplexity.blocks import block_ends
from mdm_jax.spec import Family, RunSpec
from mdm_jax.tasks.temporal.dated import Dated
from mdm_jax.tasks.temporal.scoring import SliceNats
from mdm_jax.trained.model import Model

MOST_CLUSTERS = 4096
"""More groups are merged into this number of clusters, which bounds the memory of a bootstrap."""


@dataclass(frozen=True)
class Scored:
    """One model and its nats on all slices.

    Attributes:
        path: the path that the user gave.
        setting: what models of one setting share: the hash of the run's spec without its seed, or a file's path.
        label: a name of the setting, which may not be unique.
        family: MDM or ARM.
        seed: seed of the training; 0 for a file.
        slices: the nats, in the order of the slices.
    """

    path: str
    setting: str
    label: str
    family: Family
    seed: int
    slices: tuple[SliceNats, ...]


def scored(path: str, model: Model, slices: Sequence[SliceNats]) -> Scored:
    """The model's nats, with what decides its setting."""
    run, name = model.run, PurePath(path).name or path
    setting = path if run is None else dataclasses.replace(run, seed=0).spec_hash
    label = f"{model.family.value.upper()} {name if run is None else _described(run)}"
    return Scored(path, setting, label, model.family, 0 if run is None else run.seed, tuple(slices))


def _described(run: RunSpec) -> str:
    """The shape of a run's model, its budget and its group, such as `2x40 1e+12`."""
    parts = [f"{run.model.n_layers}x{run.model.d_model}"]
    parts += [f"{run.cell.budget:.3g}"] if run.cell.budget else [f"{run.schedule.steps} steps"]
    return " ".join([*parts, run.cell.group]).strip()


@dataclass(frozen=True)
class Setting:
    """A setting's name, which is unique, and the nats of each cluster in each slice under the model of each seed."""

    name: str
    family: Family
    nats_NGS: Float64[np.ndarray, "N G S"]


def settings_of(models: Sequence[Scored], nats_MGS: Sequence[Float64[np.ndarray, "G S"]]) -> list[Setting]:
    """The settings in the order of the models.

    Args:
        models: the scored models.
        nats_MGS: the nats of each cluster in each slice under each model.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(models):
        members[one.setting].append(number)
    labels = Counter(models[own[0]].label for own in members.values())
    found = []
    for own in members.values():
        first = models[own[0]]
        name = first.label if labels[first.label] == 1 else f"{first.label} ({PurePath(first.path).name})"
        found.append(Setting(name, first.family, np.stack([nats_MGS[number] for number in own])))
    return found


def clusters_of(slices: Sequence[Sequence[Dated]], longest_row_bytes: float) -> list[Int64[np.ndarray, "_"]]:
    """The number of the cluster of each text, from 0, for each slice.

    If all texts have a group, a group is a cluster, in all slices the same one. More than 4096 groups are merged:
    neighbours in the order of their names are one cluster. Otherwise a cluster is a block of consecutive texts of a
    slice, as `python -m mdm_jax.evaluate.perplexity` forms them.

    Args:
        slices: the texts of each slice.
        longest_row_bytes: mean bytes of a row of the model with the longest rows.
    """
    if all(text.group for texts in slices for text in texts):
        names = sorted({text.group for texts in slices for text in texts})
        count = min(len(names), MOST_CLUSTERS)
        numbers = {name: place * count // len(names) for place, name in enumerate(names)}
        return [np.array([numbers[text.group] for text in texts], np.int64) for texts in slices]
    found, first = [], 0
    for texts in slices:
        ends_G = block_ends(text_bytes(texts), longest_row_bytes)
        found.append(first + np.searchsorted(ends_G, np.arange(len(texts)), "right"))
        first += len(ends_G)
    return found


def text_bytes(texts: Sequence[Dated]) -> Int64[np.ndarray, "D"]:
    """The UTF-8 bytes of each text."""
    return np.array([len(text.text.encode()) for text in texts], np.int64)


def cluster_sums(parts: Sequence[np.ndarray], clusters: Sequence[Int64[np.ndarray, "_"]]) -> Float64[np.ndarray, "G S"]:
    """The sum of a quantity of the texts over each cluster in each slice.

    Args:
        parts: the quantity of each text, for each slice.
        clusters: the number of the cluster of each text, for each slice.
    """
    count = 1 + max(int(own.max()) for own in clusters)
    sums = [np.bincount(own, part, count) for part, own in zip(parts, clusters, strict=True)]
    return np.stack(sums, 1)
