"""The accuracy of models on word problems in GSM8K's format, with a 95% interval.

    python -m mdm_jax.tasks.gsm8k MODEL test.jsonl
    python -m mdm_jax.tasks.gsm8k MDM ARM test.jsonl --two-stage --tokens 192 --out answers.jsonl

MODEL is a run's folder, a safetensors file with its tokenizer beside it, or a Hugging Face folder, of either family,
fine-tuned by `python -m mdm_jax.tasks.sft --format gsm8k` (one stage) or `gsm8k_two_stage`. An MDM that is to end an
answer by itself is fine-tuned with `--eos-to-end`. It has seen whole rows only, so its answers get the rest of the row.

A record of FILE has `question` and `answer`, and the answer ends in `#### ` and the number. In one stage the model
writes a solution, whose number after `####` counts. In two stages it writes a rationale, and then the number. An answer
without a number is wrong, and so is a problem that is too long for a row. The interval is Wilson's for a binomial; its
unit is the problem. Several models answer the same problems: their differences from the first model are printed with a
standard error over the problems.

The defaults of an MDM are SMDM's: the sampler `confidence`, guidance .1 and temperature .1. An ARM has temperature .1.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mdm_jax.command import DONE, aligned, exit_code, new_parser, one_line
from mdm_jax.files.storage import check_writable, write_atomic
from mdm_jax.sample.names import Sampler
from mdm_jax.spec import Family
from mdm_jax.spec.validation import require
from mdm_jax.tasks.pairs.gsm8k import Problem, problem_of
from mdm_jax.tasks.pairs.records import BadRecord, convert_records

if TYPE_CHECKING:  # jax and scipy would make --help and the first error wait for seconds
    from mdm_jax.tasks.gsm8k.answers import Answer, Settings
    from mdm_jax.trained.model import Model

GUIDANCE, TEMPERATURE, NUMBER_TOKENS = 0.1, 0.1, 16


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.gsm8k", __doc__)
    add = flags.add_argument
    add("models", nargs="+", metavar="MODEL", help="runs' folders, or files or folders of weights")
    add("file", metavar="FILE", help="JSONL file of problems, or a JSON array; .gz and .zst are decompressed")
    add("--two-stage", action="store_true", help="write the rationale first, and then the number")
    add("--tokens", type=int, metavar="N", help="most tokens of a solution or a rationale (default: half of a row)")
    number = f"most tokens of the number in two stages (default: {NUMBER_TOKENS})"
    add("--number-tokens", type=int, metavar="N", help=number)
    add("--steps", type=int, metavar="N", help="steps of an MDM's text (default: one a token)")
    add("--sampler", metavar="NAME", help=f"one of {', '.join(Sampler)} (default of an MDM: confidence)")
    add("--block", type=int, metavar="N", help="fill blocks of N tokens from left to right (MDM)")
    add("--guidance", type=float, metavar="W", help=f"unsupervised guidance of an MDM ({GUIDANCE})")
    add("--temperature", type=float, default=TEMPERATURE, metavar="T", help="0 takes the likeliest token (%(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N problems")
    add("--seed", type=int, default=0, help="seed of the first problem (%(default)s)")
    add("--out", metavar="FILE", help="JSONL file of all answers")
    add("--skip-bad", action="store_true", help="leave out records that are no problem")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        if flags.out:
            check_writable(flags.out)
        problems = read_problems(flags.file, flags.limit, flags.skip_bad)

        from mdm_jax.tasks.gsm8k.answers import answers
        from mdm_jax.trained.load import load

        found: list[tuple[str, Model, list[Answer]]] = []
        for path in flags.models:
            model = load(path)
            found.append((path, model, answers(model, problems, settings_for(model, flags))))
        if flags.out:
            write_atomic(flags.out, "".join(_line(path, answer) for path, _, each in found for answer in each))
        print("\n".join(report(found)))
        return DONE

    return exit_code(work)


def read_problems(path: str, limit: int | None = None, skip_bad: bool = False) -> list[Problem]:
    """The problems of a file; those that are left out are printed on standard error.

    Raises:
        BadRecord: a record (named) is no problem, and bad ones are not skipped.
        ValueError: the file is absent or corrupt, or has no problem, or `limit` is below 1.
    """
    require(limit is None or limit >= 1, "--limit", limit, "1 or more")

    def skip(bad: BadRecord) -> None:
        print(f"skipped: {one_line(bad)}", file=sys.stderr)

    found = list(itertools.islice(convert_records(path, problem_of, skip if skip_bad else None), limit))
    if not found:
        raise ValueError(f"{path}: no problems")
    return found


def settings_for(model: "Model", flags: argparse.Namespace) -> "Settings":
    """The settings that the flags choose for a model, with the defaults of its family.

    Raises:
        ValueError: a flag is out of range, or the family does not have it.
    """
    from mdm_jax.tasks.gsm8k.answers import Settings

    mdm = model.family is Family.MDM
    options: dict[str, Any] = {"temperature": flags.temperature}
    options |= {name: getattr(flags, name) for name in ("steps", "block") if getattr(flags, name) is not None}
    options["sampler"] = flags.sampler or ("confidence" if mdm else "")
    options["guidance"] = flags.guidance if flags.guidance is not None else GUIDANCE * mdm
    model.sampling_options(**options)
    filled = mdm and model.run is not None and model.run.data.eos_to_end
    usual = (None, None) if filled else (max(1, model.seq_len // 2), NUMBER_TOKENS)
    given = (flags.tokens, flags.number_tokens)
    tokens, number_tokens = (own if own is not None else most for own, most in zip(given, usual, strict=True))
    return Settings(flags.two_stage, tokens, number_tokens, options, flags.seed)


def report(found: "Sequence[tuple[str, Model, Sequence[Answer]]]") -> list[str]:
    """The lines of the table."""
    from mdm_jax.tasks.gsm8k.answers import accuracy, difference

    rows = [["model", "family", "problems", "right", "accuracy", "95% interval", "no number", "too long"]]
    if len(found) > 1:
        rows[0].append("less the first")
    for path, model, each in found:
        one = accuracy(each)
        counts = (one.without_number, one.too_long)
        cells = [f"{one.problems}", f"{one.right}", f"{one.share:.4f}", f"{one.low:.4f} to {one.high:.4f}"]
        rows.append([path, model.family.value, *cells, *map(str, counts)])
        if len(found) > 1:
            less, error = difference(each, found[0][2])
            rows[-1].append("" if each is found[0][2] else f"{less:+.4f} ± {error:.4f}")
    return aligned(rows, ["model", "family"])


def _line(path: str, answer: "Answer") -> str:
    return json.dumps({"model": path, **dataclasses.asdict(answer)}, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
