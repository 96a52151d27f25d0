"""Perplexity and bits per byte of texts under trained models, zero-shot: no model is trained on them.

    python -m mdm_jax.evaluate.perplexity MODEL [MODEL ...] --corpus NAME=PATH [NAME=PATH ...]

MODEL is a run's folder, a safetensors file with its tokenizer beside it, or a Hugging Face folder. PATH is a file, a
folder or a glob of text, JSONL or Parquet. Each model reads each corpus. The table has nats per token, perplexity and
bits per byte with their errors, and the difference to the first model in bits per byte. Only bits per byte compare
across tokenizers.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.evaluate.draws import DRAWS, check_draws
from mdm_jax.files.storage import check_writable, write_atomic
from mdm_jax.spec import Family, Likelihood
from mdm_jax.spec.validation import require

if TYPE_CHECKING:  # jax and rich would make --help and the first error wait for seconds
    import numpy as np
    from jaxtyping import Int64

    from mdm_jax.evaluate.perplexity.corpus import EvalCorpus
    from mdm_jax.evaluate.perplexity.table import Score, TableRow
    from mdm_jax.trained.model import Model

METHODS = (Likelihood.NELBO, Likelihood.LEFT_TO_RIGHT, Likelihood.CONFIDENCE)
Watch = Callable[[str], contextlib.AbstractContextManager[Callable[[float], None]]]
"""Shows one model on one corpus, which the text names, while it is scored; gets the share of the work that is done."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.evaluate.perplexity", __doc__)
    add = flags.add_argument
    add(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a run's folder or a file or folder of weights; the first is the reference",
    )
    add("--corpus", nargs="+", action="extend", required=True, metavar="NAME=PATH", help="a name and the texts")
    add("--text-field", default="text", help="field of JSONL and Parquet records (%(default)s)")
    add("--draws", type=int, default=DRAWS, help="Monte Carlo draws of an MDM's NELBO (%(default)s)")
    add(
        "--max-tokens",
        type=int,
        default=0,
        metavar="N",
        help="read the first documents, at most N tokens a model",
    )
    names = [method.value for method in METHODS]
    add("--likelihood", choices=names, default=names[0], help="likelihood of an MDM; an ARM has only one (%(default)s)")
    add("--out", metavar="CSV", help="also write the table to this file, after each finished row")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 after one line that says what is wrong, or 130 after Ctrl-C."""
    flags = parser().parse_args(argv)
    return exit_code(lambda: _measure(flags))


def _measure(flags: argparse.Namespace) -> int:
    check_draws("--draws", flags.draws)
    require(flags.max_tokens >= 0, "--max-tokens", flags.max_tokens, "0 (everything) or a number of tokens")

    from mdm_jax.evaluate.perplexity.corpus import parse_corpus, read_corpus
    from mdm_jax.evaluate.perplexity.table import as_csv, as_text
    from mdm_jax.trained.load import load

    named = [parse_corpus(text) for text in flags.corpus]
    names = [name for name, _ in named]
    require(len(set(names)) == len(names), "--corpus", ", ".join(names), "a different name for each corpus")
    if flags.out:
        check_writable(flags.out)
    models = {path: load(path) for path in dict.fromkeys(flags.models)}
    tokenizers = [model.tokenizer for model in models.values()]
    corpora = [read_corpus(*pair, flags.text_field, tokenizers, flags.max_tokens) for pair in named]
    rows: list[TableRow] = []
    try:
        with _shown(len(models) * len(corpora)) as watch:
            for row in _rows(models, corpora, Likelihood(flags.likelihood), flags.draws, watch):
                rows.append(row)
                if flags.out:
                    write_atomic(flags.out, as_csv(rows))
    except KeyboardInterrupt:
        held = f": {flags.out} has the {len(rows)} finished rows" if flags.out and rows else ""
        raise KeyboardInterrupt(f"interrupted{held}") from None
    print(as_text(rows))
    return DONE


def _rows(
    models: "dict[str, Model]", corpora: "Sequence[EvalCorpus]", method: Likelihood, draws: int, watch: Watch
) -> "Iterator[TableRow]":
    from mdm_jax.evaluate.perplexity.blocks import block_ends
    from mdm_jax.evaluate.perplexity.table import TableRow, kind_of, measures

    labels = _labels(list(models))
    for corpus in corpora:
        ends_G, first = block_ends(corpus.bytes_D, _longest_row_bytes(models.values(), corpus)), None
        for path, model in models.items():
            with watch(title := f"{labels[path]} on {corpus.name}") as progress:
                try:
                    score = _score(model, corpus, ends_G, method, draws, progress)
                except ValueError as error:
                    raise ValueError(f"{title}: {error}") from None
            first = first or score
            yield TableRow(
                model=labels[path],
                corpus=corpus.name,
                family=model.family.value,
                kind=kind_of(model.family, method),
                seq_len=model.seq_len,
                tokenizer_hash=model.tokenizer.hash,
                documents=len(corpus.bytes_D),
                blocks=len(ends_G),
                tokens=int(score.tokens_G.sum()),
                bytes=int(score.bytes_G.sum()),
                **measures(score, first),
            )


def _score(
    model: "Model",
    corpus: "EvalCorpus",
    ends_G: "Int64[np.ndarray, 'G']",
    method: Likelihood,
    draws: int,
    progress: Callable[[float], None],
) -> "Score":
    from mdm_jax.evaluate.perplexity.blocks import nats_of_blocks, sums_of_blocks
    from mdm_jax.evaluate.perplexity.table import Score

    encoded = corpus.encoded[model.tokenizer.hash]
    own = Likelihood.NELBO if model.family is Family.ARM else method
    nats = model.row_nats(encoded.ids, own, draws, progress)
    tokens_G = sums_of_blocks(encoded.tokens_D, ends_G)
    return Score(nats_of_blocks(nats, encoded.tokens_D, ends_G), tokens_G, sums_of_blocks(corpus.bytes_D, ends_G))


def _longest_row_bytes(models: "Iterable[Model]", corpus: "EvalCorpus") -> float:
    """The mean bytes of a row of the model with the longest rows."""
    held = int(corpus.bytes_D.sum())
    return max(model.seq_len * held / len(corpus.encoded[model.tokenizer.hash].ids) for model in models)


def _labels(paths: list[str]) -> dict[str, str]:
    """A short name of each model: the last part of its path, or the whole path if two are equal."""
    names = [PurePath(path).name or path for path in paths]
    return {path: name if names.count(name) == 1 else path for path, name in zip(paths, names, strict=True)}


@contextlib.contextmanager
def _shown(total: int) -> Iterator[Watch]:
    """Shows a bar for each model and corpus on a terminal; elsewhere a line when it is finished, on standard error."""
    import rich.console
    import rich.markup
    import rich.progress

    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not console.is_terminal) as bars:
        number = 0

        @contextlib.contextmanager
        def watch(title: str) -> Iterator[Callable[[float], None]]:
            nonlocal number
            number, begun = number + 1, time.monotonic()
            task = bars.add_task(rich.markup.escape(title), total=1.0)
            yield lambda share: bars.update(task, completed=share)
            if not console.is_terminal:
                print(f"{number}/{total} {title}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

        yield watch


if __name__ == "__main__":
    sys.exit(main())
