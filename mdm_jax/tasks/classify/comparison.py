"""Trains a head on each trunk with each seed, and compares the predictions of the test texts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from mdm_jax.tasks.classify.data import Split
from mdm_jax.tasks.classify.scores import accuracy, matthews, score
from mdm_jax.tasks.classify.training import Settings, log_probabilities, train_head
from mdm_jax.trained.model import Model
from mdm_jax.trained.trunk import fresh_trunk, trunk_of

SCRATCH = "from scratch"
ENDS = ("", "_lower", "_upper", "_se_texts", "_se_seeds")
SCORE_COLUMNS = [f"{measure}{end}" for measure in ("accuracy", "mcc") for end in ENDS]


@dataclass(frozen=True, eq=False)
class Trial:
    """The predictions of one kind of trunk.

    Attributes:
        name: the model's path; with `(from scratch)` if the trunk of its shape had fresh weights.
        family: MDM or ARM.
        seeds: training seeds.
        predicted_RS: predicted labels, by number.
        train_nats_R: loss of the training texts in the last pass, in nats.
        cut: texts that were longer than the model's row.
        seconds: time of training and prediction, with compilation.
    """

    name: str
    family: str
    seeds: Sequence[int]
    predicted_RS: Int[np.ndarray, "R S"]
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
    cut = train.cut + test.cut
    if cut:
        say(f"{path}: {cut} texts are longer than its rows of {model.seq_len} tokens and were cut")
    trials = []
    for name in [path, f"{path} ({SCRATCH})"][: 1 + scratch]:
        start, predicted, nats = time.perf_counter(), [], []
        for seed in seeds:
            trunk = trained if name == path else fresh_trunk(trained, seed)
            classifier = train_head(trunk, train, len(split.labels), settings, seed)
            predicted.append(log_probabilities(classifier, test).argmax(1))
            nats.append(classifier.train_nats)
            right = float((predicted[-1] == test.label_S).mean())
            say(f"{name}, seed {seed}: accuracy {right:.4f}, training loss {nats[-1]:.4f} nats")
        seconds = time.perf_counter() - start
        family, predicted_RS = model.family.value, np.stack(predicted)
        trials.append(Trial(name, family, tuple(seeds), predicted_RS, np.array(nats), cut, seconds))
    return trials


def scores(trials: Sequence[Trial], split: Split) -> list[list[object]]:
    """A table with a row for each trial: accuracy and Matthews correlation, each with its errors."""
    label_S = _labels(split)
    rows: list[list[object]] = [["trunk", "family", "seeds", *SCORE_COLUMNS, "train_nats", "cut", "seconds"]]
    for trial in trials:
        cells = _cells(label_S, trial.predicted_RS)
        nats, seconds = float(trial.train_nats_R.mean()), round(trial.seconds, 1)
        rows.append([trial.name, trial.family, len(trial.seeds), *cells, nats, trial.cut, seconds])
    return rows


def differences(trials: Sequence[Trial], split: Split) -> list[list[object]]:
    """A table with a row for each pair of trials: the first one's score less the second one's, text by text."""
    label_S = _labels(split)
    rows: list[list[object]] = [["trunk", "less", *SCORE_COLUMNS]]
    for one, base in combinations(trials, 2):
        rows.append([one.name, base.name, *_cells(label_S, one.predicted_RS, base.predicted_RS)])
    return rows


def _labels(split: Split) -> Int[np.ndarray, "S"]:
    number = {label: i for i, label in enumerate(split.labels)}
    return np.array([number[example.label] for example in split.test])


def _cells(label_S: np.ndarray, predicted_RS: np.ndarray, base_RS: np.ndarray | None = None) -> list[object]:
    """The cells of `SCORE_COLUMNS`."""
    found = [score(label_S, predicted_RS, measure, base_RS) for measure in (accuracy, matthews)]
    return [cell for one in found for cell in (one.value, one.lower, one.upper, one.se_examples, one.se_seeds)]
