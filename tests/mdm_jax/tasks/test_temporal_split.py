"""Dated texts and their split: dates, changelogs, JSONL, duplicates, and what a user sees of bad input."""

import dataclasses
import datetime
import gzip
import json
import random
from pathlib import Path
from string import ascii_lowercase

import pytest
from command_line import one_line

from mdm_jax.tasks.temporal.__main__ import main
from mdm_jax.tasks.temporal.changelogs import read_changelogs
from mdm_jax.tasks.temporal.dated import Dated, Fields, cut_to, read_dated
from mdm_jax.tasks.temporal.dates import parse_date, years_between
from mdm_jax.tasks.temporal.folder import read_slice, read_split
from mdm_jax.tasks.temporal.split import Span, SplitSpec, split_texts

DAY = datetime.date(2016, 3, 1)
UNTIL = datetime.date(2016, 1, 1)
CHANGELOG = """\
mawk (1.3-2) unstable; urgency=low

  [ Grace Hopper ]
  * Fix a crash found by Ada Lovelace <ada@example.org>. Closes: #12.
  * Thanks to Grace Hopper, and to Emmy Noether.

 -- Ada Lovelace <ada@example.org>  Tue, 01 Mar 2016 23:30:00 -0200

mawk (1.3-1) unstable; urgency=low

  * No last line.

mawk (1.2-1) unstable; urgency=low

  * A day that does not exist.

 -- Grace Hopper <grace@example.org>  Tue, 31 Feb 2012 10:00:00 +0000

oldmawk (1.0-1) unstable; urgency=low

  * First, Größe. Reported by Emmy Noether <emmy@example.org>.

 -- Grace Hopper <grace@example.org>  Mon,  5 Feb 1996 10:00:00 +0000

Local variables:
mode: debian-changelog
End:
"""


@pytest.mark.parametrize(
    "text",
    [
        "2016-03-01",
        " 2016-03-01 ",
        "2016-03-01T05:48:54Z",
        "2016-02-29T23:30:00-02:00",
        "2016-03-01 05:48:54",
        "Tue, 01 Mar 2016 05:48:54 +0000",
        "Mon, 29 Feb 2016 23:00:00 -0500",
    ],
)
def test_dates_of_all_kinds_are_days_in_utc(text):
    assert parse_date(text) == DAY


def test_a_month_is_its_middle():
    assert parse_date("2016-03") == datetime.date(2016, 3, 15)


@pytest.mark.parametrize("text", ["", "2016", "2016-13", "yesterday", "2016-02-30", 20160301, None, "9" * 999])
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ValueError, match=r"date = .*: must be like 2016-03-01") as error:
        parse_date(text)
    assert len(str(error.value)) < 250


def test_a_time_zone_out_of_the_calendar_is_refused():
    with pytest.raises(ValueError, match="must be like"):
        parse_date("0001-01-01T00:00:00+10:00")


def test_years_have_a_sign():
    assert years_between(DAY, DAY.replace(year=2020)) == pytest.approx(4, abs=0.01)
    assert years_between(DAY, DAY.replace(year=2012)) == pytest.approx(-4, abs=0.01)


def changelog(folder: Path, content: bytes, package: str = "mawk") -> str:
    (folder / package).mkdir(parents=True)
    (folder / package / "changelog.Debian.gz").write_bytes(gzip.compress(content))
    return str(folder / "*" / "changelog.Debian.gz")


def test_a_changelog_gives_whole_entries_without_people(tmp_path):
    skipped = list[str]()
    entries = read_changelogs([changelog(tmp_path, CHANGELOG.encode())], skipped.append)
    text, other = (
        "  * Fix a crash found by . Closes: #12.\n  * Thanks to , and to .\n",
        "  * First, Größe. Reported by .\n",
    )
    dates = datetime.date(2016, 3, 2), datetime.date(1996, 2, 5)
    assert entries == [Dated(text, dates[0], "mawk"), Dated(other, dates[1], "oldmawk")]
    assert [message.partition("gz: ")[2].partition(":")[0] for message in skipped] == ["line 9", "line 17"]


def test_a_changelog_in_latin_1_is_read(tmp_path):
    entries = read_changelogs([changelog(tmp_path, CHANGELOG.encode("latin-1"))], lambda message: None)
    assert "Größe" in entries[1].text


def test_a_huge_or_broken_changelog_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_jax.tasks.temporal.changelogs.MOST_BYTES", 1000)
    many = changelog(tmp_path, CHANGELOG.encode() * 3, "big")
    with pytest.raises(ValueError, match=r"big/changelog.Debian.gz: more than .* of text"):
        read_changelogs([many], lambda message: None)
    (tmp_path / "big" / "changelog.Debian.gz").write_bytes(gzip.compress(CHANGELOG.encode())[:-30])
    with pytest.raises(ValueError, match="corrupt or cut short"):
        read_changelogs([many], lambda message: None)


def write(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_bad_records_are_named_or_skipped(tmp_path):
    good, bad = {"body": "a", "when": "2016-03-01"}, {"body": "b", "when": "soon"}
    path = write(tmp_path / "a.jsonl", [good, bad, {"body": " ", "when": "2016-03-01"}, {"when": "2016-03-01"}])
    fields = Fields("body", "when")
    with pytest.raises(ValueError, match=r"a.jsonl: line 2, field 'when': date = 'soon'"):
        list(read_dated([path], fields))
    skipped = list[str]()
    assert list(read_dated([path], fields, skipped.append)) == [Dated("a", DAY)]
    assert "line 4: no text in field 'body'; its fields: when" in skipped[1]


@pytest.mark.parametrize(("most", "kept"), [(0, "größe\nab\ncd"), (12, "größe\nab\n"), (8, "größe\n"), (3, "gr")])
def test_texts_are_cut_at_lines_and_never_within_a_character(most, kept):
    assert cut_to("größe\nab\ncd", most) == kept


def dated(count: int = 400) -> list[Dated]:
    draw = random.Random(0)
    words = ["".join(draw.choices(ascii_lowercase, k=9)) for _ in range(count)]
    days = [UNTIL + datetime.timedelta(draw.randint(-900, 900)) for _ in range(count)]
    return [Dated(f"{word} text", day, f"g{i % 7}") for i, (word, day) in enumerate(zip(words, days, strict=True))]


def keys(texts) -> set[str]:
    return {" ".join(text.text.lower().split()) for text in texts}


def test_no_test_text_stands_in_the_training_texts():
    """The same text with other white space and capitals, years later, is dropped; the earliest is kept."""
    texts = dated()
    again = [dataclasses.replace(text, text=f" {text.text.upper()}\n", date=DAY) for text in texts[:200]]
    split = split_texts([*again, *texts], SplitSpec(UNTIL))
    tested = [text for one in split.slices for text in one.texts]
    assert keys(split.train).isdisjoint(keys(tested))
    assert split.duplicates == 200
    assert len(split.train) + len(tested) == 400
    early = {text.text: text.date for text in texts if text.date < DAY}
    assert all(early.get(text.text, text.date) == text.date for text in tested)


def test_texts_lie_on_the_right_side_and_in_the_right_slice():
    split = split_texts(dated(), SplitSpec(UNTIL, Span.QUARTER))
    assert all(text.date < UNTIL for text in split.train)
    for one in split.slices:
        kind, span = one.name.rsplit("-", 2)[0], one.name[-7:]
        assert kind == ("held-out" if one.held_out else "later")
        assert {f"{text.date.year}-q{(text.date.month + 2) // 3}" for text in one.texts} == {span}
        assert all((text.date < UNTIL) == one.held_out for text in one.texts)


def test_the_split_does_not_depend_on_the_order_of_the_texts():
    texts = dated()
    assert split_texts(texts[::-1], SplitSpec(UNTIL)) == split_texts(texts, SplitSpec(UNTIL))


def test_later_texts_of_unknown_groups_can_be_left_out():
    new = [Dated(f"new {i}", DAY, "new") for i in range(5)]
    split = split_texts([*dated(), *new], SplitSpec(UNTIL, known_groups=True))
    assert split.unknown_groups == 5
    assert not [text for one in split.slices for text in one.texts if text.group == "new"]


def test_near_copies_are_counted_and_kept():
    """Two texts that differ in a number: the later one is a near copy of a training text."""
    base = [text for text in dated() if text.date < UNTIL]
    pair = [Dated("v2 out", DAY), Dated("v1 out", UNTIL.replace(year=2010))]
    split = split_texts([*base, *pair], SplitSpec(UNTIL, held_out=0.01))
    assert [one.near_copies for one in split.slices if not one.held_out] == [1]


def test_known_lines_are_measured():
    """A later text has two lines of 4 and 13 characters, and the first stands in a training text."""
    base = [text for text in dated() if text.date < UNTIL]
    pair = [Dated("Same\nsomething new", DAY), Dated("old\n  same", UNTIL.replace(year=2010))]
    split = split_texts([*base, *pair], SplitSpec(UNTIL, held_out=0.01))
    assert [one.known_lines for one in split.slices if not one.held_out] == [4 / 17]


def test_the_command_writes_what_it_can_read_again(tmp_path, capsys):
    records = [{"text": one.text, "date": one.date.isoformat(), "site": one.group} for one in dated()]
    path, out = write(tmp_path / "a.jsonl", records), str(tmp_path / "out")
    assert main(["split", path, "--until", "2016-01", "--group-field", "site", "--out", out]) == 0
    split = read_split(out)
    texts = [text for entry in split.slices for text in read_slice(out, entry)]
    train = list(read_dated([f"{out}/train.jsonl"], Fields(group="group")))
    assert split.until == "2016-01-15"
    assert sorted(one.text for one in [*train, *texts]) == sorted(one.text for one in dated())
    assert split.train_texts == len(train)
    assert "near copies: 0 test texts" in capsys.readouterr().out
    assert all((entry.years < 0) == entry.held_out for entry in split.slices)
    (tmp_path / "out" / split.slices[0].file).write_text("{}\n")
    with pytest.raises(ValueError, match="split again"):
        read_slice(out, split.slices[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--until", "soon"], "--until: date = 'soon'"),
        (["--until", "1999-01-01"], "texts before 1999-01-01 = 0: must be at least one"),
        (["--until", "2030-01-01"], "texts from 2030-01-01 on = 0: must be at least one"),
        (["--until", "2016-01-01", "--held-out", "1"], "--held-out = 1.0: must be above 0 and below 1"),
        (["--until", "2016-01-01", "--known-groups"], "--known-groups = 'without a group'"),
        (["--until", "2016-01-01", "--date-field", "when"], "line 1: no text in field 'when'"),
    ],
)
def test_bad_input_of_split_is_one_line(tmp_path, capsys, flags, message):
    path = write(tmp_path / "a.jsonl", [{"text": one.text, "date": str(one.date)} for one in dated(40)])
    assert message in one_line(main, ["split", path, "--out", str(tmp_path / "out"), *flags], capsys)


def test_the_command_reads_changelogs_and_counts_broken_entries(tmp_path, capsys):
    path = changelog(tmp_path / "doc", CHANGELOG.encode())
    entry = "mawk (1.{0}-1) unstable; urgency=low\n\n  * {1}\n\n -- Ada Lovelace <a@b.org>  1 Jan 2012 10:00:00 +0000\n"
    many = "".join(entry.format(i, word) for i, word in enumerate(ascii_lowercase))
    changelog(tmp_path / "doc", many.encode(), "other")
    flags = ["--changelogs", "--until", "2016-01-01", "--held-out", "0.5", "--known-groups"]
    assert main(["split", path, *flags, "--out", str(tmp_path / "out")]) == 0
    out, said = capsys.readouterr()
    assert said.count("skipped: ") == 2
    assert "of groups without training texts, 2 bad" in out
    assert [one.name for one in read_split(str(tmp_path / "out")).slices][-1] == "later-2016"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "FILES = 'none': must be JSONL files, or --changelogs"),
        (["--changelogs", "--group-field", "site"], "absent with --changelogs: the group is the source package"),
        (["nowhere.jsonl"], "'nowhere.jsonl': no such file, folder or glob"),
    ],
)
def test_what_to_split_is_needed(tmp_path, capsys, words, message):
    flags = ["--until", "2016-01-01", "--out", str(tmp_path / "out")]
    assert message in one_line(main, ["split", *words, *flags], capsys)


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "date": "2016"}])
    said = one_line(main, ["split", path, "--until", "2016-01-01", "--out", str(tmp_path)], capsys)
    assert "must be an absent or empty folder" in said


def test_an_unknown_command_is_one_line(capsys):
    assert "invalid choice: 'divide'" in one_line(main, ["divide"], capsys)
