"""The folder of a split: `train.jsonl`, a JSONL file for each test slice, and `slices.json`, which describes them."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from mdm_jax.data.sources.files import read_lines
from mdm_jax.files.sealed_json import Damaged, seal, unseal
from mdm_jax.files.storage import Kind, as_path, entries, inside, is_file, kind, write_atomic
from mdm_jax.spec.validation import build, require
from mdm_jax.tasks.temporal.dated import Dated
from mdm_jax.tasks.temporal.dates import years_between
from mdm_jax.tasks.temporal.split import Slice, Span, Split, SplitSpec

TRAIN_FILE, SLICES_FILE, SLICES_FOLDER = "train.jsonl", "slices.json", "slices"
VERSION = 1
MOST_BYTES = 16 << 20
"""The most bytes of a `slices.json` that is read."""


@dataclass(frozen=True)
class SliceEntry:
    """A test slice in `slices.json`.

    Attributes:
        name: its name.
        file: its path in the folder.
        sha256: hash of the file.
        held_out: whether its texts are of the training period.
        years: years from the training's end to the mean date of its text, weighted by bytes; negative before the end.
        texts: number of texts.
        text_bytes: bytes of all texts.
        near_copies: see `Slice`.
        known_lines: see `Slice`.
    """

    name: str
    file: str
    sha256: str
    held_out: bool
    years: float
    texts: int
    text_bytes: int
    near_copies: int
    known_lines: float


@dataclass(frozen=True)
class SplitEntry:
    """All of `slices.json`: the day of the training's end, how the texts were split, and the slices."""

    schema_version: int
    until: str
    by: Span
    held_out: float
    known_groups: bool
    most_text_bytes: int
    train_texts: int
    train_bytes: int
    duplicates: int
    unknown_groups: int
    bad: int
    slices: tuple[SliceEntry, ...]


def check_new(folder: str) -> None:
    """Returns if a split can be written to the folder: it is absent or empty.

    Raises:
        ValueError: something is at the path.
    """
    found = kind(folder, follow=True)
    free = found is Kind.ABSENT or (found is Kind.FOLDER and not entries(as_path(folder)))
    require(free, "--out", folder, "an absent or empty folder, so that no old slice stays in it")


def write_split(folder: str, split: Split, spec: SplitSpec, bad: int) -> SplitEntry:
    """Writes the folder of a split, `slices.json` last, and returns what that file says.

    Raises:
        OSError: the disk is full or not writable.
    """
    root = as_path(folder)
    write_atomic(root / TRAIN_FILE, jsonl(split.train))
    made = []
    for one in split.slices:
        content, file = jsonl(one.texts).encode(), f"{SLICES_FOLDER}/{one.name}.jsonl"
        write_atomic(root / file, content)
        made.append(_entry(one, file, content, spec.until))
    whole = SplitEntry(
        schema_version=VERSION,
        until=spec.until.isoformat(),
        by=spec.by,
        held_out=spec.held_out,
        known_groups=spec.known_groups,
        most_text_bytes=spec.most_text_bytes,
        train_texts=len(split.train),
        train_bytes=sum(len(text.text.encode()) for text in split.train),
        duplicates=split.duplicates,
        unknown_groups=split.unknown_groups,
        bad=bad,
        slices=tuple(made),
    )
    write_atomic(root / SLICES_FILE, json.dumps(seal(dataclasses.asdict(whole)), indent=1) + "\n")
    return whole


def jsonl(texts: Sequence[Dated]) -> str:
    """A line of JSON for each text, with its date and group."""
    records = ({"text": one.text, "date": one.date.isoformat(), "group": one.group} for one in texts)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _entry(one: Slice, file: str, content: bytes, until: datetime.date) -> SliceEntry:
    sizes = [len(text.text.encode()) for text in one.texts]
    ages = [years_between(until, text.date) for text in one.texts]
    years = sum(size * age for size, age in zip(sizes, ages, strict=True)) / sum(sizes)
    digest = hashlib.sha256(content).hexdigest()
    seen = (one.near_copies, one.known_lines)
    return SliceEntry(one.name, file, digest, one.held_out, years, len(sizes), sum(sizes), *seen)


def read_split(folder: str) -> SplitEntry:
    """What `slices.json` in a folder says.

    Raises:
        ValueError: there is no such file, or it is damaged; the message names it.
    """
    path = as_path(folder) / SLICES_FILE
    remedy = "the folder that `python -m mdm_jax.tasks.temporal split` wrote"
    require(is_file(path), "--slices", folder, remedy)
    require(path.stat().length <= MOST_BYTES, str(path), path.stat().length, f"at most {MOST_BYTES} bytes")
    try:
        tree = unseal(path.read_bytes(), VERSION)
        version = tree.get("schema_version")
        require(version == VERSION, "schema_version", version, f"{VERSION}: update mdm-jax, or split again")
        whole = build(SplitEntry, tree)
        require(bool(whole.slices), "slices", len(whole.slices), "at least one")
        return whole
    except (Damaged, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a split's description ({error})") from None


def read_slice(folder: str, entry: SliceEntry) -> list[Dated]:
    """The texts of a slice, in the order of the file.

    Raises:
        ValueError: the file leads out of the folder, or is not the one that was written; the message names it.
        OSError: the file is absent or cannot be read.
    """
    path = inside(folder, entry.file)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    require(found == entry.sha256, str(path), f"SHA-256 {found[:12]}", f"{entry.sha256[:12]}: split again")
    records = (json.loads(line.raw) for line in read_lines(path))
    return [Dated(one["text"], datetime.date.fromisoformat(one["date"]), one["group"]) for one in records]
