"""The settings that the train step takes on a CPU: which, and that they change a step's result by rounding alone."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from tiny_runs import on_mesh, put, run_spec, tokens

from mdm_jax.devices.sharding import DATA, MODEL
from mdm_jax.spec import EvaluationSpec, Family, HardwareSpec, LayerLoop, ModelSpec, OptimSpec, Remat
from mdm_jax.train.cpu_tuning import LARGE, MICROBATCH_TOKENS, MOST_HIDDEN_NUMBERS, MOST_UNROLLED, tuned
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SHALLOW = ModelSpec(n_layers=2, d_model=128, n_heads=2, d_ffn=64)
DEEP = dataclasses.replace(SHALLOW, n_layers=MOST_UNROLLED + 1)
WIDE = dataclasses.replace(SHALLOW, d_model=2048, d_ffn=64)


def large_run(model=DEEP, family=Family.MDM, batch=8, length=256, **hardware):
    optim, evaluation = OptimSpec(global_batch=batch), EvaluationSpec(batch=8)
    return run_spec(family, model, length, optim=optim, evaluation=evaluation, hardware=HardwareSpec(**hardware))


def settings(spec):
    with on_mesh(spec.hardware.mesh_data, 1):
        hardware = tuned(spec).hardware
    return hardware.layers, hardware.remat, hardware.microbatches


def test_a_large_step_is_split_and_keeps_its_products_alone():
    assert LARGE <= 8 * 256 * 128
    assert settings(large_run()) == (LayerLoop.SCAN, Remat.DOTS, 8 * 256 // MICROBATCH_TOKENS)
    assert settings(large_run(batch=12)) == (LayerLoop.SCAN, Remat.DOTS, 3)
    assert settings(large_run(batch=14)) == (LayerLoop.SCAN, Remat.DOTS, 1), "3 microbatches would cut a pair of rows"
    assert settings(large_run(batch=16, mesh_data=2)) == (LayerLoop.SCAN, Remat.DOTS, 2)
    own = (LayerLoop.SCAN, Remat.NONE, 1)
    assert settings(large_run(batch=8, mesh_data=2)) == own, "1024 tokens on each device are not large"


def test_a_large_step_of_few_layers_keeps_everything_if_its_microbatches_are_small():
    assert settings(large_run(SHALLOW)) == (LayerLoop.UNROLL, Remat.NONE, 2)
    assert MICROBATCH_TOKENS * WIDE.d_model * WIDE.n_layers > MOST_HIDDEN_NUMBERS
    assert settings(large_run(WIDE)) == (LayerLoop.SCAN, Remat.DOTS, 2)
    assert settings(large_run(SHALLOW, remat=Remat.DOTS)) == (LayerLoop.SCAN, Remat.DOTS, 2)


def test_what_a_run_sets_stays():
    assert settings(large_run(cpu_tuning=False)) == (LayerLoop.SCAN, Remat.NONE, 1)
    assert settings(large_run(SHALLOW, cpu_tuning=False)) == (LayerLoop.SCAN, Remat.NONE, 1)
    assert settings(large_run(remat=Remat.FULL, microbatches=4)) == (LayerLoop.SCAN, Remat.FULL, 4)
    assert settings(large_run(layers=LayerLoop.UNROLL)) == (LayerLoop.UNROLL, Remat.DOTS, 2)
    assert settings(large_run(batch=2)) == (LayerLoop.SCAN, Remat.NONE, 1)


def test_no_layer_of_a_step_that_recomputes_keeps_everything():
    def policies(**hardware):
        with on_mesh():
            return tuned(large_run(**hardware)).hardware.layer_policies(DEEP.n_layers)

    rest = DEEP.n_layers - 1
    assert policies(remat=Remat.DOTS, remat_layers=1) == ((Remat.DOTS, DEEP.n_layers),)
    assert policies(remat=Remat.FULL, remat_layers=1) == ((Remat.FULL, 1), (Remat.DOTS, rest))
    assert policies(remat=Remat.FULL, remat_layers=1, cpu_tuning=False) == ((Remat.FULL, 1), (Remat.NONE, rest))


def test_other_devices_take_the_runs_own_settings():
    mesh = AbstractMesh(
        (1, 1), (DATA, MODEL), (AxisType.Explicit,) * 2, abstract_device=AbstractDevice("TPU v5", 1, "tpu")
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert tuned(large_run()) == large_run()


@pytest.mark.parametrize("model", [SHALLOW, DEEP], ids=["unrolled", "recomputing"])
@pytest.mark.parametrize("family", list(Family))
def test_the_step_is_the_same_up_to_rounding(family, model):
    with on_mesh():
        after = []
        for tuning in (True, False):
            spec = large_run(model, family, cpu_tuning=tuning)
            state, rate = init_state(spec), learning_rate(spec.optim, spec.schedule)
            batch = put(jax.sharding.get_mesh(), tokens((8, 256), spec.model.vocab_size))
            new, scalars = compile_step(spec)(state, batch, rate)
            after.append((new.opt_state, scalars))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), *after)
