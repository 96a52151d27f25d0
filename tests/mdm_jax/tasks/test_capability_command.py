"""`python -m mdm_jax.tasks.capability`: its files and errors, and the three kinds of models that it takes."""

import csv
import json
import shutil

import numpy as np
import pytest
from command_line import one_line
from golden_models import golden_copies
from small_corpus import texts
from smdm_files import write_random

from mdm_jax import load
from mdm_jax.files.storage import as_path
from mdm_jax.spec import Attention, Family
from mdm_jax.tasks.capability.__main__ import finished_models, main
from mdm_jax.tasks.capability.measure import Questions, measure
from mdm_jax.tasks.capability.questions import Task, right_answers
from mdm_jax.tasks.capability.table import read_table, table_csv
from mdm_jax.tasks.model_paths import name_of

pytestmark = pytest.mark.usefixtures("compiled_quickly")
FEW = ["--questions", "4"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("\n".join(texts(60)))
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    kinds = {"mdm": Attention.BIDIRECTIONAL, "arm": Attention.CAUSAL}
    return {name: str(write_random(folder / f"{name}.safetensors", kind, seq_len=32)) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def measured(weights, text, tmp_path_factory):
    """The folder of both models' answers, and what was printed."""
    out = tmp_path_factory.mktemp("out")
    assert main([*weights.values(), "--text", text, "--out", str(out), *FEW]) == 0
    return out


def test_a_table_and_the_answers_of_each_model_are_written(measured, weights, text, capsys):
    assert sorted(path.name for path in measured.iterdir()) == ["models", "table.csv"]
    with (measured / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"mdm", "arm"}
    assert {row["task"] for row in rows} == set(Task)
    assert {row["loss"] for row in rows} == {""}
    for row in rows:
        shares = np.array(row["right"].split(), float) * float(row["chance"])
        assert float(row["accuracy"]) == pytest.approx(shares.mean(), abs=1e-4)
    before = (measured / "table.csv").read_bytes()
    capsys.readouterr()
    assert main([*weights.values(), "--text", text, "--out", str(measured), *FEW]) == 0
    printed = capsys.readouterr()
    assert "measured" not in printed.err, "the models had their answers"
    assert "no comparison at equal loss: ARM runs with a loss = 0" in printed.out
    assert (measured / "table.csv").read_bytes() == before


@pytest.mark.parametrize("family", ["mdm", "arm"])
def test_an_answer_is_the_likeliest_target(measured, weights, text, family):
    """Recomputed from the logits: each target's tokens one after the other, as either family reads them."""
    model = load(weights[family])
    questions = Questions([text], 4, 0).of(model)
    rows, kept = measure(weights[family], Questions([text], 4, 0), as_path(measured))
    assert kept
    for one, row in zip(questions, rows, strict=True):
        if (one.task, one.size) in ((Task.RECALL, 2), (Task.COPY, 4)):
            group, right = one.groups[0], row.answers.right_G[0]
            score_mm = np.array([[nats(model, prompt, target) for target in group.targets] for prompt in group.prompts])
            assert right_answers(score_mm) == right


def nats(model, prompt, target) -> float:
    """The log-likelihood of a target from the logits of rows that are cut or masked after each token."""
    v, total = model.spec.vocab_size, 0.0
    for i, token in enumerate(target):
        seen = np.concatenate([prompt, target[:i]]).astype(np.int32)
        if model.family is Family.MDM:
            row = np.concatenate([seen, np.full(len(target) - i, v, np.int32)])
            logits = np.asarray(model.logits(row[None]))[0, len(seen)]
        else:
            logits = np.asarray(model.logits(np.concatenate([[v], seen])[None].astype(np.int32)))[0, -1]
        logits = logits.astype(np.float64)
        total += logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    return float(total)


def test_damaged_answers_are_measured_again(weights, text, tmp_path):
    words = [weights["arm"], "--text", text, "--out", str(tmp_path), *FEW]
    assert main(words) == 0
    file, table = tmp_path / "models" / "arm.json", (tmp_path / "table.csv").read_bytes()
    whole = file.read_text()
    file.write_text(whole.replace('"right": [', '"right": [0, ', 1))
    assert main(words) == 0
    assert (file.read_text(), (tmp_path / "table.csv").read_bytes()) == (whole, table)


def test_other_questions_are_asked_again(weights, text, tmp_path):
    keys = []
    for seed in ("0", "1"):
        assert main([weights["arm"], "--text", text, "--out", str(tmp_path), *FEW, "--seed", seed]) == 0
        keys.append(json.loads((tmp_path / "models" / "arm.json").read_text())["key"])
    assert keys[0] != keys[1]


@pytest.mark.slow
def test_processes_share_the_models(measured, weights, text, tmp_path):
    """Each measures its share, and this process reads the answers."""
    out = tmp_path / "out"
    assert main([*weights.values(), "--text", text, "--out", str(out), *FEW, "--jobs", "2"]) == 0
    before, found = ((folder / "table.csv").read_text().splitlines() for folder in (measured, out))
    assert found == before


def test_published_weights_with_a_tokenizer_beside_them(reference_data, text, tmp_path):
    models = golden_copies(reference_data, tmp_path, "mdm", "ar")
    assert main([*models, "--text", text, "--out", str(tmp_path / "out"), *FEW]) == 0
    rows = read_table(as_path(tmp_path / "out" / "table.csv"))
    assert {(row.model, row.family) for row in rows} == {("mdm", "mdm"), ("ar", "arm")}


def test_a_sweep_and_a_hugging_face_folder(shop, tmp_path, capsys):
    """The run's text is its own validation text; the folder has none, and neither has a loss."""
    spec = shop.spec(Family.ARM)
    sweep = tmp_path / "sweep"
    shutil.copytree(shop.undisturbed(spec) / spec.run_id, sweep / "runs" / spec.run_id)
    run = str(sweep / "runs" / spec.run_id)
    (sweep / "runs" / "begun").mkdir()
    shutil.copy(f"{run}/spec.json", sweep / "runs" / "begun")
    assert finished_models([str(sweep), run]) == ([run], ["begun: left out, it has no result yet"])
    load(run).export_hf(tmp_path / "folder")
    out = tmp_path / "out"
    assert main([str(sweep), "--out", str(out), *FEW]) == 0
    rows = read_table(as_path(out / "table.csv"))
    assert {(row.model, row.run["loss"] is not None) for row in rows} == {(spec.run_id, True)}
    assert "absent" not in capsys.readouterr().err
    assert "name a text with --text" in one_line(main, [str(tmp_path / "folder"), "--out", str(out), *FEW], capsys)


def test_a_table_is_read_as_it_was_written(measured):
    text = (measured / "table.csv").read_text()
    assert table_csv(read_table(as_path(measured / "table.csv"))) == text


BROKEN = [
    ("mdm,mdm", "mdm,other", "line 2: family = 'other': must be arm or mdm"),
    (",copy,", ",sing,", "line 2: 'sing' is not a valid Task"),
    (",0.25,", ",7,", "line 2: chance = 7.0: must be above 0"),
    ("mdm,mdm,4", "mdm,mdm,1e999", "line 2: cannot convert float infinity"),
    (",,,,,", ",,,nan,,", "line 2: flops_exact = nan: must be above 0"),
    ("task,size", "wrong,size", "columns = 'without task'"),
]


@pytest.mark.parametrize(("was", "becomes", "said"), BROKEN)
def test_a_broken_table_is_named(measured, tmp_path, was, becomes, said, capsys):
    broken = tmp_path / "t.csv"
    broken.write_text((measured / "table.csv").read_text().replace(was, becomes, 1))
    assert said in one_line(main, [str(broken), "--out", str(tmp_path / "out")], capsys)


def test_a_model_twice_is_refused(measured, tmp_path, capsys):
    tables = [str(measured / "table.csv")] * 2
    said = one_line(main, [*tables, "--out", str(tmp_path / "out")], capsys)
    assert "mdm: rows of copy 4 = 'several': must be one: a model is there twice" in said


def test_a_path_from_inside_the_folder_names_the_model(weights, monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert (name_of("."), name_of("../mine/"), name_of("a/b.safetensors")) == ("mine", "mine", "b")


REFUSED = [
    (["--questions", "0"], "--questions = 0: must be from 1"),
    (["--seed", "-1"], "--seed = -1: must be at least 0"),
    (["--jobs", "0"], "--jobs = 0: must be at least 1"),
    (["--text", "absent.txt"], "absent.txt"),
    ([], "name a text with --text"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_wrong_call_is_refused_in_one_line(weights, tmp_path, words, said, capsys):
    assert said in one_line(main, [weights["arm"], "--out", str(tmp_path), *words], capsys)


def test_models_of_one_name_and_bad_texts_are_refused(weights, text, tmp_path, capsys):
    twin = shutil.copy(weights["arm"], tmp_path / "arm.safetensors")
    out = ["--out", str(tmp_path / "out"), "--text"]
    assert "another name than that of" in one_line(main, [weights["arm"], str(twin), *out, text], capsys)
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    assert "latin.txt: not UTF-8 (byte 3)" in one_line(main, [weights["arm"], *out, str(latin)], capsys)
    assert "absent: no such file" in one_line(main, ["absent", *out, text], capsys)
