"""Runs of equal shape share their programs, and no program reads what the runs differ in."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, put, quick_compilation, run_spec, tokens

from mdm_jax.devices.sharding import abstract_arrays
from mdm_jax.evaluate import nelbo
from mdm_jax.model.initial import is_drawn_here
from mdm_jax.spec import (
    CellSpec,
    EvaluationSpec,
    Family,
    HardwareSpec,
    Likelihood,
    ModelSpec,
    OptimSpec,
    Remat,
    RunSpec,
    ScheduleKind,
    ScheduleSpec,
    StartSpec,
    Variant,
)
from mdm_jax.spec.programs import evaluation_program, state_program, step_program
from mdm_jax.train.drawing import Drawing, noise_key
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state, make_state
from mdm_jax.train.step import compile_step, train_step

MODEL = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=12, dropout=0.1)
ROOT = Path(__file__).resolve().parents[3]
LENGTH, BATCH = 8, 4
MOST_SEED = 2**31 - 1


def run(family: Family, **changes) -> RunSpec:
    optim = OptimSpec(global_batch=BATCH, ema_decay=0.9)
    return run_spec(family, MODEL, LENGTH, **{"optim": optim, "evaluation": EvaluationSpec(batch=16)} | changes)


def other(spec: RunSpec) -> RunSpec:
    """A run of the same shape in which all else is different."""
    return dataclasses.replace(
        spec,
        data=dataclasses.replace(spec.data, directory="elsewhere", data_hash="ab" * 32),
        optim=dataclasses.replace(spec.optim, lr_peak=0.5),
        schedule=ScheduleSpec(ScheduleKind.COSINE, steps=77, warmup_steps=7, lr_final_fraction=0.5),
        evaluation=dataclasses.replace(spec.evaluation, eval_tokens=640, likelihoods=(Likelihood.LEFT_TO_RIGHT,)),
        hardware=dataclasses.replace(spec.hardware, log_every=3, checkpoint_every=5),
        cell=CellSpec(budget=1e9, group="a", size="1x8"),
        seed=MOST_SEED,
        start=StartSpec("a/path", "cd" * 32),
    )


def deep(spec: RunSpec) -> RunSpec:
    """The run with a layer more."""
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, n_layers=2))


def step_text(spec: RunSpec) -> str:
    """The step that is traced with this spec, all of whose fields it may read."""
    mesh, rate = jax.sharding.get_mesh(), learning_rate(spec.optim, spec.schedule)
    state = abstract_arrays(mesh, lambda: make_state(spec))
    tokens_BL = put(mesh, np.zeros((BATCH, LENGTH), np.int32))
    traced = jax.make_jaxpr(lambda state, x_BL, rate, seed: train_step(state, x_BL, rate, seed, spec))
    return str(traced(state, tokens_BL, rate, jnp.uint32(1)))


@pytest.fixture(autouse=True)
def compiled_quickly() -> Iterator[None]:
    with quick_compilation():
        yield


@pytest.mark.parametrize("family", Family)
def test_the_step_reads_only_what_decides_its_program(family) -> None:
    first, second = run(family), other(run(family))
    larger = dataclasses.replace(second, evaluation=EvaluationSpec(batch=32))
    assert step_program(first) == step_program(second) == step_program(larger)
    with on_mesh():
        assert compile_step(first).program is compile_step(second).program
        assert step_text(second) == step_text(step_program(second))


def test_the_evaluation_and_the_first_state_are_those_of_the_model() -> None:
    mdm, arm = run(Family.MDM), run(Family.ARM)
    for spec in (mdm, arm):
        larger = dataclasses.replace(spec.optim, global_batch=64, b2=0.99)
        hardware = HardwareSpec(microbatches=4, log_every=2)
        more = dataclasses.replace(other(spec), optim=larger, hardware=hardware)
        assert step_program(more) != step_program(spec)
        assert evaluation_program(more) == evaluation_program(spec)
        assert state_program(more) == state_program(spec)
        mixed = dataclasses.replace(
            deep(more), hardware=dataclasses.replace(hardware, remat=Remat.FULL, remat_layers=1)
        )
        whole = dataclasses.replace(mixed, hardware=dataclasses.replace(mixed.hardware, remat_layers=0))
        assert step_program(mixed) != step_program(whole)
        assert evaluation_program(mixed) == evaluation_program(whole)
        without_average = dataclasses.replace(more, optim=dataclasses.replace(larger, ema_decay=0.0))
        assert state_program(without_average) != state_program(spec)
    assert evaluation_program(arm) != evaluation_program(mdm)
    assert state_program(arm) == state_program(mdm)
    deeper = deep(mdm)
    for program in (step_program, evaluation_program, state_program):
        assert program(deeper) != program(mdm)


def test_specs_of_every_kind_have_programs() -> None:
    """A fixed field must not contradict one that is kept."""
    plain = RunSpec()
    free = dataclasses.replace(
        plain,
        model=dataclasses.replace(plain.model, mask_column=True, time_conditioning=True),
        objective=dataclasses.replace(
            plain.objective, variant=Variant.D3PM, time_steps=4, carry_over=False, zero_masking=False
        ),
    )
    wide = dataclasses.replace(
        plain,
        hardware=HardwareSpec(mesh_data=32),
        evaluation=EvaluationSpec(batch=192),
        optim=OptimSpec(global_batch=64),
    )
    for spec in (free, wide):
        for program in (step_program, evaluation_program, state_program):
            fixed = program(spec)
            assert fixed == program(fixed)
            assert fixed.model.mask_column is spec.model.mask_column
            assert fixed.hardware.mesh_data == spec.hardware.mesh_data


def test_a_seed_that_is_an_argument_draws_the_same_numbers() -> None:
    drawn = jax.jit(lambda seed, step: jax.random.key_data(noise_key(seed, step)))
    for seed in (0, 1, 12345, MOST_SEED):
        expected = jax.random.key_data(noise_key(seed, jnp.int32(7)))
        np.testing.assert_array_equal(drawn(np.uint32(seed), np.int32(7)), expected)


STATES = {
    "small": (run(Family.MDM), 1),
    "another run": (other(run(Family.ARM)), 1),
    "two layers and no average": (run_spec(Family.ARM, dataclasses.replace(MODEL, n_layers=2, d_model=12), 8), 1),
    "on two devices": (run(Family.MDM, hardware=HardwareSpec(mesh_model=2)), 2),
    "with time": (run_spec(Family.MDM, dataclasses.replace(MODEL, time_conditioning=True), 8), 1),
}


@pytest.mark.parametrize("name", STATES)
def test_the_first_state_is_that_of_the_plain_program(name) -> None:
    spec, devices = STATES[name]
    with on_mesh(1, devices):
        plain, state = jax.jit(lambda: make_state(spec))(), init_state(spec)
        assert is_drawn_here(spec.model, jax.sharding.get_mesh()) is (name not in ("on two devices", "with time"))
    assert jax.tree.structure(plain) == jax.tree.structure(state)
    for one, two in zip(jax.tree.leaves(plain), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_max_ulp(one, two, maxulp=4)  # equal with all optimisations, 2 apart without
        assert jax.typeof(one) == jax.typeof(two)
        assert (one.sharding, one.committed) == (two.sharding, two.committed)


@pytest.mark.slow
def test_the_first_state_has_the_bits_of_the_plain_program_as_users_compile_it() -> None:
    """Slow: three programs of four seconds each, in a process with all optimisations."""
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/programs/first_state.py")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "1 8 0\n2 20 0\n2 64 0\n"


def test_large_models_are_not_drawn_on_the_host() -> None:
    with on_mesh():
        mesh = jax.sharding.get_mesh()
        assert not is_drawn_here(ModelSpec(n_layers=6, d_model=256, n_heads=4, d_ffn=1024), mesh)
        assert is_drawn_here(ModelSpec(n_layers=2, d_model=64, n_heads=2, d_ffn=256), mesh)


def test_runs_of_one_shape_are_evaluated_by_one_program() -> None:
    spec = run(Family.MDM)
    rows_SL = tokens((32, LENGTH), MODEL.vocab_size)
    with on_mesh():
        params, mesh = init_state(spec).params, jax.sharding.get_mesh()
        before = nelbo._losses._cache_size()  # type: ignore[attr-defined]
        losses = [nelbo.evaluate(params, one, rows_SL, mesh).loss for one in (spec, other(spec))]
        assert nelbo._losses._cache_size() == before + 1  # type: ignore[attr-defined]
    assert losses[0] == losses[1]


def test_models_of_all_sizes_share_the_programs_that_draw() -> None:
    """For the training's calls of several steps, and for the evaluation."""
    narrow = run(Family.MDM)
    wide = dataclasses.replace(narrow, model=dataclasses.replace(narrow.model, d_model=16, d_ffn=8))
    still = dataclasses.replace(narrow, model=dataclasses.replace(narrow.model, dropout=0.0))
    assert Drawing.of_run(narrow) == Drawing.of_run(wide) != Drawing.of_run(still)
    rows_SL = tokens((48, LENGTH), MODEL.vocab_size)  # as many as no other test has
    with on_mesh():
        before = nelbo._draws._cache_size()  # type: ignore[attr-defined]
        for spec in narrow, wide:
            nelbo.evaluate(init_state(spec).params, spec, rows_SL, jax.sharding.get_mesh())
        assert nelbo._draws._cache_size() == before + 1  # type: ignore[attr-defined]


def test_two_seeds_train_with_one_program_and_different_masks() -> None:
    spec = run(Family.MDM)
    with on_mesh():
        batch_BL = put(jax.sharding.get_mesh(), tokens((BATCH, LENGTH), MODEL.vocab_size))
        losses, programs = [], 0
        for seed in (3, 4, 3):
            own = dataclasses.replace(spec, seed=seed)
            step, rate = compile_step(own), learning_rate(own.optim, own.schedule)
            _, scalars = step(init_state(spec), batch_BL, rate)
            losses.append(float(scalars["loss"]))
            programs = programs or step.program._cache_size()  # type: ignore[attr-defined]
            assert step.program._cache_size() == programs  # type: ignore[attr-defined]
    assert losses[0] == losses[2] != losses[1]
