"""Trains a head on each trunk with each seed, and compares the predictions of the test texts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from mdm_jax.tasks.classify.data import Split
from mdm_jax.tasks.classify.scores import Score, accuracy, matthews, score
from mdm_jax.tasks.classify.training import Settings, log_probabilities, train_head
from mdm_jax.trained.model import Model
from mdm_jax.trained.trunk import fresh_trunk, trunk_of

SCRATCH = "from scratch"


@dataclass(frozen=True, eq=False)
class Trial:
    """The predictions of one kind of trunk.

    Attributes:
        name: the model's path; with `(from scratch)` if the trunk of its shape had fresh weights.
        family: MDM or ARM.
        seeds: training seeds.
        said_RS: predicted labels, by number.
        train_nats_R: loss of the training texts in the last pass, in nats.
        cut: texts that were longer than the model's row.
        seconds: time of training and prediction, with compilation.
    """

    name: str
    family: str
    seeds: Sequence[int]
    said_RS: Int[np.ndarray, "R S"]
    train_nats_R: Float[np.ndarray, "R"]
    cut: int
    seconds: float


def run_trials(
    path: str,
    model: Model,
    split: Split,
    settings: Settings,
    seeds: Sequence[int],
    scratch: bool,
    say: Callable[[str], None],
) -> list[Trial]:
    """The trial of a model, and that of its shape with fresh weights.

    Args:
        path: name of the model.
        model: the trained model.
        split: the examples.
        settings: how to train.
        seeds: seeds of the order of the examples, and of the fresh weights.
        scratch: whether to train fresh weights too.
        say: called with a line about each training.

    Raises:
        ValueError: the model's tokenizer refuses a text (named), or a loss is not finite.
    """
    trained = trunk_of(model)
    train, test = split.encoded(model.tokenizer, model.seq_len)
    if train.cut + test.cut:
        say(f"{path}: {train.cut + test.cut} texts are longer than its rows of {model.seq_len} tokens and were cut")
    trials = []
    for name in [path, f"{path} ({SCRATCH})"][: 1 + scratch]:
        start, said, nats = time.perf_counter(), [], []
        for seed in seeds:
            trunk = trained if name == path else fresh_trunk(trained, seed)
            classifier = train_head(trunk, train, len(split.labels), settings, seed)
            said.append(log_probabilities(classifier, test).argmax(1))
            nats.append(classifier.train_nats)
            right = float((said[-1] == test.label_S).mean())
            say(f"{name}, seed {seed}: accuracy {right:.4f}, training loss {nats[-1]:.4f} nats")
        seconds = time.perf_counter() - start
        family, cut = model.family.value, train.cut + test.cut
        trials.append(Trial(name, family, tuple(seeds), np.stack(said), np.array(nats), cut, seconds))
    return trials


def scores(trials: Sequence[Trial], split: Split) -> list[list[object]]:
    """A table with a row for each trial: accuracy and Matthews correlation, each with its errors."""
    label_S = _labels(split)
    rows: list[list[object]] = [
        ["trunk", "family", "seeds", *_columns("accuracy"), *_columns("mcc"), "train_nats", "cut", "seconds"]
    ]
    for trial in trials:
        cells = [cell for measure in (accuracy, matthews) for cell in _cells(score(label_S, trial.said_RS, measure))]
        nats, seconds = float(trial.train_nats_R.mean()), round(trial.seconds, 1)
        rows.append([trial.name, trial.family, len(trial.seeds), *cells, nats, trial.cut, seconds])
    return rows


def differences(trials: Sequence[Trial], split: Split) -> list[list[object]]:
    """A table with a row for each pair of trials: the first one's score less the second one's, text by text."""
    label_S = _labels(split)
    rows: list[list[object]] = [["trunk", "less", *_columns("accuracy"), *_columns("mcc")]]
    for one, base in combinations(trials, 2):
        pair = [score(label_S, one.said_RS, measure, base.said_RS) for measure in (accuracy, matthews)]
        rows.append([one.name, base.name, *(cell for found in pair for cell in _cells(found))])
    return rows


def _labels(split: Split) -> Int[np.ndarray, "S"]:
    number = {label: i for i, label in enumerate(split.labels)}
    return np.array([number[example.label] for example in split.test])


def _columns(measure: str) -> list[str]:
    return [measure, f"{measure}_lower", f"{measure}_upper", f"{measure}_se_texts", f"{measure}_se_seeds"]


def _cells(found: Score) -> list[object]:
    return [found.value, found.lower, found.upper, found.se_examples, found.se_seeds]
