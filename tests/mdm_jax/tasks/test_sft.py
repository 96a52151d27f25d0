"""`python -m mdm_jax.tasks.sft`: from a model of any kind to a fine-tuned one that generates, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line
from json_tokenizers import llama
from pair_corpus import sums, write_pairs
from smdm_files import write_random
from tiny_runs import quick_compilation

from mdm_jax import load
from mdm_jax.data.corpus import open_corpus
from mdm_jax.files.layout import plan_lines, read_spec
from mdm_jax.files.results import read_result
from mdm_jax.files.storage import Path as StoredPath
from mdm_jax.files.storage import as_path
from mdm_jax.run.added_likelihoods import add_likelihoods
from mdm_jax.spec import Attention, Family, Likelihood, TokenizerKind
from mdm_jax.tasks.sft import Settings, changed, data_spec, fine_tuning, main
from mdm_jax.train.loop import Watch
from mdm_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("compiled_quickly", "sigterm_handler")
ROW = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[Family, Path]:
    folder = tmp_path_factory.mktemp("models")
    kinds = {Family.MDM: Attention.BIDIRECTIONAL, Family.ARM: Attention.CAUSAL}
    return {family: write_random(folder / f"{family}.safetensors", kind, ROW) for family, kind in kinds.items()}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", sums(100))


def only_run(out: Path) -> StoredPath:
    """The folder of the only run below `out`."""
    (folder,) = as_path(out / "runs").iterdir()
    return folder


def test_a_fine_tuned_model_generates_and_can_be_fine_tuned_again(models, pairs, tmp_path, capfd):
    out = tmp_path / "out"
    words = ["--pairs", pairs, "--out", str(out), "--batch", "16", "--validation-fraction", "0.4"]
    assert main([str(models[Family.MDM]), *words, "--epochs", "4", "--lr", "0.003"]) == 0
    folder = only_run(out)
    said = capfd.readouterr().out
    assert f"the model: {folder}" in said
    result, spec = read_result(folder / "result.json"), read_spec(folder)
    assert (result.epochs or 0) == pytest.approx(4, abs=0.5)
    assert (spec.start.path, spec.model.vocab_size, spec.data.seq_len) == (str(models[Family.MDM]), 257, ROW)
    losses = [row["loss"] for row in read_metrics(folder / "metrics")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    model = load(folder)
    assert model.generate("3+9=", 3)[0].prompt == "3+9="
    again = ["--pairs", pairs, "--out", str(tmp_path / "again"), "--validation-fraction", "0.4", "--plan-only"]
    assert main([str(folder), *again, "--seq-len", "14"]) == 0
    (line,) = plan_lines(as_path(tmp_path / "again" / "plan.jsonl"))
    assert (line.run().start.path, line.run().data.seq_len) == (str(folder), 14)


def test_the_loss_of_the_run_is_that_of_the_pairs(models, pairs, tmp_path):
    """An ARM's final loss by its log-likelihoods of the same responses, with their EOS; and its texts."""
    words = ["--pairs", pairs, "--out", str(tmp_path), "--batch", "16", "--validation-fraction", "0.4"]
    assert main([str(models[Family.ARM]), *words, "--epochs", "1"]) == 0
    folder = only_run(tmp_path)
    spec, model = read_spec(folder), load(folder)
    rows_SL = open_corpus(spec.data).evaluation_rows(spec.evaluation.eval_tokens)
    asked = [(-1 - row_L[row_L < 0], row_L[(row_L >= 0) & (row_L < 257)]) for row_L in rows_SL]
    assert model.generate("3+9=", 3)[0].prompt == "3+9="
    scores = model.loglikelihood(asked)
    expected = -sum(score.loglikelihood for score in scores) / sum(score.tokens for score in scores)
    assert read_result(folder / "result.json").loss == pytest.approx(expected, rel=1e-5)
    assert "left out, its rows are pairs" in add_likelihoods(folder, [Likelihood.CONFIDENCE], Watch())


def test_the_same_command_twice_is_one_run_and_other_settings_are_another(models, pairs, tmp_path, capfd):
    words = [str(models[Family.MDM]), "--pairs", pairs, "--out", str(tmp_path), "--plan-only"]
    words += ["--validation-fraction", "0.4"]
    for more in ([], [], ["--drop-prompt", "0.1"], ["--eos-to-end"], ["--set", "optim.weight_decay=0.0"]):
        assert main([*words, *more]) == 0
    assert main([*words, "--devices", "1", "--batch", "1000"]) == 0
    runs = [line.run() for line in plan_lines(as_path(tmp_path / "plan.jsonl"))]
    assert len({run.run_id for run in runs}) == len(runs) == 5
    assert [run.objective.drop_prompt for run in runs] == [0.0, 0.1, 0.0, 0.0, 0.0]
    assert [run.optim.weight_decay for run in runs] == [0.1, 0.1, 0.1, 0.0, 0.1]
    assert [run.hardware.mesh_data for run in runs] == [8, 8, 8, 8, 1]
    held = len(open_corpus(runs[0].data).train_pairs)
    assert [run.optim.global_batch for run in runs[::4]] == [held // 16 * 16, held // 2 * 2]
    assert "next: python -m mdm_jax.main --plan" in capfd.readouterr().out


def test_few_validation_pairs_are_all_read_but_one(models, pairs, tmp_path):
    model, path = load(models[Family.MDM]), str(models[Family.MDM])
    assert main([path, "--pairs", pairs, "--out", str(tmp_path), "--plan-only", "--validation-fraction", "0.5"]) == 0
    settings = Settings(validation_fraction=0.5)
    corpus = open_corpus(data_spec(model, path, pairs, str(tmp_path), settings))
    run = fine_tuning(model, path, corpus, settings)
    held = len(corpus.validation_pairs)
    assert held - run.evaluation.eval_tokens // ROW in (0, 1)
    assert run.evaluation.eval_tokens // ROW % run.evaluation.batch == 0
    assert changed(run, []) == run
    assert changed(run, ["optim.b2=0.99", "seed=3"]).run_id != run.run_id


@pytest.mark.parametrize("name", ["mdm", "ar"])
def test_published_weights_with_fewer_pieces_than_their_vocabulary(reference_data, tmp_path, name):
    """Random weights under SMDM's names: 96 ids, of which the tokenizer beside them has 90."""
    for file in (f"{name}.safetensors", "config.json"):
        shutil.copy(reference_data / "smdm_golden" / file, tmp_path)
    pairs = [{"prompt": f"is {i} small?", "response": "yes" if i < 20 else "no"} for i in range(50)]
    tokenizer = json.loads(llama([pair["prompt"] for pair in pairs] * 3, 360))
    tokenizer["model"]["vocab"] = {piece: i for i, piece in enumerate(sorted_pieces(tokenizer))}
    tokenizer["model"]["merges"], tokenizer["model"]["byte_fallback"] = [], False
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    path, settings = str(tmp_path / f"{name}.safetensors"), Settings(validation_fraction=0.4)
    words = ["--pairs", write_pairs(tmp_path / "p.jsonl", pairs), "--out", str(tmp_path / "out"), "--plan-only"]
    assert main([path, *words, "--validation-fraction", "0.4", "--batch", "16"]) == 0
    model = load(path)
    data = data_spec(model, path, words[1], words[3], settings)
    assert (data.tokenizer.kind, data.tokenizer.vocab_size) == (TokenizerKind.TOKENIZER_JSON, 96)
    corpus = open_corpus(data)
    row_L = corpus.train_pairs.row(0)
    assert row_L.max() == 96
    shown = corpus.tokenizer.decode(-1 - row_L[row_L < 0])
    assert shown in {pair["prompt"] for pair in pairs}
    run = fine_tuning(model, path, corpus, settings)
    assert run.model.vocab_size == corpus.manifest.vocab_size == 96 > corpus.tokenizer.vocab_size


def sorted_pieces(tokenizer: dict) -> list[str]:
    """The pieces that are no bytes: the special ones, and single characters."""
    vocabulary = tokenizer["model"]["vocab"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    return [piece for piece in pieces if not piece.startswith("<0x") and (len(piece) == 1 or piece.startswith("<"))]


REFUSED = [
    (["--epochs", "0"], "epochs = 0.0: must be above 0"),
    (["--batch", "1"], "batch = 1: must be at least 2 pairs"),
    (["--lr", "-1"], "optim.lr_peak = -1.0: must be between 0 and 10"),
    (["--drop-prompt", "1"], "objective.drop_prompt = 1.0: must be at least 0 and below 1"),
    (["--drop-prompt", "0.1", "--score-prompt"], "objective.drop_prompt = 0.1: must be 0 unless"),
    (["--set", "optim.lr=1"], "unknown key optim.lr; known are b1"),
    (
        ["--validation-fraction", "0.1"],
        "must be at least 2 for each device: 16; give more pairs",
    ),
    (["--validation-fraction", "0.001"], "the validation split has no document"),
    (["--seq-len", "1"], "seq_len = 1: must be 0 (the model's), or at least 2"),
    (["--seq-len", "2"], "data.seq_len = 2: must be at least"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_wrong_call_is_refused_in_one_line(models, pairs, tmp_path, words, said, capfd):
    call = [
        str(models[Family.MDM]),
        "--pairs",
        pairs,
        "--out",
        str(tmp_path),
        "--plan-only",
        "--validation-fraction",
        "0.4",
        *words,
    ]
    assert said in one_line(main, call, capfd)
    assert not (tmp_path / "plan.jsonl").exists()


def test_what_a_model_or_a_file_does_not_have_is_named(models, pairs, tmp_path, capfd):
    out = ["--out", str(tmp_path / "out"), "--plan-only", "--validation-fraction", "0.4"]
    words = ["--pairs", pairs, *out, "--drop-prompt", "0.1"]
    assert "the ARM: it has no MASK" in one_line(main, [str(models[Family.ARM]), *words], capfd)
    assert "absent: no such file" in one_line(main, ["absent", "--pairs", pairs, *out], capfd)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "response": ""}\n')
    words = ["--pairs", str(bad), "--out", str(tmp_path / "bad"), "--plan-only"]
    assert f"{bad}: line 1: the response is empty" in one_line(main, [str(models[Family.MDM]), *words], capfd)


def test_help_names_the_formats(capfd):
    with quick_compilation(), pytest.raises(SystemExit):
        main(["--help"])
    shown = capfd.readouterr().out
    assert "a Hugging Face folder" in shown
    assert "`prompt`" in shown
