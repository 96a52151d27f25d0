"""Dated texts from the changelogs of Debian packages, `/usr/share/doc/PACKAGE/changelog.Debian.gz`.

Each entry of a changelog is a text: its first line names the source package and the version, and its last line has a
name, a mail address and a date (Debian Policy 4.4). Only the lines between them are kept. Mail addresses and headings
such as `[ Ada Lovelace ]` are removed from the text. A name that signs an entry of any changelog, is such a heading, or
has a mail address after it, is removed wherever it stands. Names that only stand in sentences remain.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mdm_jax.data.sources.files import Line, find_files, read_lines
from mdm_jax.data.sources.records import Skip
from mdm_jax.files.storage import Path
from mdm_jax.tasks.temporal.dated import Dated
from mdm_jax.tasks.temporal.dates import parse_date

DEFAULT_FILES = "/usr/share/doc/*/changelog.Debian.gz"
MOST_BYTES = 64 << 20
"""The most text of one file, so that a small compressed file cannot fill the memory."""
FIRST_LINE = re.compile(r"(\S+) \([^()]*\)[^;]*;")
LAST_LINE = re.compile(r" -- (.*?)\s*<[^>]*>\s+(.*)")
MAIL = re.compile(r"[ \t]*<?[\w.+~-]+(@|\(at\)| at )[\w-]+(\.[\w-]+)+>?")
HEADING = re.compile(r"\s*\[ (.*) \]\s*")
MENTIONED = re.compile(r"((?:[^\W\d_][\w'.-]*[ \t]+){2,4})<[^<>\s]+@")
"""Up to four words before a mail address. The last of them are a name."""
PARTICLES = {"van", "von", "de", "der", "den", "ten", "del", "da", "dos", "du", "la", "le", "bin", "al"}
"""Words of a name that have no capital letter."""
WORD = re.compile(r"\w[\w'.-]*")


@dataclass
class _Entry:
    """An entry whose last line is not read yet."""

    package: str
    began: Line
    lines: list[str] = field(default_factory=list)


def read_changelogs(paths: Sequence[str], skip: Skip) -> list[Dated]:
    """The entries of all changelogs, without names and mail addresses; the group is the source package.

    Args:
        paths: files, folders or globs of changelogs.
        skip: called for each broken entry, which is then skipped: one without a last line, or whose date does not
            parse. Hand-written changelogs have a few of them.

    Raises:
        ValueError: no file, or a file is corrupt or has more than 64 MiB of text; the message names it.
    """
    found: list[Dated] = []
    names: set[str] = set()
    files = {file for path in paths for file in find_files(path, ("changelog.Debian", "changelog"))}
    for file in sorted(files, key=str):
        for entry, name in _entries(file, skip):
            found.append(entry)
            names |= {name, *mentioned_names(entry.text)}
    people = _by_first_word(names)
    scrubbed = (replace(entry, text=without_people(entry.text, people)) for entry in found)
    return [entry for entry in scrubbed if entry.text]


def _entries(file: Path, skip: Skip) -> Iterator[tuple[Dated, str]]:
    """Each whole entry of a file, with the name of the person who signed it."""
    entry: _Entry | None = None
    for line in read_lines(file):
        if line.start + len(line.raw) > MOST_BYTES:
            raise ValueError(f"{file}: more than {MOST_BYTES >> 20} MiB of text: no changelog; leave it out")
        text = _decoded(line)
        if first := FIRST_LINE.match(text):
            if entry is not None:
                skip(f"{entry.began.where}: the entry has no last line ' -- NAME <MAIL>  DATE'")
            entry = _Entry(first[1], line)
        elif entry is not None and (last := LAST_LINE.match(text)):
            try:
                yield Dated("\n".join(entry.lines), parse_date(last[2]), entry.package), last[1]
            except ValueError as error:
                skip(f"{line.where}: {error}")
            entry = None
        elif entry is not None:
            entry.lines.append(text)
    if entry is not None:
        skip(f"{entry.began.where}: the entry has no last line ' -- NAME <MAIL>  DATE'")


def _decoded(line: Line) -> str:
    """The line as text: old entries are in latin-1."""
    raw = line.raw.rstrip(b"\r\n")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def mentioned_names(text: str) -> set[str]:
    """The names in headings, and those that have a mail address after them."""
    headings = (heading[1] for line in text.split("\n") if (heading := HEADING.fullmatch(line)))
    found = {name for line in headings for name in re.split(r", | and | & ", line)}
    for mention in MENTIONED.finditer(text):
        words, name = mention[1].split(), list[str]()
        while words and (words[-1][0].isupper() or words[-1] in PARTICLES):
            name.insert(0, words.pop())
        # The first of three words may begin the sentence: `Thanks Ada Lovelace`.
        found |= {" ".join(name), " ".join(name[-2:])}
    return found


def _by_first_word(names: set[str]) -> dict[str, list[str]]:
    """The names of at least two words by their first word, the longest first."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        first = WORD.match(name)
        if first and len(name.split()) > 1:
            found[first[0]].append(name)
    return {first: sorted(same, key=len, reverse=True) for first, same in found.items()}


def without_people(text: str, people: dict[str, list[str]]) -> str:
    """The text without mail addresses, lines that only name a person in brackets, and the names of `people`.

    Args:
        text: lines of an entry.
        people: names by their first word, the longest first.
    """
    lines = [line.rstrip() for line in MAIL.sub("", text).split("\n") if not HEADING.fullmatch(line)]
    joined = "\n".join(lines).strip("\n")
    parts, done = list[str](), 0
    for word in WORD.finditer(joined):
        if word.start() >= done:
            name = next((name for name in people.get(word[0], ()) if joined.startswith(name, word.start())), None)
            if name is not None:
                parts.append(joined[done : word.start()])
                done = word.start() + len(name)
    cleaned = "".join([*parts, joined[done:]]).replace(" ()", "").replace(" <>", "")
    return cleaned + "\n" if cleaned.strip() else ""
