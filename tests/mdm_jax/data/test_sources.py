"""Every source gives its documents once, in a fixed order, and names the file and line that is wrong."""

import gzip
import itertools
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from json_tokenizers import byte_level
from small_corpus import documents, texts, write_jsonl

from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.prepare import main as prepare
from mdm_jax.data.sources.holdout import WINDOW_BYTES, shared_windows
from mdm_jax.data.sources.pieces import labelled, pieces_of, read_piece
from mdm_jax.data.sources.pydoc import pydoc_documents
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec, EvaluationSpec

TEXTS = texts(50)


def read(source, path, **settings):
    return documents(CorpusSpec(source=CorpusSource(source), path=str(path), **settings))


def test_text_files_give_their_text_in_the_order_of_their_names(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, text in (("b.txt", "second\n"), ("a.md", "first"), ("deep/c.txt", "third"), ("x.bin", "not text")):
        (tmp_path / name).write_text(text)
    assert read("text", tmp_path) == ["first", "second", "third"]
    assert read("text", tmp_path / "b.txt") == ["second"]
    assert read("text", tmp_path / "*.txt") == ["second"]
    assert read("text", tmp_path / "**" / "*.txt") == ["second", "third"]


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    paragraphs = [f"{i} " + "word " * 50 for i in range(200)]
    (tmp_path / "long.txt").write_text("\n\n".join(paragraphs))
    pieces = read("text", tmp_path)
    assert len(pieces) > 5
    assert all(4000 <= len(piece) <= 4600 for piece in pieces[:-1])
    assert "\n\n".join(pieces) == "\n\n".join(paragraphs)


def test_a_text_without_blank_lines_is_cut_all_the_same(tmp_path):
    (tmp_path / "log.txt").write_text("".join(f"line {i}\n" for i in range(50_000)))
    pieces = read("text", tmp_path)
    assert max(map(len, pieces)) < 70_000
    assert "\n".join(pieces) + "\n" == (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("mark", ["\n", ". ", " ", ""])
def test_passages_cut_a_text_at_the_best_end_it_has(tmp_path, mark):
    draw = random.Random(0)
    words = ("".join(draw.choices("abcdeäλ漢😀", k=draw.randint(1, 60))) for _ in range(2000))
    text = mark.join(words) if mark else "".join(words).replace(" ", "")
    (tmp_path / "long.txt").write_text("\ufeff" + text)
    pieces = read("passages", tmp_path)
    assert len(pieces) > 10
    assert all(2000 <= len(piece) <= 4096 for piece in pieces[:-1])
    assert (mark if mark == "\n" else "").join(pieces) == text
    assert all(piece.endswith(mark.strip("\n")) for piece in pieces[:-1])


def test_passages_do_not_depend_on_how_the_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "long.txt").write_text("".join(f"größe {i}, λ 漢字 😀{chr(10) * (i % 50 == 0)}" for i in range(3000)))
    whole = read("passages", tmp_path)
    monkeypatch.setattr("mdm_jax.data.sources.plain_text.READ_BYTES", 7)
    assert read("passages", tmp_path) == whole


@pytest.mark.parametrize("source", ["text", "passages"])
def test_bytes_that_are_not_utf_8_are_named_by_their_place_in_the_file(tmp_path, source, monkeypatch):
    start = "\ufeffgröße\n".encode()
    (tmp_path / "a.txt").write_bytes(start + b"gr\xf6\xdfe\n")
    monkeypatch.setattr("mdm_jax.data.sources.plain_text.READ_BYTES", 5)
    place = f"byte {len(start) + 2}: not UTF-8 (invalid start byte): convert the file, with iconv -f latin1 -t utf-8"
    with pytest.raises(ValueError, match=r"a\.txt: (line 2, )?" + re.escape(place)):
        read(source, tmp_path)


def test_jsonl_plain_gzip_and_zstandard_read_the_same(tmp_path):
    plain = tmp_path / "a.jsonl"
    write_jsonl(plain, TEXTS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        assert read("jsonl", tmp_path / name) == TEXTS
    assert read("jsonl", tmp_path) == TEXTS, "the same text in three files counts once"


def test_parquet_reads_the_named_column(tmp_path):
    table = pyarrow.table({"id": range(50), "body": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    assert read("parquet", tmp_path, text_field="body") == TEXTS
    with pytest.raises(ValueError, match=r"a\.parquet: no text column 'text'; its columns: id, body"):
        read("parquet", tmp_path)
    with pytest.raises(ValueError, match="no text column 'id'"):
        read("parquet", tmp_path, text_field="id")


def test_repeated_and_empty_documents_are_left_out(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["one", "two\r\n", "", "  \n", "one", "two\n", "three"])
    assert read("jsonl", path) == ["one", "two\n", "three"]


def test_reading_stops_after_max_bytes(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    some = read("jsonl", path, max_bytes=2000)
    assert some == TEXTS[: len(some)]
    assert sum(len(t.encode()) for t in some[:-1]) < 2000 <= sum(len(t.encode()) for t in some)


def test_half_a_surrogate_pair_does_not_stop_the_reading(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "bad \\ud800 half"}\n')
    assert read("jsonl", tmp_path) == ["bad ? half"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nonsense", "line 3: not JSON"),
        ('["text"]', "line 3: no text in field 'text'"),
        ('{"body": "x"}', "line 3: no text in field 'text'; its fields: body"),
        ('{"text": 3}', "line 3: no text in field"),
        ("[" * 100_000, "line 3: not JSON"),
        (b'{"text": "\xff"}', "line 3, byte 28: not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    raw = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "good"}\n\n' + raw + b"\n")
    with pytest.raises(ValueError, match=re.escape(f"bad.jsonl: {message}")):
        read("jsonl", tmp_path)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "no such format"])
def test_a_damaged_compressed_file_is_named(tmp_path, suffix, damage):
    plain = "".join(json.dumps({"text": text}) + "\n" for text in texts(5000)).encode()
    packed = gzip.compress(plain) if suffix == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(plain)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 64
    content = {"cut": packed[:-8], "flipped": bytes(flipped), "no such format": plain}[damage]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.jsonl\.{suffix}: "):
        read("jsonl", tmp_path)


def test_a_damaged_parquet_file_is_named(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for content in (whole[:-20], whole[: len(whole) // 2], b"", b"text"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.parquet: not a readable Parquet file"):
            read("parquet", tmp_path)


@pytest.mark.parametrize("source", ["text", "jsonl", "parquet"])
def test_an_empty_or_absent_corpus_is_said(tmp_path, source):
    with pytest.raises(ValueError, match="holds no file"):
        read(source, tmp_path)
    with pytest.raises(ValueError, match="no such file, folder or glob"):
        read(source, tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no file"):
        read(source, tmp_path / "*.none")


def test_files_without_text_are_an_empty_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="corpus text: no text in "):
        read("text", tmp_path)


DOCS = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()


@pytest.fixture(scope="module")
def tfds_directory(tmp_path_factory):
    """A TFDS builder directory in the ArrayRecord format, made without TensorFlow by the program of docs/data.md."""
    folder = tmp_path_factory.mktemp("tfds")
    write_jsonl(folder / "texts.jsonl", TEXTS)
    program = (
        DOCS.partition("```python\n")[2].partition("```")[0] + "import sys; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, check=True)
    return str(folder / "tfds" / "my_texts" / "1.0.0")


def test_every_command_of_the_documentation_prepares_a_corpus(tfds_directory, tmp_path, monkeypatch, capsys):
    """The Parquet files are named and shaped as the Hub gives them."""
    monkeypatch.chdir(tmp_path)
    Path("tfds").symlink_to(Path(tfds_directory).parents[1])
    Path("books").mkdir()
    for i, text in enumerate(texts(40)):
        Path("books", f"{i}.txt").write_text(text)
    Path("book.txt").write_text(" ".join(texts(400)))
    hub = Path("stories", "data")
    hub.mkdir(parents=True)
    for name, seed in (("train-00000-of-00002", 1), ("train-00001-of-00002", 2), ("validation-00000-of-00001", 3)):
        table = pyarrow.table({"text": texts(400, seed), "url": [f"https://{i}" for i in range(400)]})
        pyarrow.parquet.write_table(table, hub / f"{name}-0123456789abcdef.parquet", row_group_size=100)
    Path("text").mkdir()
    write_jsonl(Path("text", "a.jsonl"), texts(400))
    genome = "".join(np.random.default_rng(0).choice(list("ACGT"), 400_000))
    Path("genome.fna.gz").write_bytes(gzip.compress(f">one\n{genome}\n".encode()))
    Path("gpt2").mkdir()
    gpt2 = json.loads(byte_level(texts(40), 300))
    gpt2["model"]["vocab"] |= {f"unused {i}": i for i in range(len(gpt2["model"]["vocab"]), 50257)}
    Path("gpt2", "tokenizer.json").write_text(json.dumps(gpt2))
    commands = re.findall(r"^python -m mdm_jax\.data\.prepare (.*)$", DOCS, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        words = shlex.split(command)
        more = ["--jobs", "1"]
        more += [] if "--validation-fraction" in words else ["--validation-fraction", "0.2"]  # for 50 texts
        assert prepare([*words, *more]) == 0, capsys.readouterr().err
    manifest = read_manifest("data/stories")
    assert manifest.train.documents + manifest.validation.documents == 800, "the Hub's own validation text stays out"


def test_tfds_gives_every_record_without_tensorflow(tfds_directory):
    code = (
        "import sys; from mdm_jax.data.sources.pieces import labelled;"
        "from mdm_jax.spec import CorpusSpec, CorpusSource;"
        f"d = [document.text for document in labelled(CorpusSpec(CorpusSource.TFDS, {tfds_directory!r}), 0.02)];"
        "assert 'tensorflow' not in sys.modules; import json; print(json.dumps(d))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(json.loads(out.stdout)) == sorted(TEXTS)


def test_tfds_in_pieces_gives_every_record_once(tfds_directory):
    corpus = CorpusSpec(CorpusSource.TFDS, tfds_directory)
    pieces = pieces_of(corpus, piece_records=7)
    assert len(pieces) == 8
    assert sum(piece.weight for piece in pieces) == len(TEXTS)
    found = [document.text for piece in pieces for document in read_piece(corpus, piece, 0.1)]
    assert found == documents(corpus)


def test_tfds_refuses_what_it_cannot_read_whole(tfds_directory, tmp_path):
    with pytest.raises(ValueError, match="no feature 'body'; it has text"):
        read("tfds", tfds_directory, text_field="body")
    with pytest.raises(ValueError, match=r"dataset_info\.json: no such file: corpus\.path must be a TFDS"):
        read("tfds", tmp_path)
    (tmp_path / "dataset_info.json").write_text('{"name": "tiny", "version": "1.0.0", "fileFormat": "parquet"}')
    with pytest.raises(ValueError, match="file format parquet: write it with file_format='array_record'"):
        read("tfds", tmp_path)


def test_tfds_names_a_damaged_directory(tfds_directory, tmp_path):
    for name in os.listdir(tfds_directory):
        with open(os.path.join(tfds_directory, name), "rb") as file:
            content = bytearray(file.read())
        if "array_record" in name:
            content[300] ^= 255
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path}: a file of the split 'train' is absent or corrupt"):
        read("tfds", tmp_path)


def test_the_documentation_corpus_is_english_and_code():
    some = documents(CorpusSpec(max_bytes=400_000))
    text = " ".join(some)
    words = re.findall(r"[a-z]+", text.lower())
    assert 0.03 < words.count("the") / len(words) < 0.09, "English is about 5% 'the'"
    assert text.count(">>> ") > 50
    assert min(map(len, some)) >= 100
    assert len(some) == len(set(some))
    assert sum(map(str.isalpha, text)) + sum(map(str.isspace, text)) > 0.8 * len(text)


def test_the_documentation_corpus_does_not_depend_on_the_process():
    code = (
        "import hashlib; from mdm_jax.data.sources.pieces import labelled; from mdm_jax.spec import CorpusSpec;"
        "texts = [document.text for document in labelled(CorpusSpec(max_bytes=300_000), 0.02)];"
        "print(hashlib.sha256('|'.join(texts).encode()).hexdigest())"
    )
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    environment = {**os.environ, "PYTHONHASHSEED": "77", "LC_ALL": "C", "HOME": "/"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert here == there.stdout


def test_a_larger_documentation_corpus_begins_with_the_smaller_one():
    small, large = (documents(CorpusSpec(max_bytes=size)) for size in (50_000, 100_000))
    everything = [document.text for document in itertools.islice(pydoc_documents(), 2 * len(large))]
    for some in (small, large):
        places = [everything.index(text) for text in some]
        assert places == sorted(places)
        dropped = places[-1] + 1 - len(some)
        assert dropped <= 0.1 * len(some), "what is left out repeats another document, or training text"


@pytest.mark.slow
def test_the_whole_documentation_corpus_measures_generalisation():
    """Ten to twenty megabytes, enough validation text for any tokenizer, and none of it in the training text."""
    validation, training = [], []
    for document in labelled(CorpusSpec(), DataSpec.validation_fraction):
        (validation if document.validation else training).append(document.content)
    size = sum(map(len, validation + training))
    assert 10e6 < size < 20e6
    held = sum(map(len, validation))
    assert held > 4 * EvaluationSpec.eval_tokens
    assert 0.9 < held / size / DataSpec.validation_fraction < 1.1
    counts = np.maximum(0, np.array([len(content) for content in validation]) - WINDOW_BYTES + 1)
    shared = np.array(shared_windows(validation, training)) @ counts / counts.sum()
    assert shared < 0.001, "27% with a split by document"
