"""The shards are the same for any number of processes and any cut, and an interrupted preparation goes on."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_corpus import data_spec, texts

from mdm_jax.data.build import build_shards
from mdm_jax.data.duplicates import first_of_each
from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.prepare import main, prepare
from mdm_jax.data.sources.pieces import labelled, pieces_of, read_piece
from mdm_jax.data.store import open_split
from mdm_jax.files.storage import as_path
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec, TokenizerKind, TokenizerSpec


def jsonl(documents):
    """Lines, every second one in plain UTF-8."""
    plain = [i % 2 == 1 and "\ud800" not in text for i, text in enumerate(documents)]
    return "".join(
        json.dumps({"text": text}, ensure_ascii=not p) + "\n" for text, p in zip(documents, plain, strict=True)
    )


def awkward_corpus(folder):
    """JSONL with what a cut could lose: documents repeated in other files, blank lines, a last line without its end."""
    folder.mkdir()
    first, second, third = texts(200), texts(150, seed=1), texts(120, seed=2)
    (folder / "a.jsonl").write_text("\n" + jsonl(first) + "\n \n" + jsonl(first[:50]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(second + first[50:80]).encode()))
    (folder / "c.jsonl").write_text("\ufeff" + jsonl([*third, "x\r\ny", "x\ny", " ", "half \ud800"]).rstrip("\n"))
    (folder / "d.jsonl").write_text("")
    return DataSpec(corpus=CorpusSpec(CorpusSource.JSONL, str(folder)), validation_fraction=0.2)


def built(data, folder, **options):
    folder.mkdir()
    build_shards(data, as_path(folder), **options)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def split_text(folder, name):
    store = open_split(folder, name)
    tokens = np.asarray(store.tokens(0, len(store)))
    return bytes(np.where(tokens == 256, 255, tokens).astype(np.uint8)).split(b"\xff")[:-1]


@pytest.mark.parametrize("max_bytes", [0, 9_000, 30_000])
def test_every_cut_gives_the_documents_that_reading_in_one_go_gives(tmp_path, max_bytes):
    data = awkward_corpus(tmp_path / "text")
    corpus = CorpusSpec(CorpusSource.JSONL, data.corpus.path, max_bytes=max_bytes)
    data = DataSpec(corpus=corpus, validation_fraction=0.2)
    expected = list(labelled(corpus, 0.2))
    contents = []
    for size in (1 << 25, 5000, 397):
        contents.append(built(data, tmp_path / f"out-{size}", piece_bytes=size, shard_tokens=7000))
        for name in ("train", "validation"):
            own = [d.content for d in expected if d.validation == (name == "validation")]
            assert split_text(tmp_path / f"out-{size}", name) == own
            split = read_manifest(tmp_path / f"out-{size}").split(name)
            assert (split.documents, split.text_bytes) == (len(own), sum(map(len, own)))
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_two_processes_write_what_one_writes(tmp_path, kind):
    tokenizer = TokenizerSpec() if kind == "bytes" else TokenizerSpec(TokenizerKind.SENTENCEPIECE, 300)
    data = DataSpec(corpus=awkward_corpus(tmp_path / "text").corpus, tokenizer=tokenizer, validation_fraction=0.2)
    one = built(data, tmp_path / "one")
    assert built(data, tmp_path / "two", jobs=2, piece_bytes=4000) == one


def test_the_first_of_each_document_is_found_on_disk_as_in_memory(tmp_path):
    draw = np.random.default_rng(0)
    rows = np.empty(5000, [("high", "<u8"), ("low", "<u8")])
    rows["high"] = draw.integers(0, 1 << 64, 60, np.uint64)[draw.integers(0, 60, 5000)]
    rows["low"] = draw.integers(0, 20, 5000)
    seen, expected = set(), []
    for row in rows.tolist():
        expected.append(row not in seen)
        seen.add(row)
    assert 500 < sum(expected) < 1300
    for most in (1, 100, 5000):
        first = first_of_each(np.split(rows, [0, 7, 7, 3000]), len(rows), as_path(tmp_path), file_documents=most)
        assert first.tolist() == expected


def test_a_bad_line_is_named_by_its_number_in_the_file_whatever_the_cut(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl(texts(100)) + "{nonsense\n" + jsonl(texts(100, seed=1)))
    data = DataSpec(corpus=CorpusSpec(CorpusSource.JSONL, str(tmp_path / "a.jsonl")), validation_fraction=0.2)
    for size in (1 << 25, 1000, 601):
        with pytest.raises(ValueError, match=r"a\.jsonl: line 101: not JSON"):
            build_shards(data, as_path(tmp_path / f"out-{size}"), piece_bytes=size)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    data = data_spec(tmp_path)
    (piece,) = pieces_of(data.corpus)
    reading = read_piece(data.corpus, piece, 0.2)
    next(reading)
    with open(data.corpus.path, "a") as file:
        file.write(jsonl(["one more"]))
    with pytest.raises(ValueError, match=r"corpus\.jsonl: changed while it was read: prepare again"):
        list(reading)


def many_files(folder, count=30, size=2000):
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:02d}.jsonl").write_text(jsonl(texts(size, seed=i)))
    return ["--corpus", "jsonl", "--path", str(folder), "--out", str(folder.parent / "prepared")]


def start(arguments, *more):
    command = [sys.executable, "-m", "mdm_jax.data.prepare", *arguments, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_parts(process, folder, count):
    deadline = time.monotonic() + 120
    while len(seals := sorted((folder / ".prepared.partial" / "parts").glob("*.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return seals


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_preparation_goes_on_from_its_whole_parts(tmp_path):
    """Parts with a seal are used again, a damaged one and those of changed files are made again.

    What was used again shows because the sealed files' text is replaced behind the preparation's back: the size and the
    time stay, so the old text must come out.
    """
    arguments = many_files(tmp_path / "text", count=12, size=2000)
    process = start(arguments, "--jobs", "1")
    seals = wait_for_parts(process, tmp_path, 4)
    process.kill()
    process.communicate()
    assert not (tmp_path / "prepared").exists()
    expected = built(DataSpec(corpus=CorpusSpec(CorpusSource.JSONL, str(tmp_path / "text"))), tmp_path / "fresh")
    for i in (0, 1):
        path = tmp_path / "text" / f"{i:02d}.jsonl"
        before = path.stat()
        path.write_text(path.read_text().replace("data", "atad"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert main([*arguments, "--jobs", "1"]) == 0
    after = {file.name: file.read_bytes() for file in (tmp_path / "prepared").iterdir()}
    assert after == expected
    assert not (tmp_path / ".prepared.partial").exists()
    assert len(seals) >= 4


def test_a_damaged_part_and_a_changed_file_are_made_again(tmp_path):
    arguments = many_files(tmp_path / "text", count=4, size=300)
    (tmp_path / "text" / "03.jsonl").write_text("{nonsense")
    assert main([*arguments, "--jobs", "1"]) == 1
    parts = tmp_path / ".prepared.partial" / "parts"
    assert len(list(parts.glob("*.json"))) == 3, "what was read before the bad file is kept"
    for seal, ending in zip(sorted(parts.glob("*.json")), ("ids", "index", "json"), strict=True):
        raw = bytearray(seal.with_suffix(f".{ending}").read_bytes())
        raw[len(raw) // 2] ^= 1
        seal.with_suffix(f".{ending}").write_bytes(raw)
    (tmp_path / "text" / "02.jsonl").write_text(jsonl(texts(310, seed=7)))
    (tmp_path / "text" / "03.jsonl").write_text(jsonl(texts(300, seed=3)))
    (tmp_path / "text" / "025.jsonl").write_text(jsonl(texts(100, seed=8)))
    assert main([*arguments, "--jobs", "1"]) == 0
    after = {file.name: file.read_bytes() for file in (tmp_path / "prepared").iterdir()}
    assert after == built(DataSpec(corpus=CorpusSpec(CorpusSource.JSONL, str(tmp_path / "text"))), tmp_path / "fresh")


def test_no_worker_outlives_its_parent(tmp_path):
    arguments = many_files(tmp_path / "text", count=16)
    process = start(arguments, "--jobs", "2")
    wait_for_parts(process, tmp_path, 2)
    workers = children(process)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_and_an_interruption_are_one_line_each(tmp_path):
    arguments = many_files(tmp_path / "text")
    process = start(arguments, "--jobs", "2")
    wait_for_parts(process, tmp_path, 2)
    os.kill(children(process)[-1], signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.startswith("mdm_jax: a worker process was ended from outside (is memory short?)")
    assert said.count("\n") == 1

    process = start(arguments, "--jobs", "2")
    wait_for_parts(process, tmp_path, 6)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert (process.returncode, said) == (
        130,
        "mdm_jax: interrupted: the same command goes on from the finished parts\n",
    )


def test_a_latin_1_file_is_named_with_the_remedy_or_passed_over(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    draw = random.Random(0)
    for i in range(60):
        (tmp_path / "text" / f"{i:02d}.txt").write_text(" ".join(draw.choices(["masked", "tokens", "größe"], k=50)))
    arguments = ["--corpus", "text", "--path", str(tmp_path / "text"), "--validation-fraction", "0.3", "--jobs", "1"]
    assert main([*arguments, "--out", str(tmp_path / "good")]) == 0
    (tmp_path / "text" / "30a.txt").write_bytes("good line\n\nGröße\n".encode("latin-1"))
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "bad")]) == 1
    said = capsys.readouterr().err
    assert "30a.txt: line 3, byte 13: not UTF-8" in said
    assert "iconv -f latin1 -t utf-8" in said
    assert "--skip-bad" in said
    assert main([*arguments, "--out", str(tmp_path / "bad"), "--skip-bad"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("skipped: ") == shown.err.count("30a.txt") == 1
    assert "skipped: 1 bad lines and files" in shown.out
    bad, good = read_manifest(tmp_path / "bad"), read_manifest(tmp_path / "good")
    assert (bad.skipped, good.skipped, bad.data_hash) == (1, 0, good.data_hash)


def test_bad_lines_are_passed_over_on_request_and_counted(tmp_path, capsys):
    good = texts(200)
    lines = jsonl(good).splitlines(keepends=True)
    bad = ["{nonsense\n", '{"body": 1}\n', "[" * 10 + "\n"] * 10
    for i, line in enumerate(bad):
        lines.insert(i * 5, line)
    (tmp_path / "a.jsonl").write_text("".join(lines))
    arguments = ["--corpus", "jsonl", "--path", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--validation-fraction", "0.2", "--skip-bad"]) == 0
    assert read_manifest(tmp_path / "out").skipped == len(bad)
    held = split_text(tmp_path / "out", "train") + split_text(tmp_path / "out", "validation")
    assert sorted(held) == sorted(text.encode() for text in good)
    said = capsys.readouterr().err.splitlines()
    assert "line 6: no text in field 'text'; its fields: body" in said[1]
    assert said[-1] == "skipped: 10 more in the same file", "30 bad lines, of which 20 are named"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("word " * 5000, "split has no document: give more text or change validation_fraction; a text file is cut"),
        ("x" * ((64 << 20) + 10), "line 1: longer than 64 MiB: break it into lines, with fold -s for example"),
    ],
)
def test_a_text_without_breaks_is_told_what_to_do(tmp_path, capsys, content, message):
    (tmp_path / "book.txt").write_text(content)
    arguments = ["--corpus", "text", "--path", str(tmp_path / "book.txt"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / ".out.partial").exists()


def test_a_text_without_breaks_is_cut_into_passages_on_request(tmp_path, capsys):
    """The remedy that the error names works: whole passages in either split, and the same run may train on them."""
    draw = random.Random(0)
    (tmp_path / "book.txt").write_text(" ".join(draw.choices(["masked", "tokens", "größe"], k=50_000)))
    out = str(tmp_path / "out")
    arguments = ["--path", str(tmp_path / "book.txt"), "--validation-fraction", "0.1", "--out", out]
    assert main(["--corpus", "passages", *arguments]) == 0
    train, validation = split_text(tmp_path / "out", "train"), split_text(tmp_path / "out", "validation")
    assert sorted(map(len, train + validation))[1] > 2000
    assert len(train) > len(validation) > 1
    joined = (tmp_path / "book.txt").read_bytes()
    assert sum(map(len, train + validation)) == len(joined)
    assert all(text in joined for text in train + validation)
    manifest = read_manifest(out)
    assert manifest.corpus.source is CorpusSource.PASSAGES
    (tmp_path / "lines.txt").write_text("".join(f"line {i} {draw.random()}\n" for i in range(30_000)))
    arguments = ["--corpus", "text", "--path", str(tmp_path / "lines.txt"), "--validation-fraction", "0.3"]
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "lines")]) == 0
    assert "documents of 6" in (said := capsys.readouterr().out)
    assert "few blank lines, where it is cut; --corpus passages cuts it into 2 to 4 kB" in said


def test_progress_says_how_much_of_the_files_is_done(tmp_path):
    data = DataSpec(corpus=awkward_corpus(tmp_path / "text").corpus, directory=str(tmp_path / "out"))
    seen = []
    prepare(data, report=seen.append)
    total = sum(file.stat().st_size for file in (tmp_path / "text").iterdir())
    assert [p.total for p in seen] == [total] * len(seen)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[0].done, seen[-1].done) == (0, total)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_documents(tmp_path):
    """Peak memory with 1.2 million documents against .4 million; a set of hashes in memory takes 66 MB more."""
    code = (
        "import resource, sys; from mdm_jax.data.prepare import main\n"
        "assert main(sys.argv[1:]) == 0\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    peaks = []
    for count in (400_000, 1_200_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            file.writelines(f'{{"text": "{i} {"masked tokens " * 6}"}}\n' for i in range(count))
        arguments = ["--corpus", "jsonl", "--path", str(path), "--out", str(tmp_path / str(count)), "--jobs", "1"]
        out = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(out.stdout.split()[-1]))
        assert read_manifest(tmp_path / str(count)).train.documents > 0.97 * count
    assert peaks[1] - peaks[0] < 25e6
