"""Microbatches: the gradient of the whole batch, and few arrays of the table's size. A step is compiled once."""

import dataclasses

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, put, run_spec, tokens

from mdm_jax.devices.sharding import split_over_data
from mdm_jax.objectives.loss import draw
from mdm_jax.spec import Family, HardwareSpec, ModelSpec, ObjectiveSpec, OptimSpec, Variant
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step, loss_and_grads

pytestmark = pytest.mark.usefixtures("compiled_quickly")
B, L = 8, 16
SMALL = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_ffn=32, vocab_size=64)
COMPILES = "/jax/core/compile/backend_compile_duration"


def spec_of(family: Family, model: ModelSpec, objective: ObjectiveSpec | None = None, microbatches: int = 1):
    hardware = HardwareSpec(cpu_tuning=False, microbatches=microbatches)
    spec = run_spec(family, model, L, optim=OptimSpec(global_batch=B), hardware=hardware)
    return spec if objective is None else dataclasses.replace(spec, objective=objective)


FREE = ObjectiveSpec(Variant.D3PM, time_steps=8, carry_over=False)
CONDITIONED = dataclasses.replace(SMALL, dropout=0.2, time_conditioning=True)


@pytest.mark.parametrize(
    ("family", "model", "objective"),
    [(Family.ARM, SMALL, None), (Family.MDM, CONDITIONED, None), (Family.MDM, SMALL, FREE)],
    ids=["arm", "dropout and time", "a second summand"],
)
def test_the_gradient_is_that_of_the_whole_batch(family, model, objective):
    with on_mesh():
        params = init_state(spec_of(family, model, objective)).params
        batch = put(jax.sharding.get_mesh(), tokens((B, L), model.vocab_size))
        found = []
        for microbatches in (1, 4):
            spec = spec_of(family, model, objective, microbatches)
            drawn = draw(jax.random.key(1), batch, spec.objective, model.vocab_size)
            if model.dropout:
                drawn = dataclasses.replace(drawn, seed_B=split_over_data(jnp.arange(B, dtype=jnp.uint32)))
            found.append(jax.jit(lambda p, d, spec=spec: loss_and_grads(p, d, spec))(params, drawn))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), *found)


def test_the_step_that_is_compiled_ahead_is_not_compiled_again():
    heard: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        heard.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    with on_mesh():
        spec = spec_of(Family.ARM, dataclasses.replace(SMALL, d_ffn=48))
        state, rate = init_state(spec), learning_rate(spec.optim, spec.schedule)
        batch = put(jax.sharding.get_mesh(), tokens((B, L), SMALL.vocab_size))
        step = compile_step(spec)
        heard.clear()
        step.compile(state, batch, rate)
        compiled = heard.count(COMPILES)
        jax.block_until_ready(step(state, batch, rate))
    assert heard.count(COMPILES) == compiled > 0


def test_no_second_array_of_the_tables_size_waits_for_the_gradient():
    model = dataclasses.replace(SMALL, vocab_size=20_000)
    table_bytes = 4 * model.d_model * model.vocab_size
    with on_mesh():
        spec = spec_of(Family.ARM, model, microbatches=4)
        state, rate = init_state(spec), learning_rate(spec.optim, spec.schedule)
        batch = put(jax.sharding.get_mesh(), tokens((B, L), model.vocab_size))
        stats = compile_step(spec).lower(state, batch, rate).compile().memory_analysis()
    assert stats is not None
    assert stats.temp_size_in_bytes < 5 * table_bytes  # 4.1; a gradient of the table for each microbatch makes it 6.1
