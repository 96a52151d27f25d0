"""Small models make several steps in a call of the program: which steps, and that the run is the same run."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from running import Workshop, assert_same, killed_at, outcome, rows
from tiny_runs import on_mesh, put, run_spec, tokens

from mdm_jax.data.corpus import open_corpus
from mdm_jax.devices.sharding import DATA, MODEL, make_mesh, stack_batches
from mdm_jax.spec import EvaluationSpec, Family, HardwareSpec, ModelSpec, OptimSpec
from mdm_jax.train.batches import Batches, calls
from mdm_jax.train.cpu_tuning import MOST_STEPS_IN_A_CALL, steps_in_a_call
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import SCALARS, compile_step

SMALL = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_ffn=32)


def small_run(family=Family.MDM, model=SMALL, length=16, **hardware):
    optim = OptimSpec(global_batch=4, lr_peak=0.01, ema_decay=0.9)
    return run_spec(
        family, model, length, optim=optim, evaluation=EvaluationSpec(batch=8), hardware=HardwareSpec(**hardware)
    )


def test_calls_cover_the_steps_and_end_where_the_loop_acts() -> None:
    found = list(calls(7, 40, 4, lambda step: step in (10, 13, 30)))
    assert [step for steps in found for step in steps] == list(range(8, 41))
    assert found[0] == range(8, 9), "the first call compiles, and its time is not that of a step"
    assert max(len(steps) for steps in found) == 4
    assert {10, 13, 30} <= {steps[-1] for steps in found}
    assert [len(steps) for steps in found][:3] == [1, 2, 3]
    assert list(calls(7, 9)) == [range(8, 9), range(9, 10)]
    assert list(calls(9, 9, 4)) == []


def test_only_small_models_on_cpus_make_several_steps_in_a_call() -> None:
    large = dataclasses.replace(SMALL, n_layers=4, d_model=256, n_heads=4, d_ffn=1024)
    with on_mesh():
        assert steps_in_a_call(small_run()) == 10, "the metrics have a row for every tenth step"
        assert steps_in_a_call(small_run(log_every=1)) == 1
        assert steps_in_a_call(small_run(log_every=500)) == MOST_STEPS_IN_A_CALL
        assert steps_in_a_call(small_run(cpu_tuning=False)) == 1
        assert steps_in_a_call(small_run(model=large, length=128)) == 1
    device = AbstractDevice("TPU v5", 1, "tpu")
    with jax.sharding.use_abstract_mesh(
        AbstractMesh((1, 1), (DATA, MODEL), (AxisType.Explicit,) * 2, abstract_device=device)
    ):
        assert steps_in_a_call(small_run()) == 1


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("devices", [1, 2])
def test_several_steps_are_the_same_steps(family, devices) -> None:
    spec = small_run(family, mesh_data=devices)
    tokens_KBL = np.stack([tokens((4, 16), spec.model.vocab_size, seed) for seed in range(4)])
    with on_mesh(devices):
        mesh, step, rate = jax.sharding.get_mesh(), compile_step(spec), learning_rate(spec.optim, spec.schedule)
        one, last = init_state(spec), {}
        for tokens_BL in tokens_KBL[:3]:
            one, last = step(one, put(mesh, tokens_BL), rate)
        several, scalars = step.several(init_state(spec), stack_batches(mesh, tokens_KBL), 3, rate)
    assert set(scalars) == set(SCALARS)
    assert int(several.step) == 3
    jax.tree.map(np.testing.assert_array_equal, (several, scalars), (one, last))


def test_the_batches_of_a_call_are_those_of_its_steps(shop: Workshop) -> None:
    corpus_rows = open_corpus(shop.data).training_rows(4, seed=3)
    batches = Batches(corpus_rows, make_mesh(1, 1, jax.devices()[:1]), calls(5, 9, 2), most=2)
    for steps in (6,), (7, 8), (9,):
        tokens_KBL = np.asarray(batches.next(jax.numpy.zeros(())))
        assert tokens_KBL.shape == (2, 4, shop.data.seq_len)
        for index, step in enumerate(steps):
            np.testing.assert_array_equal(tokens_KBL[index], corpus_rows.read(step - 1, 0, 4))
    batches.close()


def test_a_run_is_the_same_with_several_steps_in_a_call(shop: Workshop, tmp_path) -> None:
    """Twelve steps: rows after 5, 10 and 12, checkpoints after 4, 8 and 12. The second run goes on after step 8."""
    one, several = (shop.spec(Family.MDM, log_every=5, checkpoint_every=4, cpu_tuning=tuned) for tuned in (False, True))
    assert shop.run(one, tmp_path / "one").code == 0
    killed_at(tmp_path / "one", tmp_path / "several", several, 8)
    end = shop.run(several, tmp_path / "several", "--profile", "10:11")
    assert end.code == 0, end.said
    assert "profile from step 10 to at most 11" in end.said
    assert [row["step"] for row in rows(tmp_path / "several", several)] == [5, 10, 12]
    assert_same(outcome(tmp_path / "several", several), outcome(tmp_path / "one", one))
