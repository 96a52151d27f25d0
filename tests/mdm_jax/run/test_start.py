"""Runs that begin with trained weights: from a run, a file or a folder, on any mesh; and what is refused."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest
from pair_corpus import prepared_pairs
from running import Workshop, assert_same, ended, killed_at, leaves, outcome, result, rows, start_two
from smdm_files import TRUNK, write_random
from tiny_runs import on_mesh, put, quick_compilation

from isoflop.plan.__main__ import plan_config
from isoflop.sweep import curve, default_sweep
from mdm_jax import load
from mdm_jax.config import default_run
from mdm_jax.data.tokenizer import ByteTokenizer
from mdm_jax.files.fingerprint import fingerprint_of, with_fingerprint
from mdm_jax.interop.smdm.weights import read_smdm
from mdm_jax.main import parser, requested
from mdm_jax.spec import (
    Attention,
    EvaluationSpec,
    Family,
    HardwareSpec,
    OptimSpec,
    RunSpec,
    ScheduleSpec,
    StartSpec,
    pair,
)
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step
from mdm_jax.trained.start import begun_with, starting_weights
from mdm_jax.trained.weights import weight_name

BYTES = ByteTokenizer.hash


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    with quick_compilation():
        return write_random(tmp_path_factory.mktemp("start") / "mdm.safetensors", Attention.BIDIRECTIONAL)


def run_from(path: Path, family: Family = Family.MDM, **changes) -> RunSpec:
    spec = pair(RunSpec(model=TRUNK, start=StartSpec(str(path))), family)
    return with_fingerprint(dataclasses.replace(spec, **changes))


def test_a_file_and_a_folder_with_the_same_weights_give_the_same_start(file, tmp_path):
    load(file).export_hf(tmp_path / "hf")
    expected = read_smdm(file).weights
    for path in (file, tmp_path / "hf"):
        found = starting_weights(run_from(path), BYTES)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert fingerprint_of(file) != fingerprint_of(tmp_path / "hf")
    (tmp_path / "hf" / "README.md").write_text("not the weights")
    assert run_from(tmp_path / "hf").start.fingerprint == fingerprint_of(tmp_path / "hf")


def test_an_arm_without_a_start_token_begins_with_eos_in_its_place(tmp_path):
    path = write_random(tmp_path / "arm", Attention.CAUSAL, has_start=False)
    found = starting_weights(run_from(path, Family.ARM), BYTES)
    np.testing.assert_array_equal(found["embed"][257], found["embed"][256])
    np.testing.assert_array_equal(found["embed"][:257], read_smdm(path).weights["embed"][:257])


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)], ids=["1x1", "2x2"])
def test_the_state_has_the_weights_and_everything_else_is_new(file, mesh):
    hardware, optim = HardwareSpec(mesh_data=mesh[0], mesh_model=mesh[1]), OptimSpec(ema_decay=0.9)
    run = run_from(file, hardware=hardware, optim=optim)
    weights = starting_weights(run, BYTES)
    with on_mesh(*mesh), quick_compilation():
        fresh = init_state(run)
        state = begun_with(fresh, weights)
        layouts = [leaf.sharding for leaf in jax.tree.leaves(fresh.params)]
        for tree in (state.params, state.average):
            named = jax.tree_util.tree_flatten_with_path(tree)[0]
            assert [leaf.sharding for _, leaf in named] == layouts
            for entry, leaf in named:
                weight = weights[weight_name(entry)]
                np.testing.assert_array_equal(np.asarray(leaf)[..., : weight.shape[-1]], weight)
                assert (np.asarray(leaf)[..., weight.shape[-1] :] == 0).all()
        assert int(state.step) == 0
        assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(state.opt_state))
        step, rate = compile_step(run), learning_rate(run.optim, run.schedule)
        tokens_BL = put(jax.sharding.get_mesh(), np.zeros((run.optim.global_batch, run.data.seq_len), np.int32))
        state, scalars = step(step(state, tokens_BL, rate)[0], tokens_BL, rate)
        assert np.isfinite(float(scalars["loss"]))
        assert step.program._cache_size() == 1  # type: ignore[attr-defined]


def test_other_weights_than_the_planned_ones_are_refused(file, tmp_path):
    copy = shutil.copy(file, tmp_path / "copy")
    run = run_from(copy)
    assert run.run_id == run_from(file).run_id
    raw = bytearray(copy.read_bytes())
    raw[-1] ^= 1
    copy.write_bytes(raw)
    with pytest.raises(ValueError, match="with which this run was planned: plan again"):
        starting_weights(run, BYTES)
    with pytest.raises(ValueError, match=r"start\.fingerprint = .*or left out"):
        with_fingerprint(run)
    with pytest.raises(ValueError, match=r"start\.fingerprint = '': must be that of start\.path"):
        starting_weights(dataclasses.replace(run, start=StartSpec(str(copy))), BYTES)


def test_another_shape_or_tokenizer_is_refused_and_every_difference_named(file):
    run = run_from(file)
    other = dataclasses.replace(run, model=dataclasses.replace(TRUNK, n_layers=3, d_ffn=28))
    with pytest.raises(ValueError, match=r"it has n_layers = 2 and not 3, d_ffn = 24 and not 28: set model\.\*"):
        starting_weights(other, BYTES)
    with pytest.raises(ValueError, match="attention = 'bidirectional' and not 'causal'"):
        starting_weights(run_from(file, Family.ARM), BYTES)
    with pytest.raises(ValueError, match=r"tokenizer = .*prepare the data with the model's tokenizer"):
        starting_weights(run, "0" * 64)


def test_a_path_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"start\.path = .*must be a run's folder, a safetensors file or"):
        fingerprint_of(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"must be a folder with spec\.json .* or with config\.json and weights"):
        fingerprint_of(tmp_path)
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(ValueError, match="no finished checkpoint: train the run first"):
        fingerprint_of(tmp_path)


def test_planning_and_the_command_of_one_run_write_the_fingerprint(file, tmp_path):
    config: Any = ml_collections.ConfigDict({"run": default_run(), "sweep": default_sweep()})
    config.run.start.path = str(file)
    config.sweep.recipe = "tiny"
    config.sweep.curves = [curve("mdm", 1e10, "1x16")]
    (run,) = plan_config(config).runs
    assert run.start == StartSpec(str(file), fingerprint_of(file))
    experiment = tmp_path / "experiment.py"
    experiment.write_text("from mdm_jax.config import default_run\n\n\ndef get_config():\n    return default_run()\n")
    flags = parser().parse_args(["--config", str(experiment), "--set", f"start.path={file}"])
    assert requested(flags)[0].start == run.start


def fine_tuning(shop: Workshop, folder: Path) -> RunSpec:
    """A run of pairs that begins with the undisturbed MDM, which keeps an average of its weights."""
    parent = shop.spec(Family.MDM)
    start = StartSpec(str(shop.undisturbed(parent) / parent.run_id))
    settings = {
        "data": prepared_pairs(folder),
        "schedule": ScheduleSpec(steps=6, warmup_steps=2),
        "evaluation": EvaluationSpec(eval_tokens=16 * 8, mc_samples=2, batch=8),
    }
    return with_fingerprint(dataclasses.replace(parent, start=start, **settings))


@pytest.mark.slow
def test_a_run_begins_with_the_average_of_another_and_ends_as_a_model(shop, tmp_path):
    """The resumed run needs the other one no more, and ends with the same bits."""
    spec = fine_tuning(shop, tmp_path)
    parent = shop.spec(Family.MDM)
    begun = starting_weights(spec, BYTES)
    averages = {name: leaf for name, leaf in leaves(shop.undisturbed(parent), parent).items() if "average." in name}
    for name, weight in begun.items():
        held = next(leaf for known, leaf in averages.items() if f".{name}." in f".{known}.")
        np.testing.assert_array_equal(weight, held[..., : weight.shape[-1]])
    end = shop.run(spec, tmp_path / "whole")
    assert end.code == 0, end.said
    assert f"begins with the weights of {spec.start.path}" in end.said
    first = rows(tmp_path / "whole", spec)[0]
    assert first["step"] == 1
    model = load(tmp_path / "whole" / spec.run_id)
    text = model.generate("3+9=", 4)[0]
    assert (text.prompt, model.seq_len) == ("3+9=", 16)
    moved = dataclasses.replace(spec, start=dataclasses.replace(spec.start, path=str(tmp_path / "moved away")))
    assert moved.run_id == spec.run_id
    killed_at(tmp_path / "whole", tmp_path / "resumed", spec, 4)
    end = shop.run(moved, tmp_path / "resumed")
    assert end.code == 0, end.said
    assert_same(outcome(tmp_path / "resumed", spec), outcome(tmp_path / "whole", spec))
    end = shop.run(moved, tmp_path / "absent")
    assert end.code == 1
    assert len(end.errors) == 1
    assert "start.path" in end.errors[0] or "no such file" in end.errors[0]


@pytest.mark.slow
def test_two_processes_begin_with_the_weights_of_a_run_as_one_does(shop, tmp_path):
    """Each process reads the weights by itself, and a shard of the pairs."""
    spec = fine_tuning(shop, tmp_path)
    spec = dataclasses.replace(spec, hardware=dataclasses.replace(spec.hardware, mesh_data=2))
    ends = [ended(process) for process in start_two(shop, spec, tmp_path / "two")]
    assert [end.code for end in ends] == [0, 0], [end.said for end in ends]
    end = shop.run(spec, tmp_path / "one")
    assert end.code == 0, end.said
    for one, two in zip(rows(tmp_path / "one", spec), rows(tmp_path / "two", spec), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    assert result(tmp_path / "two", spec).loss == pytest.approx(result(tmp_path / "one", spec).loss, rel=1e-5)
