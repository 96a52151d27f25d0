"""Fine-tunes a trained model on pairs of prompt and response (supervised fine-tuning).

    python -m mdm_jax.tasks.sft MODEL --pairs pairs.jsonl --out runs/mine
    python -m mdm_jax.tasks.sft MODEL --pairs pairs.jsonl --out runs/mine --epochs 40 --seq-len 256 --drop-prompt 0.1

MODEL is a run's folder, one of SMDM's safetensors files, or a Hugging Face folder, of an MDM or an ARM. Each line of
the pairs is a JSON object with a `prompt`, which may be empty, and a `response`. The prompt is read and has no loss; a
row is one pair, and its padding is neither read nor scored. The response ends with EOS.

An MDM that is trained so takes the number of tokens that it is asked for as the length of the answer. With
--eos-to-end it learns the length too: EOS fills the rows after the response, and is scored.

--format reads published pairs: ShareGPT's conversations, or GSM8K's word problems in one stage or two (see
`python -m mdm_jax.tasks.pairs --help`). They are written to pairs.jsonl in the folder first.

The folder gets data/ (the prepared pairs), plan.jsonl (the run's settings), and runs/RUN_ID, which `mdm_jax.load` and
every command open as a model. The same command goes on after an interruption. The defaults of epochs, batch and
learning rate are those of SMDM's fine-tuning on ShareGPT (Nie et al. 2024, arXiv 2410.18514).
"""

import argparse
import dataclasses
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from mdm_jax import main as one_run
from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.config import config_of, override, to_spec
from mdm_jax.data.corpus import Corpus, open_corpus
from mdm_jax.data.manifest import TOKENIZER_FILE, TOKENIZER_JSON_FILE
from mdm_jax.data.prepare import prepare
from mdm_jax.data.tokenizer import ByteTokenizer, SentencePieceTokenizer
from mdm_jax.files.fingerprint import with_fingerprint
from mdm_jax.files.layout import PLAN_FILE, RUNS_FOLDER, plan_lines
from mdm_jax.files.storage import Kind, as_path, is_file, kind, write_atomic
from mdm_jax.spec import (
    CorpusSource,
    CorpusSpec,
    DataSpec,
    EvaluationSpec,
    HardwareSpec,
    OptimSpec,
    RunSpec,
    ScheduleSpec,
    StartSpec,
    TokenizerKind,
    TokenizerSpec,
    evaluated_loss,
    to_json,
)
from mdm_jax.spec.validation import require
from mdm_jax.tasks.pairs.formats import PairFormat, Reading, read_pairs
from mdm_jax.trained.load import load
from mdm_jax.trained.model import Model

DATA_FOLDER, PAIRS_FILE = "data", "pairs.jsonl"
MOST_WARMUP = 100
MOST_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """How a model is fine-tuned.

    Attributes:
        epochs: passes over the training pairs.
        lr: peak of the learning rate. It rises over a tenth of the steps, 100 at most, and falls to a tenth.
        batch: pairs of a step; fewer if there are not so many.
        seq_len: tokens of a row; 0 takes those of the model. Longer pairs are left out.
        seed: the seed of the order of the pairs, and of the masks.
        validation_fraction: share of the prompts that are kept for the final evaluation.
        drop_prompt: share of the pairs whose prompt is MASK in training, for guidance at inference.
        score_prompt: mask and score the prompt like the response, as in pre-training.
        eos_to_end: fill rows with EOS, and score them.
        devices: devices that share the pairs of a batch.
    """

    epochs: float = 3.0
    lr: float = 2e-4
    batch: int = 256
    seq_len: int = 0
    seed: int = 0
    validation_fraction: float = 0.05
    drop_prompt: float = 0.0
    score_prompt: bool = False
    eos_to_end: bool = False
    devices: int = 1

    def __post_init__(self) -> None:
        require(0 < self.epochs <= 1e6, "epochs", self.epochs, "above 0 and at most 1e6")
        require(self.batch >= 2, "batch", self.batch, "at least 2 pairs")
        require(self.devices >= 1, "devices", self.devices, "at least 1")
        require(self.seq_len == 0 or self.seq_len >= 2, "seq_len", self.seq_len, "0 (the model's), or at least 2")


def tokenizer_spec(model: Model, path: str | os.PathLike[str]) -> TokenizerSpec:
    """The tokenizer of the model at this path, for new data.

    Raises:
        ValueError: the tokenizer is absent or corrupt.
    """
    tokenizer, own = model.tokenizer, model.run.data.tokenizer if model.run is not None else None
    if own is not None and not own.path and own.kind is not TokenizerKind.SENTENCEPIECE:
        return own
    if isinstance(tokenizer, ByteTokenizer):
        return TokenizerSpec()
    beside = as_path(path) if kind(path, follow=True) is Kind.FOLDER else as_path(path).parent
    folder = beside if model.run is None else as_path(model.run.data.directory)
    pieces = isinstance(tokenizer, SentencePieceTokenizer)
    file = TOKENIZER_FILE if pieces else TOKENIZER_JSON_FILE
    of_file = TokenizerKind.SENTENCEPIECE_FILE if pieces else TokenizerKind.TOKENIZER_JSON
    return TokenizerSpec(of_file, model.spec.vocab_size, str(folder / file))


def data_spec(model: Model, path: str, pairs: str, out: str, settings: Settings) -> DataSpec:
    """The pairs as data of a run of this model; they are prepared in `out`."""
    return DataSpec(
        corpus=CorpusSpec(CorpusSource.PAIRS, pairs),
        tokenizer=tokenizer_spec(model, path),
        seq_len=settings.seq_len or model.seq_len,
        validation_fraction=settings.validation_fraction,
        directory=str(as_path(out) / DATA_FOLDER),
        score_prompt=settings.score_prompt,
        eos_to_end=settings.eos_to_end,
    )


def fine_tuning(model: Model, path: str, corpus: Corpus, settings: Settings) -> RunSpec:
    """The run that fine-tunes a model.

    Args:
        model: the model at `path`.
        path: what the run begins with.
        corpus: the prepared pairs.
        settings: how it is trained.

    Raises:
        ValueError: a setting is out of range, or the family does not have it; or too few pairs fit into a row.
    """
    pairs, held, unit = len(corpus.train_pairs), len(corpus.validation_pairs), 2 * settings.devices
    batch = max(unit, min(settings.batch, pairs) // unit * unit)
    steps = math.ceil(settings.epochs * pairs / batch)
    bound = f"at least 2 for each device: {unit}; give more pairs, or a larger --validation-fraction"
    require(held >= unit, "validation pairs that fit into a row", held, bound)
    rows = _evaluation_batch(held, unit)
    data = dataclasses.replace(corpus.data, data_hash=corpus.manifest.data_hash)
    objective = dataclasses.replace(evaluated_loss(model.family), drop_prompt=settings.drop_prompt)
    return with_fingerprint(
        RunSpec(
            model=model.spec,
            objective=objective,
            data=data,
            optim=OptimSpec(lr_peak=settings.lr, global_batch=batch),
            schedule=ScheduleSpec(steps=steps, warmup_steps=min(MOST_WARMUP, max(1, steps // 10))),
            evaluation=EvaluationSpec(eval_tokens=held // rows * rows * data.seq_len, batch=rows),
            hardware=HardwareSpec(mesh_data=settings.devices, log_every=max(1, steps // 100)),
            seed=settings.seed,
            start=StartSpec(path),
        )
    )


def _evaluation_batch(held: int, unit: int) -> int:
    """The pairs of a batch of the final evaluation: the multiple of `unit` that leaves the fewest pairs unread.

    The largest of several such multiples is taken.

    Args:
        held: validation pairs, at least `unit`.
        unit: pairs that a batch is a multiple of.
    """
    sizes = range(unit, max(unit, min(MOST_EVALUATION_BATCH, held)) + 1, unit)
    return min(sizes, key=lambda size: (held % size, -size))


def changed(run: RunSpec, changes: Sequence[str]) -> RunSpec:
    """The run with `section.key=value` changes.

    Raises:
        ValueError: a key is unknown, or a value is not one that it may have.
    """
    return to_spec(RunSpec, override(config_of(run), changes))


def add_to_plan(out: str | os.PathLike[str], run: RunSpec) -> None:
    """Adds the run to the plan in a folder, unless it is there.

    Raises:
        ValueError: a line of the plan is damaged.
        OSError: no space or no access.
    """
    path = as_path(out) / PLAN_FILE
    lines = plan_lines(path)
    if run.run_id not in {line.run().run_id for line in lines}:
        write_atomic(path, "".join(f"{text}\n" for text in (*(line.text for line in lines), to_json(run))))


def _parser() -> argparse.ArgumentParser:
    parser, usual = new_parser("mdm_jax.tasks.sft", __doc__), Settings()
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run's folder, a safetensors file or a Hugging Face folder")
    add(
        "--pairs", required=True, metavar="FILE", help="JSONL with prompt and response; also a folder or a glob of such"
    )
    add("--format", choices=list(PairFormat), default=PairFormat.PLAIN, help="of the pairs (%(default)s)")
    add("--out", required=True, metavar="DIR", help="folder for the data, the plan and the run")
    add("--epochs", type=float, default=usual.epochs, help=f"passes over the training pairs ({usual.epochs:g})")
    add("--lr", type=float, default=usual.lr, help=f"peak of the learning rate ({usual.lr:g})")
    add("--batch", type=int, default=usual.batch, help=f"pairs a step ({usual.batch}, or all if there are fewer)")
    add("--seq-len", type=int, default=0, metavar="L", help="tokens of a row (the model's); longer pairs are left out")
    add("--seed", type=int, default=0, help="of the order of the pairs and of the masks (0)")
    fraction = usual.validation_fraction
    add(
        "--validation-fraction",
        type=float,
        default=fraction,
        help=f"share of the prompts kept for tests ({fraction:g})",
    )
    add("--drop-prompt", type=float, default=0.0, metavar="P", help="share of pairs whose prompt is MASK (MDM; 0)")
    add("--score-prompt", action="store_true", help="mask and score the prompt like the response, as in pre-training")
    add("--eos-to-end", action="store_true", help="fill rows with EOS and score them, so that an MDM learns the length")
    add("--devices", type=int, metavar="N", help="devices that share the pairs of a batch (all of this machine)")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any setting: hardware.microbatches=4",
    )
    add("--skip-bad", action="store_true", help="skip bad lines of the pairs, and print each")
    add("--plan-only", action="store_true", help="prepare and plan, and do not train")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: that of the run (see `mdm_jax.main`), or 1 after one line that says what is wrong."""
    flags = _parser().parse_args(arguments)
    return exit_code(lambda: _fine_tune(flags))


def _fine_tune(flags: argparse.Namespace) -> int:
    flags.devices = jax.device_count() if flags.devices is None else flags.devices
    settings = Settings(**{f.name: getattr(flags, f.name) for f in dataclasses.fields(Settings)})
    run = _planned(flags, settings)
    home = as_path(flags.out) / RUNS_FOLDER / run.run_id
    command = ["--plan", flags.out, "--run-id", run.run_id]
    if flags.plan_only:
        print(f"next: python -m mdm_jax.main {shlex.join(command)} (with --distributed on every host of several)")
        return DONE
    code = one_run.main(command)
    if code == DONE:
        print(f"the model: {home}\nnext: python -m mdm_jax.sample {shlex.quote(str(home))} --prompt ...")
    return code


def _planned(flags: argparse.Namespace, settings: Settings) -> RunSpec:
    """The run, after its data is prepared and it is in the plan. The model's weights are free again."""
    model = load(flags.model)
    data = data_spec(model, flags.model, _jsonl(flags), flags.out, settings)
    prepare(data, skip_bad=flags.skip_bad, report=lambda progress: _show_skipped(progress.skipped))
    corpus = open_corpus(data)
    run = changed(fine_tuning(model, flags.model, corpus, settings), flags.set)
    add_to_plan(flags.out, run)
    rows = corpus.train_pairs
    longest = int((rows.prompt_P + rows.response_P).max())
    print(f"{len(rows)} training and {len(corpus.validation_pairs)} validation pairs, of at most {longest} tokens")
    if longest <= run.data.seq_len // 2:
        print(f"rows have {run.data.seq_len} tokens: --seq-len {longest} would take less time")
    print(f"{run.run_id}: {run.schedule.steps} steps of {run.optim.global_batch} pairs")
    return run


def _jsonl(flags: argparse.Namespace) -> str:
    """The path of the pairs as JSONL with prompt and response. Pairs of another format are written into the folder."""
    if flags.format == PairFormat.PLAIN:
        return flags.pairs
    skip = (lambda bad: _show_skipped([str(bad)])) if flags.skip_bad else None
    path = as_path(flags.out) / PAIRS_FILE
    text = "".join(pair.line for pair in read_pairs(flags.pairs, Reading(PairFormat(flags.format)), skip))
    if not (is_file(path) and path.read_text() == text):  # the prepared data knows the file by its time
        write_atomic(path, text)
    return str(path)


def _show_skipped(messages: Sequence[str]) -> None:
    for message in messages:
        print(f"skipped: {message}")


if __name__ == "__main__":
    raise SystemExit(main())
