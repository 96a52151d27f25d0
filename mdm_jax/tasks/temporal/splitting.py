"""Splits dated texts into a training corpus until a date and test slices by date, as JSONL.

    python -m mdm_jax.tasks.temporal split news/*.jsonl.gz --until 2023-06-01 --by month --out data/news
    python -m mdm_jax.tasks.temporal split --changelogs --until 2016-01-01 --known-groups --out data/changelogs
    python -m mdm_jax.data.prepare --corpus jsonl --path data/changelogs/train.jsonl --out data/changelogs-bytes

A record of JSONL has a text and a date: an ISO date or datetime, a month (2016-03), or RFC 2822. `--changelogs` reads
the changelogs of the Debian packages that are installed, or those that FILES name. A text that occurs several times is
kept once, at its earliest date. The training texts go to OUT/train.jsonl and the slices to OUT/slices/, which
OUT/slices.json describes. Some texts of the training period are held out: they show the loss without a shift in time.
All texts are in memory together.
"""

import argparse
import sys
from collections.abc import Iterable

from mdm_jax.command import DONE, aligned, new_parser
from mdm_jax.data.sources.records import Skip
from mdm_jax.spec.validation import require
from mdm_jax.tasks.temporal.changelogs import DEFAULT_FILES, read_changelogs
from mdm_jax.tasks.temporal.dated import Dated, Fields, read_dated
from mdm_jax.tasks.temporal.dates import parse_date
from mdm_jax.tasks.temporal.folder import SplitEntry, check_new, write_split
from mdm_jax.tasks.temporal.split import Span, SplitSpec, split_texts


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.temporal split", __doc__)
    add = flags.add_argument
    add("files", nargs="*", metavar="FILES", help="JSONL files, folders or globs; changelogs with --changelogs")
    add("--changelogs", action="store_true", help=f"read Debian changelogs (without FILES: {DEFAULT_FILES})")
    add("--until", required=True, metavar="DATE", help="the first day after the training period")
    add("--out", required=True, metavar="DIR", help="new folder of the training corpus and the slices")
    spans = [span.value for span in Span]
    add("--by", choices=spans, default=Span.YEAR.value, help="time that a slice covers (%(default)s)")
    share = SplitSpec.held_out
    add("--held-out", type=float, default=share, help="share of the training period's texts for tests (%(default)s)")
    add("--known-groups", action="store_true", help="keep only later texts of groups (packages) with training texts")
    add("--most-text-bytes", type=int, default=0, metavar="N", help="cut longer texts at a line's end (default: never)")
    add("--text-field", default=Fields.text, help="field of a record with its text (%(default)s)")
    add("--date-field", default=Fields.date, help="field of a record with its date (%(default)s)")
    add("--group-field", default="", help="field that is equal for texts that depend on each other, such as a site")
    add("--skip-bad", action="store_true", help="skip records that are broken or whose date does not parse")
    return flags


def work(flags: argparse.Namespace) -> int:
    """The exit code; writes the split and prints what is in it.

    Raises:
        ValueError: a flag, a file or a record is bad.
        OSError: the disk is full or not writable.
    """
    try:
        until = parse_date(flags.until)
    except ValueError as error:
        raise ValueError(f"--until: {error}") from None
    spec = SplitSpec(until, Span(flags.by), flags.held_out, flags.known_groups, flags.most_text_bytes)
    require(bool(flags.files) or flags.changelogs, "FILES", "none", "JSONL files, or --changelogs")
    fixed = flags.changelogs and flags.group_field
    require(not fixed, "--group-field", flags.group_field, "absent with --changelogs: the group is the source package")
    needs_groups = flags.known_groups and not (flags.changelogs or flags.group_field)
    require(not needs_groups, "--known-groups", "without a group", "together with --group-field or --changelogs")
    check_new(flags.out)
    skipped = list[str]()
    split = split_texts(_texts(flags, skipped.append), spec)
    for message in skipped:
        print(f"skipped: {message}", file=sys.stderr)
    print(summary(write_split(flags.out, split, spec, len(skipped)), flags.out))
    return DONE


def _texts(flags: argparse.Namespace, skip: Skip) -> Iterable[Dated]:
    if flags.changelogs:
        return read_changelogs(flags.files or [DEFAULT_FILES], skip)
    fields = Fields(flags.text_field, flags.date_field, flags.group_field)
    return read_dated(flags.files, fields, skip if flags.skip_bad else None)


HEADER = ("slice", "years after the end", "texts", "bytes", "near copies", "known lines")


def summary(split: SplitEntry, folder: str) -> str:
    """The text that the command prints: a line for each slice, and what was left out."""
    cells = []
    for one in split.slices:
        counts = (f"{n:,}" for n in (one.texts, one.text_bytes, one.near_copies))
        cells.append((one.name, f"{one.years:+.2f}", *counts, f"{one.known_lines:.1%}"))
    near = sum(one.near_copies for one in split.slices)
    lines = [
        f"training texts before {split.until}: {split.train_texts:,}, {split.train_bytes:,} bytes",
        *aligned([HEADER, *cells], left=HEADER[:1]),
        f"dropped: {split.duplicates:,} that equal an earlier text, {split.unknown_groups:,} of groups without training"
        f" texts, {split.bad:,} bad",
        f"near copies: {near:,} test texts equal a training text but for their numbers; they are kept",
        "known lines: the share of a slice that is in lines which stand in a training text too",
        f"folder: {folder}",
    ]
    return "\n".join(lines)
