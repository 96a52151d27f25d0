"""Classifier-free guidance on pairs: right answers of MDMs at several scales, with errors.

    python -m mdm_jax.tasks.guidance runs/guidance --pairs test.jsonl --scales=-0.5,0,0.5,1,2,4
    python -m mdm_jax.tasks.guidance model.safetensors --pairs test.jsonl --temperatures 1,0 --out tables/guidance

MODEL is a run's folder, a sweep's folder with all its runs, a safetensors file with its tokenizer beside it, or a
Hugging Face folder. FILE has pairs that the models were not trained on, one JSON object with `prompt` and `response` a
line. Guidance of scale w replaces the logits by u + (w + 1) (c - u), where u reads MASK in place of the prompt.

An answer is right if it equals the response, and its nearness to the response is chrF. With `--check dates` the pairs
are those of `python -m mdm_jax.tasks.guidance.dates`, and every date that fits the request is right. The nearness is
then the share of characters that agree with the nearest right date.

Runs that differ only in the seed are averaged. The table has the mean of each training at each scale, and its gain over
w = 0 on the same pairs, with the standard error over seeds (over pairs, for a single run); and the share of answers
with a foreign character, which no response in FILE has: too large a scale draws such tokens. `--out FOLDER` writes
`guidance.csv` (this table, with both errors), `runs.csv` (a line for each run) and `guidance.svg`.

A model whose training rows were filled with EOS ends its answer itself. Any other model gets the length of the right
answer, because its training rows ended there.
"""

import argparse
import sys
from collections.abc import Sequence

from mdm_jax.command import DONE, exit_code, new_parser, numbers, say
from mdm_jax.files.storage import as_path, check_writable, write_atomic
from mdm_jax.sample.names import Sampler
from mdm_jax.spec.validation import require
from mdm_jax.tasks.guidance.choices import SAMPLER, Check
from mdm_jax.tasks.model_paths import model_paths
from mdm_jax.tasks.pairs.formats import read_pairs

SCALES = (-0.5, 0.0, 0.5, 1.0, 2.0, 4.0)
TABLE, RUNS, FIGURE = "guidance.csv", "runs.csv", "guidance.svg"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.guidance", __doc__)
    add = flags.add_argument
    add("models", nargs="+", metavar="MODEL", help="runs, sweeps, or files or folders of weights")
    add("--pairs", required=True, metavar="FILE", help="JSONL file of pairs; .gz and .zst are decompressed")
    every = ",".join(f"{scale:g}" for scale in SCALES)
    add("--scales", type=numbers, default=SCALES, metavar="W,W", help=f"w, with 0 among them (--scales={every})")
    add("--temperatures", type=numbers, default=(1.0, 0.0), metavar="T,T", help="0 takes the likeliest token (1,0)")
    add("--sampler", default=SAMPLER, metavar="NAME", help=f"one of {', '.join(Sampler)} (%(default)s)")
    add("--steps", type=int, metavar="N", help="most steps of an answer (default: one a token)")
    add("--check", choices=list(Check), default=Check.RESPONSE, help="which answers are right (%(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N pairs")
    add("--seed", type=int, default=0, help="seed of the first answer (%(default)s)")
    add("--out", metavar="FOLDER", help="folder for the tables and the figure")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        from analysis.figures.style import rendered  # matplotlib, and below jax: --help need not wait for them
        from mdm_jax.tasks.guidance.figure import draw
        from mdm_jax.tasks.guidance.measure import How, Measured, measure
        from mdm_jax.tasks.guidance.table import lines, runs_csv, shown, to_csv
        from mdm_jax.trained.load import load

        how = How(flags.temperatures, flags.scales, flags.sampler, flags.steps, flags.seed, Check(flags.check))
        require(flags.limit is None or flags.limit >= 1, "--limit", flags.limit, "1 or more")
        if flags.out:
            check_writable(as_path(flags.out) / TABLE)
        pairs = list(read_pairs(flags.pairs))[: flags.limit]
        if not pairs:
            raise ValueError(f"{flags.pairs}: no pairs")
        found = list[Measured]()
        paths = model_paths(flags.models)
        for n, path in enumerate(paths):
            say(f"{n + 1} of {len(paths)}: {path}", DONE)
            found += measure(load(path), path, pairs, how)
        table = lines(found)
        if flags.out:
            write_atomic(as_path(flags.out) / RUNS, runs_csv(found))
            write_atomic(as_path(flags.out) / FIGURE, rendered(draw(table))["svg"])
            write_atomic(as_path(flags.out) / TABLE, to_csv(table))
        print("\n".join(shown(table)))
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
