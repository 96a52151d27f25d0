"""Fine-tuning on pairs: exact answers and nats before, after, and from random weights, for models of both families.

    python -m benchmarks.fine_tuning MODEL... --out runs/fine_tuning --seeds 0,1,2

The pairs are numbers below 1000 in English words, and their digits. A fifth of the numbers is kept for the test. Each
model is measured as it is. Then it is fine-tuned with every seed, and a model of the same shape is trained on the same
batches from random weights. EOS fills the rows, so that an MDM learns the lengths of the answers. Answers are generated
with temperature 0, an MDM's with one token a step, the most confident one first.

- `exact` is the share of the test's numbers whose answer is right.
- `nats` are those of an answer and its EOS given the number in words: minus the log-likelihood of an ARM, the NELBO of
  an MDM. A trained model reads EOS up to the end of the row, as in training.
- Errors are standard errors: over the numbers of the test for a model as it is, and over the seeds otherwise. The seeds
  share the test, so their error does not include the choice of the numbers.

Hardware: two CPU cores, shared with other work. Time: 25 to 70 s for each of the 12 runs of 975 steps.
Result (experiments/results/fine_tuning), for the runs of `cpu_overnight` with 2 layers of width 56 that saw the most
text, and three seeds: the models as they are answer none of the 220 numbers. Fine-tuned, the MDM answers 99.8 +- .2%
and the ARM 98.9 +- .2%; from random weights they answer 99.8 and 99.7%. So fine-tuning works from end to end in both
families. It shows no gain from what the weights knew, which was the documentation of Python: the ARM's first
training loss below .1 nats comes at steps 126 to 144, and from random weights at steps 99 to 108 (MDM: 216 to 243, and
171 to 252).
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import DASHED, FAMILY_COLOURS, rendered, styled
from mdm_jax import load
from mdm_jax import main as one_run
from mdm_jax.command import DONE, aligned, comma_list, exit_code, new_parser
from mdm_jax.data.corpus import Corpus, open_corpus
from mdm_jax.data.prepare import prepare
from mdm_jax.files.layout import METRICS_FOLDER, RUNS_FOLDER
from mdm_jax.files.results import csv_text
from mdm_jax.files.storage import as_path, write_atomic
from mdm_jax.spec import Family, RunSpec, StartSpec
from mdm_jax.spec.counting import count_parameters
from mdm_jax.spec.validation import require
from mdm_jax.tasks.sft import Settings, add_to_plan, data_spec, fine_tuning
from mdm_jax.train.metrics import read_metrics
from mdm_jax.trained.model import Model

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
CUT = " = "
ANSWER_TOKENS = 6
SEQ_LEN = 40
SETTINGS = Settings(epochs=40.0, lr=3e-3, batch=32, seq_len=SEQ_LEN, validation_fraction=0.2, eos_to_end=True)


def in_words(number: int) -> str:
    """A number below 1000 in English words, such as `three hundred and forty-one`."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    hundreds, rest = divmod(number, 100)
    return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")


def write_pairs(path: Path) -> str:
    """The path of the JSONL file of all pairs, which is written."""
    pairs = [{"prompt": in_words(n) + CUT, "response": str(n)} for n in range(1000)]
    write_atomic(path, "".join(json.dumps(pair) + "\n" for pair in pairs))
    return str(path)


@dataclass(frozen=True)
class Measured:
    """One model on the test: for each number, whether the answer is right, and its nats."""

    exact_P: np.ndarray
    nats_P: np.ndarray


def held_out(corpus: Corpus) -> list[tuple[str, str]]:
    """The test's prompts and answers."""
    rows, tokenizer = corpus.validation_pairs, corpus.tokenizer
    found = [rows.row(index) for index in range(len(rows))]
    return [(tokenizer.decode(-1 - row_L[row_L < 0]), tokenizer.decode(row_L[row_L >= 0])) for row_L in found]


def measure(model: Model, pairs: Sequence[tuple[str, str]], fine_tuned: bool) -> Measured:
    """The model's answers to the test, and their nats."""
    eos, asked = model.tokenizer.eos_id, []
    for prompt, answer in pairs:
        ends = SEQ_LEN - len(prompt) - len(answer) if fine_tuned else 1
        asked.append((prompt, [*model.tokenizer.encode(answer), *[eos] * ends]))
    nats_P = np.array([-score.loglikelihood for score in model.loglikelihood(asked, draws=64)])
    sampler, tokens = "confidence" if model.family is Family.MDM else "", None if fine_tuned else ANSWER_TOKENS
    texts = model.generate([prompt for prompt, _ in pairs], tokens, sampler=sampler, temperature=0.0)
    exact_P = np.array([text.text == answer for text, (_, answer) in zip(texts, pairs, strict=True)])
    return Measured(exact_P, nats_P)


def trained(run: RunSpec, out: str) -> Path:
    """The folder of the run, which is trained unless it is finished.

    Raises:
        ValueError: the training failed; its message is printed.
    """
    add_to_plan(out, run)
    require(one_run.main(["--plan", out, "--run-id", run.run_id]) == DONE, "run", run.run_id, "trained to its end")
    return Path(out) / RUNS_FOLDER / run.run_id


def measured_starts(
    path: str, out: str, seeds: Sequence[int]
) -> tuple[Model, dict[str, list[Measured]], dict[str, Any]]:
    """The model; what is measured before, from random and from trained weights; and the folders of the runs."""
    model = load(path)
    data = data_spec(model, path, write_pairs(Path(out) / "pairs.jsonl"), out, SETTINGS)
    prepare(data)
    corpus = open_corpus(data)
    pairs = held_out(corpus)
    found, folders = {"before": [measure(model, pairs, fine_tuned=False)]}, dict[str, list[Path]]()
    for kind in ("random", "trained"):
        folders[kind], found[kind] = [], []
        for seed in seeds:
            run = fine_tuning(model, path, corpus, dataclasses.replace(SETTINGS, seed=seed))
            run = dataclasses.replace(run, start=StartSpec()) if kind == "random" else run
            folders[kind].append(trained(run, out))
            found[kind].append(measure(load(folders[kind][-1]), pairs, fine_tuned=True))
    return model, found, folders


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error; NaN for the error of one value."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def rows_of(model: Model, found: dict[str, list[Measured]]) -> Iterator[dict[str, Any]]:
    """A row of the table for each start, and one for what the trained weights gain over random ones, seed by seed."""
    before = found["before"][0]
    over = {kind: np.array([(one.exact_P.mean(), one.nats_P.mean()) for one in many]) for kind, many in found.items()}
    over["before"] = np.stack([before.exact_P, before.nats_P], 1)
    over["gain"] = over["trained"] - over["random"]
    for kind, values in over.items():
        (exact, exact_se), (nats, nats_se) = mean_and_error(values[:, 0]), mean_and_error(values[:, 1])
        yield {
            "family": model.family.value,
            "params_non_embedding": count_parameters(model.spec).non_embedding,
            "weights": kind,
            "seeds": 0 if kind == "before" else len(values),
            "test_pairs": len(before.exact_P),
            "exact": exact,
            "exact_se": exact_se,
            "nats": nats,
            "nats_se": nats_se,
        }


def draw(folders: dict[str, dict[str, list[Path]]]) -> Figure:
    """Training losses of each family, from trained and from random weights; one line for each seed."""
    with styled():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for family, kinds in folders.items():
            for kind, runs in kinds.items():
                for index, folder in enumerate(runs):
                    read = read_metrics(as_path(folder / METRICS_FOLDER))
                    label = f"{family.upper()}, {kind} weights" if index == 0 else None
                    style: Any = "-" if kind == "trained" else DASHED
                    steps, losses = ([row[name] for row in read] for name in ("step", "loss"))
                    axes.plot(steps, losses, ls=style, lw=1, color=FAMILY_COLOURS[family], label=label)
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("training loss (nats per scored token)")
        axes.legend()
        return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, measures, and writes table and figure. Exit code: 0 done, 1 an error (one line says which)."""
    flags = new_parser("benchmarks.fine_tuning", __doc__)
    flags.add_argument("models", nargs="+", metavar="MODEL", help="a run's folder, a safetensors file or an HF folder")
    flags.add_argument("--out", required=True, metavar="DIR", help="folder of the runs, the table and the figure")
    flags.add_argument("--seeds", type=comma_list, default=("0", "1", "2"), metavar="N,...", help="default 0,1,2")
    given = flags.parse_args(argv)

    def work() -> int:
        seeds, table, folders = [int(seed) for seed in given.seeds], list[dict[str, Any]](), dict[str, Any]()
        for path in given.models:
            model, found, runs = measured_starts(path, given.out, seeds)
            table += rows_of(model, found)
            folders[model.family.value] = runs
        header = list(table[0])
        rounded = [[round(x, 4) if isinstance(x, float) else x for x in row.values()] for row in table]
        cells = [[f"{x:.4f}" if isinstance(x, float) else str(x) for x in row] for row in rounded]
        print("\n".join(aligned([header, *cells], ("family", "weights"))))
        write_atomic(Path(given.out) / "table.csv", csv_text([header, *rounded]))
        write_atomic(Path(given.out) / "losses.svg", rendered(draw(folders))["svg"])
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
