"""Quality of generated texts against their cost: each model with each sampler and number of steps, and real text.

    python -m mdm_jax.sample.report MODEL [MODEL ...] --reference REF --out DIR
    python -m mdm_jax.sample.report MODEL --samplers confidence threshold:bound=0.8 --steps 8 32 --texts FILE --out DIR

MODEL and REF are a run's folder, a safetensors file with its tokenizer beside it, or a Hugging Face folder. The table
has the perplexity of the texts under REF, and always beside it the entropy of the texts, because texts that repeat
themselves have a low perplexity too. It also has distinct-n, repetition, self-BLEU, each with its standard error over
texts, forward passes and seconds. Real text comes from --texts, or from the validation text of the first model's run.

DIR gets table.csv, equal_quality.csv, quality.svg, and the texts and their nats as JSONL. A finished setting is kept:
after an interruption the same command goes on. Without --reference the texts are written too: score them with any
program, and give its JSONL (id, nats, tokens) by --nats.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import jax
import numpy as np

from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.data.corpus import open_corpus
from mdm_jax.data.manifest import MANIFEST_FILE
from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.evaluate.draws import DRAWS, check_draws
from mdm_jax.evaluate.likelihood.encoding import encode_text
from mdm_jax.evaluate.perplexity.corpus import read_corpus
from mdm_jax.files.storage import Path, as_path, check_writable, is_file, write_atomic
from mdm_jax.sample.report import summary
from mdm_jax.sample.report.nats import Nats, nats_for, read_nats, scored, write_nats
from mdm_jax.sample.report.prompts import Job, Prompts, read_prompts, real_texts, spread_rows
from mdm_jax.sample.report.settings import ALL, STEPS, Setting, arm_settings, mdm_settings
from mdm_jax.sample.report.summary import Result
from mdm_jax.sample.report.table import as_csv, as_text, row_of
from mdm_jax.sample.report.texts import REAL, Text, key_of, read_texts, write_texts
from mdm_jax.sample.report.writing import setting_key, write_setting
from mdm_jax.spec import Family
from mdm_jax.spec.validation import require
from mdm_jax.trained.load import load
from mdm_jax.trained.model import Model

COMMON = ("temperature", "top_k", "top_p", "block", "guidance")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.sample.report", __doc__)
    add = flags.add_argument
    add("models", nargs="+", metavar="MODEL", help="a run's folder, or a file or folder of weights")
    add("--reference", metavar="REF", help="the model that scores the texts")
    add("--nats", metavar="FILE", help="JSONL with nats of the texts, made by another program, in place of --reference")
    text = f"samplers of the MDMs: NAME, or NAME:KEY=VALUE,... as in threshold:bound=0.8 (default: {ALL})"
    add("--samplers", nargs="+", default=[ALL], metavar="NAME", help=text)
    text = f"steps of a text (default: those of {', '.join(map(str, STEPS))} that are not above the tokens)"
    add("--steps", nargs="+", type=int, metavar="N", help=text)
    add("--n", type=int, default=64, help="texts of each setting (%(default)s)")
    add("--batch", type=int, default=16, help="texts that are generated together, and timed (%(default)s)")
    add("--tokens", type=int, metavar="N", help="most new tokens of a text (default: the rest of the shortest row)")
    what = flags.add_mutually_exclusive_group()
    what.add_argument("--prompts", metavar="FILE", help="texts to continue: a line of text each, or JSONL with prompt")
    text = "continue the first N tokens of real texts (default: 0, texts without a prompt)"
    what.add_argument("--prompt-tokens", type=int, default=0, metavar="N", help=text)
    add("--texts", metavar="FILE", help="real text: a file, folder or glob of text, JSONL or Parquet")
    add("--text-field", default="text", help="field of JSONL and Parquet records (%(default)s)")
    add("--seed", type=int, default=0, help="seed of each setting's first text (%(default)s)")
    add("--draws", type=int, default=DRAWS, help="Monte Carlo draws for each text of an MDM as reference (%(default)s)")
    add("--temperature", type=float, metavar="T", help="of all models; 0 takes the likeliest token (default: 1)")
    add("--top-k", type=int, metavar="K", help="only the K likeliest tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="only the likeliest tokens of this probability together (default: 1)")
    add("--block", type=int, metavar="N", help="MDMs fill blocks of N tokens from left to right (default: the row)")
    add("--guidance", type=float, metavar="W", help="unsupervised guidance of the MDMs (default: 0)")
    add("--out", required=True, metavar="DIR", help="folder of the results")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 after one line that says what is wrong, or 130 after Ctrl-C."""
    flags = parser().parse_args(argv)
    return exit_code(lambda: _report(flags))


@dataclass(frozen=True)
class Report:
    """A report while it is made: what was asked for, the finished settings, and the programs that ran before."""

    flags: argparse.Namespace
    models: dict[str, Model]
    reference: Model | None
    given: dict[str, Nats] | None
    job: Job
    settings: list[Setting]
    results: list[Result]
    compiled: set[Any]

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return as_path(self.flags.out)

    def write(self) -> None:
        """Writes and scores what is not in the folder yet, setting by setting.

        Raises:
            ValueError: a model or a file cannot be used; the message names it.
            KeyboardInterrupt: after Ctrl-C; the message says what is kept.
        """
        total = len(self.settings) + bool(self.job.real)
        try:
            if self.job.real:
                file = self.folder / "texts" / f"real-{key_of({'texts': [text.ids for text in self.job.real]})}.jsonl"
                write_texts(file, self.job.real)
                self._add(None, self.job.real, file)
                self._say(total, REAL, time.monotonic())
            for setting in self.settings:
                begun = time.monotonic()
                self._add(setting, *self._texts(setting))
                self._say(total, setting.name, begun)
        except KeyboardInterrupt:
            held = f"{self.folder} has {len(self.results)} of {total} settings, and the same command goes on"
            raise KeyboardInterrupt(f"interrupted: {held}") from None

    def _say(self, total: int, name: str, begun: float) -> None:
        print(f"{len(self.results)}/{total} {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    def _texts(self, setting: Setting) -> tuple[list[Text], Path]:
        """The texts of a setting, from its file if they were written before."""
        model, device = self.models[setting.model], jax.devices()[0].device_kind
        key = setting_key(setting, self.job, model.fingerprint, device)
        file = self.folder / "texts" / f"{setting.name}-{key}.jsonl"
        texts = read_texts(file, self.job.texts)
        if texts is None:
            same = model.tokenizer.hash == self.job.tokenizer.hash
            texts = list(write_setting(setting, self.job, model.generate, same, self.compiled))
            write_texts(file, texts)
        return texts, file

    def _add(self, setting: Setting | None, texts: Sequence[Text], file: Path) -> None:
        nats = self._nats(texts, file)
        row = row_of(texts, setting.family.value if setting else "", nats)
        self.results.append(Result(setting, texts, nats, row))
        write_atomic(self.folder / "table.csv", as_csv([one.row for one in self.results]))

    def _nats(self, texts: Sequence[Text], file: Path) -> list[Nats] | None:
        """The nats under the reference, from the file beside the texts if they were scored before."""
        if self.given is not None:
            return nats_for(texts, self.given, self.flags.nats)
        model = self.reference
        if model is None:
            return None
        chances = {"draws": self.flags.draws} if model.family is Family.MDM else {}
        targets = [[text.prompt_ids, text.ids, text.ended] for text in texts]
        key = key_of({"model": model.fingerprint, **chances, "texts": targets})
        kept = file.parent / f"{file.name.removesuffix('.jsonl')}.nats-{key}.jsonl"
        if is_file(kept):
            return nats_for(texts, read_nats(kept), str(kept))

        def score(pairs: list[tuple[list[int], list[int]]]) -> list[float]:
            return [-one.loglikelihood for one in model.loglikelihood(pairs, **chances)]

        found = scored(texts, model.seq_len, self.job.tokenizer.eos_id, score)
        write_nats(kept, texts, found)
        return found


def _report(flags: argparse.Namespace) -> int:
    _check(flags)
    models = _labelled({path: load(path) for path in dict.fromkeys(flags.models)})
    reference = load(flags.reference) if flags.reference else None
    given = read_nats(as_path(flags.nats)) if flags.nats else None
    job = _job(flags, models, reference)
    report = Report(flags, models, reference, given, job, _settings(flags, models, job.tokens), [], set())
    check_writable(report.folder / "table.csv")
    report.write()
    _finish(report)
    return DONE


def _check(flags: argparse.Namespace) -> None:
    check_draws("--draws", flags.draws)
    require(flags.n >= 2, "--n", flags.n, "2 texts or more")
    require(flags.batch >= 1 and flags.n % flags.batch == 0, "--batch", flags.batch, f"a divisor of --n {flags.n}")
    require(flags.prompt_tokens >= 0, "--prompt-tokens", flags.prompt_tokens, "0 or more")
    require(flags.tokens is None or flags.tokens >= 1, "--tokens", flags.tokens, "1 or more")
    require(not (flags.nats and flags.reference), "--nats", flags.nats, "absent with --reference")


def _labelled(models: dict[str, Model]) -> dict[str, Model]:
    """The models by a short name: the last part of the path without its ending, or the path if two are equal."""
    names = [PurePath(path).name.removesuffix(".safetensors") or path for path in models]
    each = zip(models.items(), names, strict=True)
    return {name if names.count(name) == 1 else path: model for (path, model), name in each}


def _settings(flags: argparse.Namespace, models: dict[str, Model], tokens: int) -> list[Setting]:
    common = {name: getattr(flags, name) for name in COMMON if getattr(flags, name) is not None}
    found = list[Setting]()
    for label, model in models.items():
        if model.family is Family.ARM:
            found += arm_settings(label, common)
        else:
            found += mdm_settings(label, flags.samplers, flags.steps, common, tokens)
    return found


def _job(flags: argparse.Namespace, models: dict[str, Model], reference: Model | None) -> Job:
    first = next(iter(models.values()))
    tokenizer = (reference or first).tokenizer
    shortest = min(model.seq_len for model in models.values())
    prompts: Prompts = ()
    if flags.prompts:
        prompts = read_prompts(flags.prompts, functools.partial(encode_text, tokenizer))
    longest = max(map(len, prompts), default=flags.prompt_tokens)
    bound = f"at most {shortest - 1}: the shortest row of the models has {shortest}"
    require(longest < shortest, "tokens of the longest prompt", longest, bound)
    tokens = flags.tokens or shortest - longest
    bound = f"at most {shortest - longest}: a row has {shortest} tokens, of which a prompt takes {longest}"
    require(tokens <= shortest - longest, "--tokens", tokens, bound)
    ids = _real_ids(flags, first, tokenizer)
    require(ids is not None or not flags.prompt_tokens, "--prompt-tokens", flags.prompt_tokens, "given with --texts")
    real: tuple[Text, ...] = ()
    if ids is not None:
        rows_SL = spread_rows(ids, flags.prompt_tokens + tokens, flags.n)
        real = tuple(real_texts(rows_SL, flags.prompt_tokens, tokenizer))
    if not flags.prompts:
        prompts = tuple(text.prompt_ids for text in real) if flags.prompt_tokens else ((),) * flags.n
    return Job(tokenizer, prompts, tokens, real, flags.n, flags.batch, flags.seed)


def _real_ids(flags: argparse.Namespace, model: Model, tokenizer: Tokenizer) -> np.ndarray | None:
    """Tokens of --texts, or of the validation text of the model's run; None if there is neither."""
    if flags.texts:
        return read_corpus("--texts", flags.texts, flags.text_field, [tokenizer], 0).encoded[tokenizer.hash].ids
    prepared = model.run is not None and is_file(as_path(model.run.data.directory) / MANIFEST_FILE)
    if model.run is None or not prepared or tokenizer.hash != model.tokenizer.hash:
        return None
    return open_corpus(model.run.data).evaluation_rows(model.run.evaluation.eval_tokens).reshape(-1)


def _finish(report: Report) -> None:
    """Writes the figure and the meetings of samplers with ARMs, and prints all of it."""
    from analysis.figures.generation import plot_quality
    from analysis.figures.style import rendered

    rows, found, folder = [one.row for one in report.results], summary.equal_quality(report.results), report.folder
    write_atomic(folder / "equal_quality.csv", summary.as_csv(found))
    write_atomic(folder / "quality.svg", rendered(plot_quality([dataclasses.asdict(row) for row in rows]))["svg"])
    notes = [*summary.notes(report.results), *_notes(report)]
    print("\n\n".join(filter(None, [as_text(rows), summary.as_text(found), "\n".join(notes)])))
    print(f"{folder}: table.csv, equal_quality.csv, quality.svg, texts/")


def _notes(report: Report) -> list[str]:
    """What a reader must know about the models."""
    found, reference = [], report.reference
    if reference is not None:
        if reference.family is Family.MDM:
            found.append("The reference is an MDM: the perplexity is an upper bound (NELBO).")
        own = [label for label, model in report.models.items() if model.fingerprint == reference.fingerprint]
        found += [f"{label} is its own reference, so its perplexity reads low." for label in own]
    if any(model.tokenizer.hash != report.job.tokenizer.hash for model in report.models.values()):
        whose = "reference" if reference is not None else "first model"
        found.append(f"The tokenizers differ: perplexity, entropies and distinct-n are for tokens of the {whose}.")
    return found


if __name__ == "__main__":
    sys.exit(main())
