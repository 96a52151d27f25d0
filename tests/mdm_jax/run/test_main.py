"""The command line of a run: bad input, divergence, full disks and lost terminals each end with one line and a code."""

import dataclasses
import json
import os
import pty
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import one_line
from running import Workshop, assert_same, ended, killed_at, outcome, result, rows, wait_until

from mdm_jax.data.manifest import MANIFEST_FILE
from mdm_jax.data.prepare import prepare
from mdm_jax.files.results import Status
from mdm_jax.files.sealed_json import seal, unseal
from mdm_jax.main import main, parser, requested
from mdm_jax.spec import DataSpec, Family, RunSpec, pair, to_json

ARM = Family.ARM
EXPERIMENT = """
from ml_collections import ConfigDict
from mdm_jax.config import default_run

def get_config():
    return ConfigDict({"run": default_run()})
"""


@pytest.fixture
def refused(capfd, tmp_path, sigterm_handler) -> Callable[..., str]:
    """What the command line says of a run that it does not begin: exactly one line, exit code 1 and no metrics."""

    def say(plan: RunSpec | str, *flags: str, run_id: str = "") -> str:
        path = tmp_path / "plan.jsonl"
        path.write_text(plan if isinstance(plan, str) else to_json(plan) + "\n")
        run_id = run_id or (plan.run_id if isinstance(plan, RunSpec) else "")
        return one_line(main, ["--plan", str(path), "--run-id", run_id, *flags], capfd)

    return say


def copied_data(shop: Workshop, folder: Path) -> DataSpec:
    shutil.copytree(shop.data.directory, folder)
    return dataclasses.replace(shop.data, directory=str(folder))


def with_data(spec: RunSpec, data: DataSpec) -> RunSpec:
    return dataclasses.replace(spec, data=data)


def test_flags_that_do_not_fit_are_refused(tmp_path, capfd) -> None:
    assert "one of the arguments --plan --config is required" in one_line(main, [], capfd)
    assert "unrecognized arguments: --rnu" in one_line(main, ["--plan", "p", "--rnu"], capfd)
    assert "--set" in one_line(main, ["--plan", "p", "--run-id", "r", "--set", "run.seed=1"], capfd)
    assert "--run-id" in one_line(main, ["--plan", "p"], capfd)
    assert "--run-id" in one_line(main, ["--config", "p", "--run-id", "r"], capfd)
    assert "no such file" in one_line(main, ["--plan", str(tmp_path / "none.jsonl"), "--run-id", "r"], capfd)


def test_a_run_that_the_plan_does_not_hold_whole_is_refused(shop, refused) -> None:
    spec = shop.spec(ARM)
    line = to_json(spec)
    misspelt = json.dumps(seal(unseal(line, since=2) | {"optim": {"lr_paek": 1e-3}}))
    assert "not in " in refused(spec, run_id="arm-1x16-000000000000")
    assert "line 2: half-written or damaged (not a JSON object" in refused(f"\n{line[:300]}", run_id=spec.run_id)
    assert "sha256 is not that of the content: was it edited?" in refused(
        line.replace('"seed": 0', '"seed": 1'), run_id=spec.run_id
    )
    assert "unknown key optim.lr_paek: did you mean optim.lr_peak?" in refused(misspelt, run_id=spec.run_id)


def test_a_plan_is_named_by_its_folder_and_a_run_by_the_beginning_of_its_id(tmp_path, capfd) -> None:
    runs = [pair(RunSpec(seed=seed), family) for seed in range(4) for family in Family]
    (tmp_path / "plan.jsonl").write_text("".join(to_json(run) + "\n" for run in runs))

    def asked(plan: Path, run_id: str) -> tuple[RunSpec, Path]:
        spec, folder = requested(parser().parse_args(["--plan", str(plan), "--run-id", run_id]))
        return spec, Path(folder)

    for run in runs:
        for plan in (tmp_path, tmp_path / "plan.jsonl"):
            for run_id in (run.run_id, run.run_id[:-6]):
                assert asked(plan, run_id) == (run, tmp_path / "runs" / run.run_id)
    prefix = runs[0].run_id[:-12]
    said = one_line(main, ["--plan", str(tmp_path), "--run-id", prefix], capfd)
    own = sorted(run.run_id for run in runs if run.run_id.startswith(prefix))
    assert len(own) == 4
    assert f"--run-id {prefix}: 4 runs of {tmp_path / 'plan.jsonl'} begin with it: {', '.join(own)}; give more" in said
    assert "no such file" in one_line(main, ["--plan", str(tmp_path / "runs"), "--run-id", prefix], capfd)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("run.optim.lr_paek=1e-3", "unknown key run.optim.lr_paek: did you mean run.optim.lr_peak?"),
        ("run.model.vocab_size=300", "must be data.tokenizer.vocab_size = 257"),
        ("run.evaluation.batch=3", "evaluation.batch = 3: must be even"),
        ("run.schedule.steps", "--set = 'run.schedule.steps': must be of the form"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, capfd, setting, said) -> None:
    experiment = tmp_path / "experiment.py"
    experiment.write_text(EXPERIMENT)
    flags = ["--config", str(experiment), "--runs", str(tmp_path)]
    assert said in one_line(main, [*flags, "--set", setting], capfd)


def test_data_that_is_not_the_runs_is_refused(shop, refused, tmp_path) -> None:
    spec = shop.spec(ARM)
    failures = {
        "manifest.json: no such file": with_data(
            spec, dataclasses.replace(spec.data, directory=str(tmp_path / "none"))
        ),
        "is not the planned 0123": with_data(spec, dataclasses.replace(spec.data, data_hash="0123" * 16)),
        "prepared with another data.validation_fraction": with_data(
            spec, dataclasses.replace(spec.data, validation_fraction=0.5)
        ),
    }
    empty = copied_data(shop, tmp_path / "empty")
    (Path(empty.directory) / MANIFEST_FILE).unlink()
    failures["empty/manifest.json: no such file"] = with_data(spec, empty)
    short = copied_data(shop, tmp_path / "short")
    manifest = Path(short.directory) / MANIFEST_FILE
    manifest.write_text(manifest.read_text()[:100])
    failures["short/manifest.json: not a manifest"] = with_data(spec, short)
    for said, run in failures.items():
        assert said in refused(run)
        row = result(tmp_path / "runs", run)
        assert row.status is Status.FAILED
        assert said in row.excluded_reason
        assert not (tmp_path / "runs" / run.run_id / "metrics").exists()


def test_an_evaluation_that_does_not_fit_is_refused(shop, refused, tmp_path) -> None:
    spec = shop.spec(ARM)
    many = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, eval_tokens=10**9))
    few = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, eval_tokens=32))
    assert "evaluation.eval_tokens = 1000000000: must be at most" in refused(many)
    assert "evaluation.eval_tokens = 32: must be at least one batch" in refused(few)
    assert result(tmp_path / "runs", few).status is Status.FAILED


def test_a_mesh_larger_than_the_devices_is_refused(shop, refused) -> None:
    spec = shop.spec(ARM)
    mesh = dataclasses.replace(
        spec,
        optim=dataclasses.replace(spec.optim, global_batch=32),
        evaluation=dataclasses.replace(spec.evaluation, batch=32, eval_tokens=512),
        hardware=dataclasses.replace(spec.hardware, mesh_data=16),
    )
    assert "mesh 16 x 1: needs 16 devices and there are 8" in refused(mesh)


def test_data_that_changed_since_the_run_began_is_refused_each_time(shop, refused, tmp_path) -> None:
    spec = with_data(shop.spec(ARM), copied_data(shop, tmp_path / "data"))
    crowded = dataclasses.replace(spec.hardware, mesh_data=2)  # refused after the data is accepted
    spec = dataclasses.replace(spec, hardware=crowded)
    runs = tmp_path / "runs"
    folder = runs / spec.run_id
    folder.mkdir(parents=True)
    started = shop.start(spec, runs, environment={"JAX_NUM_CPU_DEVICES": "2"})
    wait_until(lambda: result(runs, spec).status is Status.RUNNING, started)
    started.kill()
    ended(started)
    before = result(runs, spec).data_hash
    text = Path(spec.data.corpus.path)
    original = text.read_text()
    text.write_text(original.replace("loss", "cost"))
    try:
        prepare(spec.data, force=True)
    finally:
        text.write_text(original)
    for _ in range(2):
        assert f"must be {before}, with which this run was begun" in refused(spec)
        assert result(runs, spec).data_hash == before


def test_a_corrupt_shard_is_named_before_the_first_step_and_the_mended_run_goes_on(shop, whole, refused, tmp_path):
    spec = with_data(shop.spec(ARM), copied_data(shop, tmp_path / "data"))
    shard = Path(spec.data.directory) / "train-00000.bin"
    good = shard.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for bad, said in ((bytes(flipped), "shard is corrupt"), (good[:-2], "truncated or replaced")):
        shard.write_bytes(bad)
        line = refused(spec)
        assert f"{shard}: " in line
        assert said in line
        assert not (tmp_path / "runs" / spec.run_id / "metrics").exists()
    shard.unlink()
    assert f"{shard}: shard absent" in refused(spec)
    assert result(tmp_path / "runs", spec).status is Status.FAILED
    shard.write_bytes(good)
    assert shop.run(spec, tmp_path / "runs").code == 0
    assert result(tmp_path / "runs", spec).attempts == 4
    assert_same(outcome(tmp_path / "runs", spec), outcome(whole, spec))


def test_a_diverged_run_is_recorded_and_not_run_again(shop, tmp_path) -> None:
    spec = shop.spec(ARM, log_every=2)
    wild = dataclasses.replace(spec.optim, weight_decay=1e9, clip_norm=1e9)  # weights grow a billionfold a step
    spec = dataclasses.replace(spec, optim=wild)
    for attempt in (1, 2):
        run = shop.run(spec, tmp_path)
        assert run.code == 3
        assert "Traceback" not in run.said
        assert len(run.errors) == (1 if attempt == 1 else 0)
    assert "is finished" in run.said
    row = result(tmp_path, spec)
    assert row.status is Status.DIVERGED
    assert row.attempts == 1
    assert row.loss is None
    assert "not finite at step" in row.excluded_reason
    assert all(abs(entry["loss"]) < float("inf") for entry in rows(tmp_path, spec))


def test_a_run_outlives_its_terminal(shop, whole, tmp_path) -> None:
    spec = shop.spec(ARM)
    folder = killed_at(whole, tmp_path, spec, 12)
    (folder / "12" / "default" / "_METADATA").write_text("{}")
    screen, terminal = pty.openpty()
    process = shop.start(spec, tmp_path, stderr=terminal)
    os.close(terminal)
    shown = b""
    while b"resumed at step 10" not in shown:
        shown += os.read(screen, 4096)
    os.close(screen)
    assert f"{folder}/12 passed over: default/_METADATA has changed" in shown.decode()
    assert ended(process).code == 0
    assert_same(outcome(tmp_path, spec), outcome(whole, spec))


def test_a_folder_that_orbax_takes_for_a_pattern_is_refused(shop, tmp_path) -> None:
    end = shop.run(shop.spec(ARM), tmp_path / "lr[1e-3]")
    assert end.code == 1
    assert len(end.errors) == 1
    assert "must be free of * ? [" in end.errors[0]
