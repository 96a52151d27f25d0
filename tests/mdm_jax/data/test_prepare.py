"""Preparing is idempotent, all or nothing, and splits by content; shards that differ from their manifest are named."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from limited import NO_BYTECODE
from small_corpus import data_spec, flags, prepared, texts, write_jsonl

from mdm_jax.data.manifest import read_manifest
from mdm_jax.data.prepare import main, prepare
from mdm_jax.data.sources.holdout import in_validation as digest_in_validation
from mdm_jax.data.store import open_split


def in_validation(text, fraction):
    return digest_in_validation(hashlib.sha256(text.encode()).digest(), fraction)


def content(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_shards_hold_the_documents_in_order_with_eos_after_each(tmp_path):
    data = prepared(tmp_path)
    manifest = read_manifest(data.directory)
    for name in ("train", "validation"):
        own = [text for text in texts(300) if in_validation(text, 0.2) == (name == "validation")]
        expected = b"".join(text.encode() + b"\xff" for text in own)  # 0xff occurs in no UTF-8
        store = open_split(data.directory, name)
        tokens = np.asarray(store.tokens(0, len(store)))
        assert bytes(np.where(tokens == 256, 255, tokens).astype(np.uint8)) == expected
        split = manifest.split(name)
        assert (split.documents, split.tokens) == (len(own), len(expected))
        assert split.text_bytes == len(expected) - len(own)


def test_adding_documents_moves_no_other():
    fraction = 0.1
    before = {text: in_validation(text, fraction) for text in texts(3000)}
    share = sum(before.values()) / len(before)
    assert abs(share - fraction) < 5 * (fraction * (1 - fraction) / len(before)) ** 0.5
    assert all(in_validation(text, 0.2) for text, held in before.items() if held), "a larger fraction only adds"


def test_preparing_again_leaves_everything_as_it_is(tmp_path, capsys):
    data = data_spec(tmp_path)
    assert main(flags(data)) == 0
    assert "prepared\ntrain: " in capsys.readouterr().out
    before = content(data.directory)
    stamps = {file.name: file.stat().st_mtime_ns for file in Path(data.directory).iterdir()}
    assert main(flags(data, "--verify")) == 0
    assert "already prepared" in capsys.readouterr().out
    assert stamps == {file.name: file.stat().st_mtime_ns for file in Path(data.directory).iterdir()}
    assert main(flags(data, "--force")) == 0
    assert "already" not in capsys.readouterr().out
    assert content(data.directory) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".prepared.lock", "corpus.jsonl", "prepared"]


def test_an_experiment_file_says_what_to_prepare(tmp_path, capsys):
    data = data_spec(tmp_path)
    experiment = tmp_path / "experiment.py"
    experiment.write_text(
        "import ml_collections\nfrom mdm_jax.config import default_run\n\n\ndef get_config():\n"
        "    run = default_run()\n    with run.unlocked():\n"
        f"        run.data.corpus.source = 'jsonl'\n        run.data.corpus.path = {data.corpus.path!r}\n"
        f"        run.data.directory = {data.directory!r}\n"
        "    return ml_collections.ConfigDict({'run': run}).lock()\n"
    )
    assert main(["--config", str(experiment), "--set", "run.data.validation_fraction=0.3"]) == 0
    assert read_manifest(data.directory).validation_fraction == 0.3
    assert main(["--config", str(experiment)]) == 1
    said = capsys.readouterr().err
    assert "prepared with another data.validation_fraction (0.3, not 0.02): prepare again with --force" in said
    assert main(["--config", str(experiment), "--set", "run.data.validation_fractoin=0.3"]) == 1
    assert "did you mean run.data.validation_fraction?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --config FILE, or --corpus SOURCE and --out DIR"),
        (["--corpus", "nonsense", "--out", "x"], "invalid choice: 'nonsense'"),
        (["--corpus", "text", "--out", "x"], "data.corpus.path = '': must be given for every source but pydoc"),
        (["--corpus", "text", "--path", "absent", "--out", "x"], "no such file, folder or glob"),
        (["--corpus", "text", "--path", ".", "--out", "x"], "holds no file"),
        (["--corpus", "pydoc", "--vocab-size", "300", "--out", "x"], "must be 257 for bytes"),
        (["--corpus", "pydoc", "--validation-fraction", "1", "--out", "x"], "between 0 and 1"),
        (["--corpus", "pydoc", "--max-bytes", "1", "--out", "x"], "the validation split has no document"),
        (["--corpus", "pydoc", "--jobs", "0", "--out", "x"], "--jobs = 0: must be at least 1 process"),
        (["--config", "absent.py"], "must be an experiment file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in one_line(main, arguments, capsys)
    assert not [path for path in tmp_path.iterdir() if path.name != ".x.lock"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path, capsys):
    data = data_spec(tmp_path)
    Path(data.directory).mkdir()
    (tmp_path / "prepared" / "thesis.tex").write_text("years of work")
    assert main(flags(data, "--force")) == 1
    assert "holds thesis.tex, which is no shard" in capsys.readouterr().err
    assert (tmp_path / "prepared" / "thesis.tex").read_text() == "years of work"


def start(data, *more, **arguments):
    command = [sys.executable, "-m", "mdm_jax.data.prepare", *flags(data, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **arguments)


@pytest.mark.parametrize("force", [False, True])
def test_a_killed_preparation_leaves_nothing_half_valid(tmp_path, force):
    data = data_spec(tmp_path)
    before = {}
    if force:
        prepare(data)
        before = content(data.directory)
    write_jsonl(Path(data.corpus.path), texts(100_000, seed=1))
    process = start(data, *(["--force"] if force else []))
    begun = tmp_path / ".prepared.partial" / "train-00000.bin"
    while not (begun.is_file() and begun.stat().st_size > 100_000) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was not interrupted"
    if force:
        assert content(data.directory) == before
    else:
        assert not Path(data.directory).exists()
    write_jsonl(Path(data.corpus.path), texts(300))
    manifest, made = prepare(data, force=force)
    assert made
    assert manifest.train.documents + manifest.validation.documents == 300
    assert not (tmp_path / ".prepared.partial").exists()


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    data = prepared(tmp_path)
    before = content(data.directory)
    write_jsonl(Path(data.corpus.path), texts(3000, seed=1))
    process = start(data, "--force", env=os.environ | NO_BYTECODE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # long before it can write
    said = process.communicate()[1]
    assert process.returncode == 1
    assert said.startswith("mdm_jax: ")
    assert "File too large" in said
    assert said.count("\n") == 1
    assert content(data.directory) == before


def test_two_preparations_at_once_make_one_corpus(tmp_path):
    data = data_spec(tmp_path, count=20_000)
    processes = [start(data) for _ in range(2)]
    said = sorted(process.communicate()[0].splitlines()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert said == ["already prepared: left as it is", "prepared"]
    open_split(data.directory, "train")


def test_help_is_quick_and_needs_no_jax():
    code = (
        "import sys; from mdm_jax.data.prepare import main\ntry: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\nassert 'jax' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--validation-fraction" in out.stdout
