"""A corpus that is absent, another one, or too small is found at planning, and again before a sweep's first run."""

import dataclasses
import functools
from pathlib import Path

import pytest
from command_line import one_line
from imitated_runs import imitation, make_sweep, manifest_of, started

from isoflop.plan.__main__ import main
from isoflop.planfile import read_plan, write_plan
from isoflop.run import __main__ as run
from mdm_jax.data.manifest import write_manifest

ROOT = Path(__file__).parents[2]
SMALL = ["--budgets", "1e12", "--sizes", "2x64", "--recipe", "tiny", "--seq-len", "64"]


@pytest.mark.parametrize("experiment", [[], ["--config", str(ROOT / "experiments/quickstart.py")]])
@pytest.mark.parametrize("data", ["no/such/folder", ""])
def test_a_folder_without_a_corpus_is_refused(tmp_path, capsys, monkeypatch, experiment, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    said = one_line(main, [*experiment, *SMALL, "--data", data, "--out", "out"], capsys)
    assert f"{Path(data) / 'manifest.json'}: no such file: prepare the corpus" in said
    assert not (tmp_path / "out").exists()


TOO_SMALL = [
    (manifest_of(validation=1 << 15), [], "run.evaluation.eval_tokens = 65536: must be at most 32768"),
    (manifest_of(validation=1 << 15), [], "prepare it again with --validation-fraction 0.076, or more text"),
    (manifest_of(10**4, 10**3), [], "at most 1000, the tokens of the validation split of"),
    (manifest_of(), ["run.evaluation.eval_tokens=4000"], "run.evaluation.eval_tokens = 4000: must be at least 4096"),
    (manifest_of(), ["run.evaluation.batch=2048"], "run.evaluation.eval_tokens = 65536: must be at least 131072"),
    (manifest_of(train=63), [], "run.data.seq_len = 64: must be at most 63, the tokens of the training split"),
]


@pytest.mark.parametrize(("manifest", "settings", "said"), TOO_SMALL)
def test_a_corpus_that_is_too_small_is_refused_at_planning(tmp_path, capsys, manifest, settings, said: str) -> None:
    write_manifest(tmp_path / "data", manifest)
    chosen = ["--set", *settings] if settings else []
    arguments = [*SMALL, "--data", str(tmp_path / "data"), *chosen, "--out", str(tmp_path / "out")]
    assert said in one_line(main, arguments, capsys)
    assert not (tmp_path / "out").exists()


def test_what_needs_no_corpus_is_checked_without_one(tmp_path, capsys) -> None:
    few = ["--set", "run.evaluation.eval_tokens=4000", f"run.data.directory={tmp_path / 'later'}"]
    assert "must be at least 4096, one batch" in one_line(main, [*SMALL, *few, "--out", str(tmp_path / "out")], capsys)


def test_a_corpus_that_is_large_enough_is_planned_and_so_is_the_default(tmp_path) -> None:
    write_manifest(tmp_path / "data", manifest_of(train=10**6, validation=1 << 16))
    assert main([*SMALL, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "a")]) == 0
    assert main(["--budgets", "1e19", "--sizes", "170", "--out", str(tmp_path / "b")]) == 0
    for planned in read_plan(tmp_path / "b"):  # rows of 2048: the evaluation's tokens fill a batch
        assert planned.evaluation.eval_tokens // planned.data.seq_len >= planned.evaluation.batch


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (manifest_of(validation=1 << 15), "run.evaluation.eval_tokens = 65536: must be at most 32768"),
        (manifest_of(train=63), "run.data.seq_len = 64: must be at most 63"),
        (manifest_of(text="ef"), "the corpus changed since; plan again"),
    ],
)
def test_a_corpus_that_changed_is_refused_before_the_first_run(tmp_path, capsys, manifest, said: str) -> None:
    (planned,) = make_sweep(tmp_path, ["ok"])
    pinned = dataclasses.replace(planned.data, data_hash=manifest_of().data_hash if "changed" in said else "")
    write_plan(tmp_path, [dataclasses.replace(planned, data=pinned)])
    write_manifest(tmp_path / "data", manifest)
    imitated = functools.partial(run.main, command=imitation(tmp_path))
    assert said in one_line(imitated, [str(tmp_path)], capsys)
    assert not started(tmp_path)
