"""The command, end to end on local files: tasks of each kind, both families, results and table, and refusals."""

import json
import math
import sys
from pathlib import Path

import lm_eval.tasks
import numpy as np
import pytest
from chain_rule import EOS, chain_rule
from command_line import one_line
from lm_eval.tasks import TaskManager
from local_tasks import CHOICE, ROLLING, write_tasks
from smdm_files import write_both

from mdm_jax import load
from mdm_jax.evaluate.harness import __main__ as command
from mdm_jax.evaluate.harness.__main__ import main
from mdm_jax.evaluate.harness.adapter import HarnessModel
from mdm_jax.evaluate.harness.estimators import PRESETS, Estimators
from mdm_jax.evaluate.harness.evaluation import evaluate_tasks
from mdm_jax.evaluate.harness.pairs import rolling_windows
from mdm_jax.evaluate.table import main as table
from mdm_jax.spec import Family
from mdm_jax.trained.model import Model

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROW = 16


@pytest.fixture(scope="module", autouse=True)
def no_network():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> str:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[Family, str]:
    return write_both(tmp_path_factory.mktemp("models"), ROW)


def evaluated(path, tasks, out, *flags, names="local_choice,local_cloze,local_rolling"):
    assert main([path, "--tasks", names, "--include-path", tasks, "--out", str(out), *flags]) == 0
    return json.loads(out.read_text())


def accuracy(model, divide) -> float:
    right = 0
    for row in CHOICE:
        scores = [chain_rule(model, row["question"].encode(), f" {of}".encode()) / divide(of) for of in row["choices"]]
        right += int(np.argmax(scores)) == row["gold"]
    return right / len(CHOICE)


def bits_per_byte(model) -> float:
    pages = [[*row["page"].encode()] for row in ROLLING]
    windows = [window for page in pages for window in rolling_windows(page, [EOS], ROW, 1)]
    nats = sum(chain_rule(model, bytes(x for x in of.prompt if x != EOS), bytes(of.target)) for of in windows)
    return -nats / math.log(2) / sum(map(len, pages))


@pytest.mark.parametrize("family", Family)
def test_the_metrics_are_those_of_scores_from_logits(paths, tasks, tmp_path, capsys, family):
    found = evaluated(paths[family], tasks, tmp_path / "out.json", "--method", "left_to_right")
    model, results = load(paths[family]), found["results"]
    assert results["local_choice"]["acc,none"] == accuracy(model, lambda _: 1)
    assert results["local_choice"]["acc_norm,none"] == accuracy(model, len)
    assert results["local_rolling"]["bits_per_byte,none"] == pytest.approx(bits_per_byte(model), rel=1e-5)
    cloze = [chain_rule(model, b"see the", b" dog"), chain_rule(model, b"go", b" up")]
    assert results["local_cloze"]["perplexity,none"] == pytest.approx(math.exp(-np.mean(cloze)), rel=1e-5)
    own = found["mdm_jax"]
    assert (own["family"], own["fingerprint"], own["name"]) == (family.value, model.fingerprint, paths[family])
    assert own["se_mc"]["local_choice"] == {"acc,none": 0.0, "acc_norm,none": 0.0}
    assert own["cut_contexts"] == {"local_choice": 2, "local_cloze": 0, "local_rolling": 0}
    windows = {"first_window_follows": "EOS", "later_windows_follow_tokens": 1, "tasks": ["local_rolling"]}
    assert own["rolling"] == windows
    shown = capsys.readouterr().out
    assert "local_choice   acc ↑" in shown
    assert f"{results['local_choice']['acc,none']:.4f} ± 0.2" in shown
    assert shown.splitlines()[-1].endswith("local_choice, local_cloze, local_rolling by left_to_right")


def test_monte_carlo_errors_stand_beside_those_over_documents(paths, tasks, tmp_path, capsys):
    both = [str(tmp_path / name) for name in ("mdm.json", "arm.json")]
    found = evaluated(paths[Family.MDM], tasks, tmp_path / "mdm.json", "--draws", "16", names="local_rolling")
    error = found["mdm_jax"]["se_mc"]["local_rolling"]["bits_per_byte,none"]
    assert 0 < error < 0.3 * found["results"]["local_rolling"]["bits_per_byte,none"]
    assert found["results"]["local_rolling"]["bits_per_byte_stderr,none"] == "N/A"
    evaluated(paths[Family.ARM], tasks, tmp_path / "arm.json", "--limit", "2", names="local_rolling")
    capsys.readouterr()
    assert table(both) == 0
    shown = capsys.readouterr().out
    assert f" ± ? ± {error:.4f}" in shown
    assert "the columns do not compare: documents: 3 in" in shown


def test_the_same_command_answers_from_its_cache(paths, tasks, tmp_path, monkeypatch):
    flags = ("--draws", "16", "--use-cache", str(tmp_path / "scores"))
    first = evaluated(paths[Family.MDM], tasks, tmp_path / "a.json", *flags)
    monkeypatch.setattr("mdm_jax.trained.model.Model.loglikelihood", lambda *_, **__: pytest.fail("scored again"))
    assert evaluated(paths[Family.MDM], tasks, tmp_path / "b.json", *flags) == first


@pytest.mark.parametrize("family", Family)
def test_a_task_of_generated_text_is_answered(paths, tasks, tmp_path, family):
    """Only the MDM has a number of steps. Its answers are random letters here, which match nothing."""
    flags = ["--steps", "2"] if family is Family.MDM else []
    found = evaluated(paths[family], tasks, tmp_path / "out.json", *flags, names="local_writing,local_cloze")
    assert found["results"]["local_writing"]["exact_match,none"] == 0
    sampler = "confidence" if family is Family.MDM else "ancestral"
    expected = {"sampler": sampler, "steps": 2 if flags else None, "block": None, "tasks": ["local_writing"]}
    assert found["mdm_jax"]["writing"] == expected
    assert found["mdm_jax"]["se_mc"]["local_writing"] == {}
    assert found["mdm_jax"]["se_mc"]["local_cloze"]


def test_ctrl_c_is_one_line_that_says_how_to_go_on(paths, tasks, tmp_path, monkeypatch, capsys):
    first = evaluated(paths[Family.MDM], tasks, tmp_path / "a.json", "--draws", "16")
    score, asked = Model.loglikelihood, []

    def stopped(self, pairs, **settings):
        if asked:
            raise KeyboardInterrupt
        asked.append(len(pairs))
        return score(self, pairs, **settings)

    words = [paths[Family.MDM], "--tasks", "local_choice,local_rolling", "--include-path", tasks, "--draws", "16"]
    with monkeypatch.context() as patched:
        patched.setattr(Model, "loglikelihood", stopped)
        assert main([*words, "--use-cache", str(tmp_path / "scores")]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"mdm_jax: interrupted: the same command goes on from {tmp_path / 'scores'}"
    flags = ("--draws", "16", "--use-cache", str(tmp_path / "scores"))
    assert evaluated(paths[Family.MDM], tasks, tmp_path / "b.json", *flags) == first


FAULTS = [
    ("local_choice.jsonl", '{"question": ', "DatasetGenerationError"),
    ("local_choice.jsonl", "", "StopIteration"),
    ("local_choice.jsonl", '{"question": "q", "gold": 7, "choices": ["a", "b"]}\n', "IndexError"),
    ("local_choice.jsonl", '{"question": "q", "gold": 0, "choices": ["", "b"]}\n', "IndexError"),
]


@pytest.mark.parametrize(("file", "content", "said"), FAULTS)
def test_a_fault_of_a_task_is_one_line(paths, tmp_path, capsys, file, content, said):
    tasks = write_tasks(tmp_path)
    (tmp_path / file).write_text(content)
    assert main([paths[Family.ARM], "--tasks", "local_choice", "--include-path", tasks]) == 1
    line = f"mdm_jax: tasks local_choice: the harness cannot use their settings or their data: {said}"
    assert capsys.readouterr().err.splitlines()[-1].startswith(line)


def test_an_error_of_the_model_stays_what_it_is(paths, tasks, monkeypatch):
    def broken(*_, **__):
        raise LookupError("of the model")

    monkeypatch.setattr(Model, "loglikelihood", broken)
    with pytest.raises(LookupError, match="of the model"):
        main([paths[Family.ARM], "--tasks", "local_choice", "--include-path", tasks])


REFUSED = [
    (["--tasks", "local_writing", "--steps", "0"], "steps = 0: must be from 1"),
    (["--tasks", ""], "tasks = []: must be at least one name"),
    (["--tasks", "local_choice", "--preset", "llada"], "preset = 'llada': must be one of smdm"),
    (["--tasks", "local_choice", "--method", "elbo"], "method = 'elbo': must be one of"),
    (["--tasks", "local_choice", "--draws", "1"], "draws = 1: must be from 2"),
    (["--tasks", "local_choice", "--seed", "-1"], "seed = -1: must be from 0"),
    (["--tasks", "local_choice", "--num-fewshot", "-1"], "num_fewshot = -1: must be 0 or more examples"),
    (["--tasks", "local_choice,local_rolling", "--guidance", "1"], "guidance = 1.0: must be 0 for local_rolling"),
    (["--tasks", "local_choice", "--out", "."], ".: is a folder: give the path of a file"),
    (["--tasks", "local_choice", "--limit", "0"], "limit = 0: must be 1 or more documents"),
    (["--tasks", "local_choice", "--use-cache", "absent/scores"], "absent/scores: cannot be used as a cache"),
    (["--tasks", "local_choice", "--include-path", "absent"], "include_path = 'absent': must be a folder"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED)
def test_a_wrong_command_is_refused_in_one_line(paths, tasks, tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    include = [] if "--include-path" in flags else ["--include-path", tasks]
    assert main([paths[Family.MDM], *flags, *include]) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.splitlines()[-1].startswith(f"mdm_jax: {said}"), "above it may be the harness's own progress"


def test_an_unknown_task_is_named_with_near_ones(paths, tasks):
    model = load(paths[Family.ARM])
    adapter = HarnessModel(model, Estimators(model.family))
    with pytest.raises(ValueError, match=r"no task, group or tag is called 'local_choise'; near names: local_choice"):
        evaluate_tasks(adapter, ["local_choise"], tasks, include_defaults=False)
    with pytest.raises(ValueError, match=r"called 'xyz'; `lm_eval ls tasks` lists all"):
        evaluate_tasks(adapter, ["local_*", "xyz"], tasks, include_defaults=False)


@pytest.mark.slow
def test_an_unknown_task_is_refused_in_one_line(paths, capsys):
    """Slow because the harness reads its ten thousand files first; the test above is quick."""
    said = one_line(main, [paths[Family.ARM], "--tasks", "hellaswagg"], capsys)
    assert "no task, group or tag is called 'hellaswagg'; near names: hellaswag" in said


def test_the_presets_tasks_are_in_the_harness():
    folders = ("lambada", "hellaswag", "openbookqa", "arc", "super_glue/boolq", "piqa", "siqa", "race")
    root = Path(lm_eval.tasks.__file__).parent
    found = TaskManager(include_path=[root / name for name in folders], include_defaults=False)
    assert set(PRESETS["smdm"]) <= set(found.all_subtasks)
    assert tuple(PRESETS) == command.PRESETS


def test_without_the_harness_the_extra_is_named(paths, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    said = one_line(main, [paths[Family.ARM], "--tasks", "local_choice"], capsys)
    assert "pip install 'mdm-jax[harness]'" in said
