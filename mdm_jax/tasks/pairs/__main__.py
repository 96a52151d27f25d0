"""Turns published pairs into one JSONL file with the fields `prompt` and `response`, on which a model is fine-tuned.

    python -m mdm_jax.tasks.pairs sharegpt.json --format sharegpt --out pairs.jsonl
    python -m mdm_jax.tasks.pairs train.jsonl --format gsm8k --out pairs.jsonl
    python -m mdm_jax.tasks.pairs alpaca.json --fields instruction,output --out pairs.jsonl

Formats:
  plain            records with two text fields, `prompt` and `response` or those of --fields
  sharegpt         conversations; the pair is the first human turn and the answer to it
  gsm8k            word problems with `question` and `answer`; the response has the rationale and `#### n`
  gsm8k_two_stage  the same as two pairs: question to rationale, and question with rationale to the number

FILE is a JSON array or has one record a line; .gz and .zst are decompressed. A record without a response, or of another
form, is an error that names the file and the record; --skip-bad leaves it out and counts it.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence

from mdm_jax.command import BAD, DONE, aligned, comma_list, exit_code, new_parser, one_line, say
from mdm_jax.files.storage import check_writable, write_atomic
from mdm_jax.spec.validation import require
from mdm_jax.tasks.pairs.formats import PairFormat, Reading, Skipped, read_pairs
from mdm_jax.tasks.pairs.pair import TextPair


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.pairs", __doc__)
    add = flags.add_argument
    add("file", metavar="FILE", help="the file of records")
    add("--format", choices=list(PairFormat), default=PairFormat.PLAIN, help="of the records (default: %(default)s)")
    add("--out", metavar="FILE", help="JSONL file to write (default: only count the pairs)")
    add("--fields", type=comma_list, metavar="A,B", help="fields of prompt and response, for plain")
    template = "frame of each prompt, for plain and sharegpt, such as 'USER: {prompt} ASSISTANT: '"
    add("--template", default="", metavar="TEXT", help=template)
    add("--keep-marks", action="store_true", help="keep GSM8K's calculator marks, <<6*7=42>>")
    add("--skip-bad", action="store_true", help="leave bad records out, and print the first ones")
    add("--limit", type=int, metavar="N", help="stop after N pairs")
    return flags


def reading_of(flags: argparse.Namespace) -> Reading:
    """The reading that the flags choose.

    Raises:
        ValueError: the flags do not go together.
    """
    fields = flags.fields if flags.fields is not None else (Reading.prompt_field, Reading.response_field)
    require(len(fields) == 2, "--fields", ",".join(fields), "two names, such as instruction,output")
    return Reading(PairFormat(flags.format), fields[0], fields[1], flags.template, flags.keep_marks)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        require(flags.limit is None or flags.limit >= 1, "--limit", flags.limit, "1 or more")
        if flags.out:
            check_writable(flags.out)
        skipped = Skipped() if flags.skip_bad else None
        found = list(itertools.islice(read_pairs(flags.file, reading_of(flags), skipped), flags.limit))
        if skipped is not None:
            _tell(skipped)
        if not found:
            return say(f"{flags.file}: no pairs", BAD)
        if flags.out:
            write_atomic(flags.out, "".join(pair.line for pair in found))
        print("\n".join(summary(found)))
        return DONE

    return exit_code(work)


def _tell(skipped: Skipped) -> None:
    """Prints the first bad records, and the number of each fault, on standard error."""
    for bad in skipped.first:
        print(f"skipped: {one_line(bad)}", file=sys.stderr)
    for fault, count in skipped.faults.most_common(10):
        print(f"skipped {count:,}: {one_line(fault)}", file=sys.stderr)
    if skipped.count:
        print(f"skipped {skipped.count:,} records in all", file=sys.stderr)


def summary(pairs: Sequence[TextPair]) -> list[str]:
    """The lines of a table: the number of pairs, and the bytes of prompts and responses."""
    rows = [["", "pairs", "least bytes", "median", "most", "in all"]]
    for name in ("prompt", "response"):
        sizes = [len(getattr(pair, name).encode()) for pair in pairs]
        counts = (len(sizes), min(sizes), round(statistics.median(sizes)), max(sizes), sum(sizes))
        rows.append([name, *(f"{count:,}" for count in counts)])
    return aligned(rows, [""])


if __name__ == "__main__":
    sys.exit(main())
