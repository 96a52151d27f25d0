"""Exact likelihoods of a run: at its end or by the command afterwards, the same bits, also after an interruption."""

import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from running import Ended, Workshop, checkpoints, ended, killed_at, result, start_two
from tiny_runs import run_spec, sharp_model, tokens

from mdm_jax.data.corpus import open_corpus
from mdm_jax.devices.sharding import abstract_arrays, make_mesh, place
from mdm_jax.evaluate.likelihood.__main__ import main
from mdm_jax.evaluate.likelihood.rows import row_losses
from mdm_jax.evaluate.partial_losses import PARTIAL_FILES
from mdm_jax.files.results import (
    LIKELIHOOD_COLUMNS,
    RunResult,
    Status,
    contradictions,
    read_result,
    result_of,
    write_result,
)
from mdm_jax.files.storage import as_path
from mdm_jax.run.final_evaluation import FinalEvaluation, evaluated_rows
from mdm_jax.spec import EXACT_LIKELIHOODS, CellSpec, EvaluationSpec, Family, Likelihood, ModelSpec, RunSpec, to_json
from mdm_jax.train.checkpoint import read_step
from mdm_jax.train.loop import Preempted, Watch
from mdm_jax.train.seal import SEAL_FILE, Identity
from mdm_jax.train.state import make_state

pytestmark = pytest.mark.usefixtures("compiled_quickly")
COLUMNS = [name for names in LIKELIHOOD_COLUMNS.values() for name in names]
TINY = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=5)


def asking(shop: Workshop, family: Family) -> RunSpec:
    """A short run with both likelihoods. It has other draws than other tests' runs, and so a folder of its own."""
    spec = shop.spec(family, steps=4, checkpoint_every=4)
    evaluation = dataclasses.replace(spec.evaluation, mc_samples=3, likelihoods=EXACT_LIKELIHOODS)
    return dataclasses.replace(spec, evaluation=evaluation)


def columns_of(row: RunResult) -> dict[str, float | None]:
    return {name: getattr(row, name) for name in COLUMNS}


def copied(runs: Path, spec: RunSpec, to: Path) -> Path:
    """The run's folder in a new runs' folder, as if no likelihood had been asked for."""
    folder = to / spec.run_id
    shutil.copytree(runs / spec.run_id, folder)
    row = read_result(folder / "result.json")
    write_result(folder / "result.json", dataclasses.replace(row, **dict.fromkeys(COLUMNS)))
    return folder


def command(shop: Workshop, spec: RunSpec, *arguments: str) -> Ended:
    words = [sys.executable, "-m", "mdm_jax.evaluate.likelihood", *arguments]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return ended(subprocess.Popen(words, cwd=shop.root, env=shop.environment(spec), **streams))


def test_a_run_ends_with_the_likelihoods_that_it_was_asked_for(shop) -> None:
    spec = asking(shop, Family.MDM)
    assert spec.run_id == dataclasses.replace(spec, evaluation=EvaluationSpec(500, 3, 16)).run_id
    runs = shop.undisturbed(spec)
    row, corpus = result(runs, spec), open_corpus(spec.data)
    rows_SL = evaluated_rows(spec, corpus)
    assert rows_SL.shape == (16, 16)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    with jax.set_mesh(mesh):
        like, identity = abstract_arrays(mesh, lambda: make_state(spec)), Identity(spec.spec_hash, row.data_hash)
        state = read_step(as_path(runs / spec.run_id / "checkpoints"), spec.schedule.steps, like, identity)
        for one in EXACT_LIKELIHOODS:
            direct_S = row_losses(state.evaluated, spec.model, rows_SL, one, mesh).astype(np.float64)
            loss, se_data = (getattr(row, name) for name in LIKELIHOOD_COLUMNS[one])
            assert loss == pytest.approx(direct_S.mean(), rel=1e-5)
            assert se_data == pytest.approx(direct_S.std(ddof=1) / 4, rel=1e-4)
    assert row.loss_left_to_right != row.loss_confidence
    assert not [name for name in PARTIAL_FILES if (runs / spec.run_id / name).exists()]


def test_the_command_adds_to_a_finished_run_what_it_would_have_had(shop, tmp_path, capsys) -> None:
    spec = asking(shop, Family.MDM)
    runs = shop.undisturbed(spec)
    folder = copied(runs, spec, tmp_path / "runs")
    assert main([str(tmp_path)]) == 0
    row, expected = read_result(folder / "result.json"), result(runs, spec)
    assert columns_of(row) == pytest.approx(columns_of(expected), rel=1e-5)  # compiled without the run's own options
    assert dataclasses.replace(row, **columns_of(expected)) == expected
    losses = f"nelbo {row.loss:.4f}, left_to_right {row.loss_left_to_right:.4f}, confidence {row.loss_confidence:.4f}"
    captured = capsys.readouterr()
    assert captured.out == f"{spec.run_id}: {losses} nats/token\n"
    begun = [f"mdm_jax: {spec.run_id}: {one.value} evaluation begins" for one in EXACT_LIKELIHOODS]
    assert captured.err.splitlines() == begun
    sealed = (folder / "result.json").read_bytes()
    shutil.rmtree(folder / "checkpoints")
    assert main([str(folder)]) == 0  # nothing is read but the row
    assert capsys.readouterr() == (f"{spec.run_id}: {losses} nats/token (it had them)\n", "")
    assert (folder / "result.json").read_bytes() == sealed
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_processes_that_share_a_sweep_give_the_bits_of_its_runs(shop, tmp_path) -> None:
    mdm, arm = asking(shop, Family.MDM), asking(shop, Family.ARM)
    for spec in (mdm, arm):
        copied(shop.undisturbed(spec), spec, tmp_path / "runs")
    end = command(shop, mdm, str(tmp_path), "--jobs", "2")
    assert end.code == 0, end.said
    for spec in (mdm, arm):
        row = result(tmp_path / "runs", spec)
        assert row == result(shop.undisturbed(spec), spec)
        assert len([line for line in end.out.splitlines() if line.startswith(f"{spec.run_id}: {row.loss_kind}")]) == 1
    row = result(shop.undisturbed(arm), arm)
    assert columns_of(row) == dict(zip(COLUMNS, [row.loss, row.loss_se_data] * 2, strict=True))


def test_one_likelihood_alone_is_added_and_the_other_stays_unknown(tmp_path, capsys) -> None:
    spec = run_spec(Family.ARM, TINY, 8)
    folder = tmp_path / spec.run_id
    folder.mkdir()
    (folder / "spec.json").write_text(to_json(spec) + "\n")
    write_result(folder / "result.json", result_of(spec, Status.OK, loss=2.5, loss_se_data=0.1))
    before = json.loads((folder / "result.json").read_text())  # as version 1 wrote it
    for name in ("sha256", "flops_chinchilla", "group", "budget_convention", *COLUMNS):
        del before[name]
    (folder / "result.json").write_text(json.dumps(before | {"schema_version": 1}))
    assert main([str(tmp_path), "--likelihoods", "confidence"]) == 0
    row = read_result(folder / "result.json")
    assert columns_of(row) == dict(zip(COLUMNS, [None, None, 2.5, 0.1], strict=True))
    assert contradictions(dataclasses.asdict(row), spec) == ()
    assert capsys.readouterr().out == f"{spec.run_id}: nll 2.5000, confidence 2.5000 nats/token\n"
    assert main([str(folder), "--likelihoods", "confidence"]) == 0
    assert capsys.readouterr().out.endswith("nats/token (it had them)\n")
    write_result(folder / "result.json", dataclasses.replace(row, seed=7))
    assert main([str(folder)]) == 1
    assert "result.json against its spec = 'seed': must be equal in both" in capsys.readouterr().err


def test_runs_that_cannot_be_evaluated_are_said_and_the_others_go_on(shop, tmp_path, capsys) -> None:
    arm, base = shop.spec(Family.ARM), shop.spec(Family.MDM)
    names = ("diverged", "none", "bare", "data", "lossless")
    specs = {name: dataclasses.replace(base, seed=i + 1) for i, name in enumerate(names)}
    specs["arm"] = arm
    specs["segment"] = dataclasses.replace(base, seed=9, cell=CellSpec(segment=True))
    known = open_corpus(base.data).manifest.data_hash
    settings: dict[str, dict[str, Any]] = {
        name: {"status": Status.OK, "data_hash": known, "loss": 2.0} for name in specs
    }
    settings["diverged"] |= {"status": Status.DIVERGED, "excluded_reason": "loss is nan at step 7"}
    settings["data"] |= {"data_hash": "0" * 64}
    settings["lossless"] |= {"loss": None}
    for name, spec in specs.items():
        folder = tmp_path / spec.run_id
        folder.mkdir()
        (folder / "spec.json").write_text(to_json(spec) + "\n")
        if name != "none":
            write_result(folder / "result.json", result_of(spec, **settings[name]))
    assert main([str(tmp_path)]) == 1
    captured = capsys.readouterr()
    told = dict(line.split(": ", 1) for line in captured.out.splitlines())
    assert told[specs["diverged"].run_id] == "left out, loss is nan at step 7"
    assert told[specs["none"].run_id] == "left out, it has no result yet"
    assert told[specs["segment"].run_id] == "left out, undecayed trunk segment"
    assert told[arm.run_id] == "nll 2.0000, left_to_right 2.0000, confidence 2.0000 nats/token"
    errors = dict(line.removeprefix("mdm_jax: ").split(": ", 1) for line in captured.err.splitlines())
    assert "checkpoints/12 cannot be used: absent" in errors[specs["bare"].run_id]
    assert "data_hash = " in errors[specs["data"].run_id]
    assert "loss = None: must be a number" in errors[specs["lossless"].run_id]
    assert set(told) | set(errors) == {spec.run_id for spec in specs.values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "neither a run's folder nor a sweep's"),
        ([".", "--jobs", "0"], "--jobs = 0: must be at least 1"),
        (["planned"], "planned: no run of this plan has begun: python -m isoflop.run planned runs them"),
        (["bare"], "bare: neither a run's folder nor a sweep's: it has no spec.json and no runs"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("planned", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "planned" / "plan.jsonl").touch()
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def counting(stop_after: int) -> tuple[Watch, list[str]]:
    """A watch that asks to stop at its n-th question, and what it was told."""
    said: list[str] = []
    asked = iter(range(1, 1 << 20))
    return Watch(say=said.append, asked_to_stop=lambda: next(asked) >= stop_after), said


@pytest.fixture
def tiny_run(one_device, tmp_path) -> tuple[RunSpec, Any]:
    """A run of a tiny MDM with four batches of rows, whose last checkpoint has a seal."""
    evaluation = EvaluationSpec(eval_tokens=48, mc_samples=2, batch=2, likelihoods=EXACT_LIKELIHOODS)
    spec = run_spec(Family.MDM, TINY, 6, evaluation=evaluation)
    seal = tmp_path / "checkpoints" / str(spec.schedule.steps) / SEAL_FILE
    seal.parent.mkdir(parents=True)
    seal.write_text("the seal")
    return spec, jax.jit(place)(sharp_model(TINY))


@pytest.mark.parametrize("likelihood", EXACT_LIKELIHOODS)
def test_a_stopped_likelihood_goes_on_to_the_same_bits(tiny_run, likelihood: Likelihood, tmp_path) -> None:
    spec, params = tiny_run
    rows_SL = tokens((8, 6), 5)

    def evaluation(stop_after: int, folder: str = "") -> tuple[FinalEvaluation, list[str]]:
        watch, said = counting(stop_after)
        mesh = jax.sharding.get_mesh()
        return FinalEvaluation(spec, as_path(tmp_path / folder), "d" * 64, mesh, rows_SL, watch), said

    undisturbed, said = evaluation(1 << 20)
    expected = undisturbed.likelihood(params, likelihood)
    assert said == [f"{likelihood.value} evaluation begins"]
    undisturbed.forget()
    stopped, _ = evaluation(3)
    with pytest.raises(Preempted, match=f"batch 3 of the {likelihood.value} evaluation, which is saved"):
        stopped.likelihood(params, likelihood)
    kept = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.part")}
    assert list(kept) == [f"evaluation-{likelihood.value}.part"]
    resumed, said = evaluation(1 << 20)
    assert resumed.likelihood(params, likelihood) == expected
    assert said == [f"{likelihood.value} evaluation resumed at batch 3"]
    finished, said = evaluation(1)  # all losses are known: nothing is left to stop
    assert finished.likelihood(params, likelihood) == expected
    assert said == [f"{likelihood.value} evaluation resumed at batch 4"]
    finished.forget()
    assert not list(tmp_path.glob("*.part"))


def test_the_loss_is_kept_for_an_attempt_that_is_stopped_in_a_likelihood(tiny_run, tmp_path) -> None:
    spec, params = tiny_run
    mesh, rows_SL = jax.sharding.get_mesh(), tokens((8, 6), 5)
    watch, _ = counting(1 << 20)
    first = FinalEvaluation(spec, as_path(tmp_path), "d" * 64, mesh, rows_SL, watch)
    measured = first.loss(params)
    again, said = counting(1)
    assert dataclasses.replace(first, watch=again).loss(params) == measured
    assert said == ["evaluation resumed at batch 8"]
    plain = dataclasses.replace(spec, evaluation=EvaluationSpec(eval_tokens=48, mc_samples=2, batch=2))
    first.forget()
    assert dataclasses.replace(first, spec=plain).loss(params) == measured
    assert not list(tmp_path.glob("*.part"))  # no other evaluation follows


@pytest.mark.slow
def test_a_run_stopped_in_a_likelihood_goes_on_to_the_same_bits(shop, tmp_path) -> None:
    spec = asking(shop, Family.MDM)
    killed_at(shop.undisturbed(spec), tmp_path, spec, spec.schedule.steps)
    process = shop.start(spec, tmp_path, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("confidence evaluation"):
            break
    process.send_signal(signal.SIGTERM)
    stopped = ended(process)
    assert stopped.code in (0, 143), stopped.said  # it may have ended before the signal came
    last = shop.run(spec, tmp_path)
    assert last.code == 0, last.said
    assert checkpoints(tmp_path, spec)[-1] == spec.schedule.steps
    assert columns_of(result(tmp_path, spec)) == columns_of(result(shop.undisturbed(spec), spec))


@pytest.mark.slow
def test_a_stopped_command_passes_the_signal_on_and_goes_on_later(shop, tmp_path) -> None:
    specs = [dataclasses.replace(asking(shop, Family.MDM), seed=seed) for seed in (0, 1)]
    for spec in specs:
        copied(shop.undisturbed(spec), spec, tmp_path)
    words = [sys.executable, "-m", "mdm_jax.evaluate.likelihood", str(tmp_path), "--jobs", "2"]
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=shop.root, env=shop.environment(specs[0]), **streams)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 143
    assert command(shop, specs[0], str(tmp_path)).code == 0
    for spec in specs:
        assert columns_of(result(tmp_path, spec)) == columns_of(result(shop.undisturbed(spec), spec))


@pytest.mark.slow
def test_two_processes_and_other_meshes_give_the_same_likelihoods(shop, tmp_path) -> None:
    """The run's own mesh changes nothing but rounding, at the run's end and in the command on one device."""
    spec = asking(shop, Family.MDM)
    split = dataclasses.replace(spec, hardware=dataclasses.replace(spec.hardware, mesh_data=2))
    ends = [ended(process) for process in start_two(shop, split, tmp_path / "two")]
    assert [end.code for end in ends] == [0, 0], [end.said for end in ends]
    two, one = result(tmp_path / "two", split), result(shop.undisturbed(spec), spec)
    assert columns_of(two) == pytest.approx(columns_of(one), rel=1e-4)
    folder = copied(tmp_path / "two", split, tmp_path / "later")
    assert command(shop, spec, str(folder)).code == 0
    assert columns_of(read_result(folder / "result.json")) == pytest.approx(columns_of(two), rel=1e-5)
