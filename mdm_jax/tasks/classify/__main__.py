"""Classifies labelled sequences or texts by a linear head on the trunk of trained models, and on a fresh trunk.

    python -m mdm_jax.tasks.classify MODEL train.csv --out classified
    python -m mdm_jax.tasks.classify MDM ARM train.fasta --test test.fasta --out classified

MODEL is a run's folder, a safetensors file with its tokenizer beside it, or a Hugging Face folder. The examples are a
CSV file with the columns `sequence` (or `text`) and `label`, or a FASTA file (.fa, .fna, .fasta, also .gz) with a word
`label=NAME` in each header. Without --test, a fifth of the texts is held out, chosen by a hash of each text.

The head reads the mean of the trunk's output over the tokens of a text (--pool last: the output at its last token). It
is trained together with the trunk, or alone with --freeze. Each model is trained once with each seed, and a trunk of
the same shape with fresh weights for comparison (--no-scratch leaves it out).

The table has accuracy and Matthews correlation on the test texts, as means over the seeds, with 95% intervals over
texts and seeds. `--out` gets scores.csv and accuracy.svg, differences.csv with the differences of each two rows, and
predictions.csv with the prediction of each text.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from analysis.wording import with_interval
from mdm_jax.command import DONE, aligned, exit_code, new_parser
from mdm_jax.files.storage import as_path, make_folder, write_atomic
from mdm_jax.spec.validation import require
from mdm_jax.tasks.classify.comparison import Trial, differences, run_trials, scores
from mdm_jax.tasks.classify.data import Split, load_split
from mdm_jax.tasks.classify.figure import result_files
from mdm_jax.tasks.classify.head import Pool
from mdm_jax.tasks.classify.training import Settings
from mdm_jax.trained.load import load


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags, defaults = new_parser("mdm_jax.tasks.classify", __doc__), Settings()
    add = flags.add_argument
    add("models", nargs="+", metavar="MODEL", help="runs' folders, or files or folders of weights")
    add("train", metavar="EXAMPLES", help="labelled examples to train on, as CSV or FASTA")
    add("--test", metavar="EXAMPLES", help="labelled examples to test on (default: a part of the others)")
    add("--held-out", type=float, default=0.2, metavar="SHARE", help="share to test on without --test (%(default)s)")
    add("--out", required=True, metavar="DIR", help="folder for the three CSV files and the figure")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="training seeds (0 1 2)")
    add("--epochs", type=int, default=defaults.epochs, help="passes over the examples (%(default)s)")
    add("--batch", type=int, default=defaults.batch, help="examples of a step (%(default)s)")
    rates = "2e-4 at width 768, in inverse proportion to the width; 1e-2 with --freeze"
    add("--lr", type=float, default=defaults.lr, metavar="LR", help=f"peak learning rate (default: {rates})")
    add("--pool", choices=[pool.value for pool in Pool], default=defaults.pool.value, help="see above (%(default)s)")
    add("--freeze", action="store_true", help="train the head alone")
    add("--no-scratch", action="store_true", help="leave out the trunks with fresh weights")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)
    return exit_code(lambda: _classify(flags))


def _classify(flags: argparse.Namespace) -> int:
    settings = Settings(flags.epochs, flags.batch, flags.lr, flags.freeze, Pool(flags.pool))
    seeds = flags.seeds
    fine = len(set(seeds)) == len(seeds) and all(0 <= seed < 1 << 31 for seed in seeds)
    require(fine, "--seeds", seeds, "different numbers from 0 to 2^31 - 1")
    require(len(set(flags.models)) == len(flags.models), "MODEL", flags.models, "named once each")
    require(0 < flags.held_out < 1, "--held-out", flags.held_out, "between 0 and 1, both excluded")
    split = load_split(flags.train, flags.test, flags.held_out)
    make_folder(as_path(flags.out))
    trials = list[Trial]()
    for path in flags.models:
        trials += run_trials(path, load(path), split, settings, seeds, not flags.no_scratch, _say)
    tables = {"scores": scores(trials, split), "differences": differences(trials, split)}
    files = result_files({**tables, "predictions": _predictions(trials, split)}, split.chance)
    for name, content in files.items():
        write_atomic(as_path(flags.out) / name, content)
    print(split.summary)
    for rows in tables.values():
        if len(rows) > 1:
            print("", *aligned(_shown(rows), {"trunk", "less"}), sep="\n")
    return DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _predictions(trials: Sequence[Trial], split: Split) -> list[list[object]]:
    """A row for each test text: its line, its label, and the label that each trial predicts with each seed."""
    names = [f"{trial.name} seed {seed}" for trial in trials for seed in trial.seeds]
    predicted = [predicted_S for trial in trials for predicted_S in trial.predicted_RS]
    rows: list[list[object]] = [["line", "label", *names]]
    for s, example in enumerate(split.test):
        rows.append([example.line, example.label, *(split.labels[predicted_S[s]] for predicted_S in predicted)])
    return rows


def _shown(rows: list[list[Any]]) -> list[list[str]]:
    """The table for a person: both scores with their intervals, and the columns of text and whole numbers."""
    header, *body = rows
    plain = [name for name in header if name in ("trunk", "less", "family", "seeds", "cut")]
    lines = [[*plain, "accuracy", "mcc"]]
    for row in body:
        cell = dict(zip(header, row, strict=True))
        intervals = [
            with_interval(*(cell[f"{name}{end}"] for end in ("", "_lower", "_upper"))) for name in ("accuracy", "mcc")
        ]
        lines.append([*(str(cell[name]) for name in plain), *intervals])
    return lines


if __name__ == "__main__":
    sys.exit(main())
