"""`python -m mdm_jax.tasks.classify`: on every kind of model, and one line for bad input."""

import csv
import gzip
import random
import re

import numpy as np
import pytest
from command_line import one_line
from golden_models import golden_copies
from small_corpus import WORDS
from smdm_files import random_weights, write_random

from mdm_jax import load
from mdm_jax.interop.smdm.weights import write_smdm
from mdm_jax.spec import Attention, Family, ModelSpec
from mdm_jax.tasks.classify.__main__ import main

pytestmark = pytest.mark.usefixtures("compiled_quickly")
QUICK = ["--epochs", "1", "--batch", "16"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> str:
    """Words of which the label is the first letter's half of the alphabet."""
    draw = random.Random(0)
    lines = []
    for i in range(120):
        text = f"{draw.choice(WORDS)} {i}"
        lines.append(f"{text},{'early' if text < 'm' else 'late'}\n")
    path = tmp_path_factory.mktemp("examples") / "words.csv"
    path.write_text("text,label\n" + "".join(lines))
    return str(path)


def table(folder, name) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_a_file_and_a_folder_are_compared_with_fresh_weights(shop, tmp_path, examples, capsys):
    spec = shop.spec(Family.ARM)
    run = shop.undisturbed(spec) / spec.run_id
    file = write_random(tmp_path / "mdm.safetensors", Attention.BIDIRECTIONAL, seq_len=8)
    load(file).export_hf(tmp_path / "folder")
    models = [str(run), str(file), str(tmp_path / "folder")]
    assert main([*models, examples, "--out", str(tmp_path / "out"), "--seeds", "5", *QUICK]) == 0
    out, said = capsys.readouterr()
    assert said.count("training loss") == 6
    scores = table(tmp_path / "out", "scores")
    names = [name for model in models for name in (model, f"{model} (from scratch)")]
    assert [row["trunk"] for row in scores] == names
    assert [row["family"] for row in scores] == ["arm"] * 2 + ["mdm"] * 4
    predictions = table(tmp_path / "out", "predictions")
    for row in scores:
        right = np.mean([p[f"{row['trunk']} seed 5"] == p["label"] for p in predictions])
        assert float(row["accuracy"]) == pytest.approx(right)
        assert float(row["accuracy_lower"]) <= float(row["accuracy"]) <= float(row["accuracy_upper"])
    same = {k: v for k, v in scores[2].items() if k not in ("trunk", "seconds")}
    assert same == {k: v for k, v in scores[4].items() if k not in ("trunk", "seconds")}
    differences = table(tmp_path / "out", "differences")
    assert len(differences) == 15
    assert (tmp_path / "out" / "accuracy.svg").read_text().count("from scratch") >= 3
    assert f"{len(predictions)} test texts, 2 labels" in out


def test_published_weights_classify_with_a_tokenizer_beside_them(reference_data, tmp_path, examples, capsys):
    models = golden_copies(reference_data, tmp_path, "mdm", "ar")
    flags = ["--freeze", "--no-scratch", "--seeds", "3", "--pool", "last", *QUICK]
    assert main([*models, examples, "--out", str(tmp_path / "out"), *flags]) == 0
    assert [row["family"] for row in table(tmp_path / "out", "scores")] == ["mdm", "arm"]
    assert table(tmp_path / "out", "scores")[0]["accuracy_se_seeds"] == ""


def test_a_model_of_nucleotides_needs_no_tokenizer_and_cuts_long_sequences(tmp_path, capsys):
    spec = ModelSpec(1, 16, 2, 24, 6, Attention.BIDIRECTIONAL)
    write_smdm(tmp_path / "dna", random_weights(spec), spec, 8, True)
    records = [f">{i} label={'xy'[i % 2]}\n{'ACGT'[i % 4] * (6 + i % 4)}\n" for i in range(40)]
    with gzip.open(tmp_path / "a.fa.gz", "wt") as file:
        file.write("".join(records))
    words = [str(tmp_path / "dna"), str(tmp_path / "a.fa.gz")]
    test = ["--test", str(tmp_path / "a.fa.gz")]
    assert main([*words, *test, "--out", str(tmp_path / "out"), "--seeds", "0", "--no-scratch", *QUICK]) == 0
    out, said = capsys.readouterr()
    assert "20 texts are longer than its rows of 8 tokens and were cut" in said
    assert "WARNING: 40 test texts are training texts too" in out
    assert table(tmp_path / "out", "scores")[0]["cut"] == "20"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seeds", "1", "1"], r"--seeds = \[1, 1\]: must be different numbers"),
        (["--held-out", "0"], r"--held-out = 0\.0: must be between 0 and 1"),
        (["--epochs", "0"], "--epochs = 0: must be from 1"),
        (["--test", "absent.csv"], r"examples = 'absent\.csv'"),
        (["--pool", "first"], "invalid choice: 'first'"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(tmp_path, examples, capsys, flags, said):
    model = str(write_random(tmp_path / "model", Attention.CAUSAL))
    line = one_line(main, [model, examples, "--out", str(tmp_path / "out"), *flags], capsys)
    assert re.search(said, line)
    assert not (tmp_path / "out").exists()


def test_bad_models_and_labels_are_one_line(tmp_path, examples, capsys):
    model, out = str(write_random(tmp_path / "model", Attention.CAUSAL)), str(tmp_path / "out")
    assert "MODEL = " in one_line(main, [model, model, examples, "--out", out], capsys)
    assert "absent" in one_line(main, [str(tmp_path / "absent"), examples, "--out", out], capsys)
    one = tmp_path / "one.csv"
    one.write_text("text,label\n" + "a,x\n" * 30)
    said = one_line(main, [model, str(one), "--out", out], capsys)
    assert "labels to train on = \"all 30 are 'x'\": must be of at least two classes" in said
    assert not (tmp_path / "out" / "scores.csv").exists()
