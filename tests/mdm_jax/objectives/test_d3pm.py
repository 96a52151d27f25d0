"""The D3PM form against its definition: the divergence of two posteriors, from transition matrices over V+1 ids."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import reshard
from tiny_runs import run_spec, sharp_model, tokens

from mdm_jax.devices.sharding import BATCH_L, make_mesh, place, replicate
from mdm_jax.evaluate import nelbo
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives.d3pm import extra_nats
from mdm_jax.objectives.loss import draw, row_losses
from mdm_jax.objectives.noise import step_level
from mdm_jax.spec import (
    EvaluationSpec,
    Family,
    HardwareSpec,
    LevelSampler,
    ModelSpec,
    NoiseSchedule,
    ObjectiveSpec,
    OptimSpec,
    RunSpec,
    Variant,
)
from mdm_jax.train.step import draw_loss

pytestmark = pytest.mark.usefixtures("one_device")
V, L, B, T = 3, 4, 8, 5
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)


def d3pm(carry_over: bool = True, zero_masking: bool = True, noise=NoiseSchedule.COSINE) -> ObjectiveSpec:
    free: dict[str, Any] = {"carry_over": carry_over, "zero_masking": zero_masking}
    return ObjectiveSpec(Variant.D3PM, LevelSampler.STRATIFIED, noise, time_steps=T, **free)


def run_of(objective: ObjectiveSpec, **changes) -> RunSpec:
    model = dataclasses.replace(TRUNK, mask_column=not objective.zero_masking)
    base = run_spec(Family.MDM, TRUNK, L, optim=OptimSpec(global_batch=B), **changes)
    return dataclasses.replace(base, model=model, objective=objective)


def free_model(spec: ModelSpec) -> Transformer:
    """A model that gives MASK a large probability: its head is as small as a new one's."""
    model = jax.tree.map(jnp.copy, sharp_model(spec))
    model.head[...] = model.head[...] / 4
    return model


def tokens_BL() -> jax.Array:
    return reshard(jnp.asarray(tokens((B, L), V)), BATCH_L)


@functools.cache
def drawn_by(objective: ObjectiveSpec, key: int = 2):
    return jax.jit(lambda: draw(jax.random.key(key), tokens_BL(), objective, V))()


def share_kept(objective: ObjectiveSpec, i_B: np.ndarray) -> np.ndarray:
    """alpha of the cosine schedule at t = i / T."""
    assert objective.noise is NoiseSchedule.COSINE
    return np.cos(np.pi / 2 * i_B / objective.time_steps)


def divergences(x_BLW, true_BL: np.ndarray, z_BL: np.ndarray, alpha_t: np.ndarray, alpha_s: np.ndarray):
    """`[B, L]`: KL(q(z_s | z_t, x_0) || q(z_s | z_t, x)), by Bayes' rule with the matrices of both transitions."""
    mask_W = np.eye(V + 1)[V]

    def kernel(alpha_B):  # from each id to itself with probability alpha, else to MASK
        return alpha_B[:, None, None] * np.eye(V + 1) + (1 - alpha_B[:, None, None]) * mask_W

    ahead_BWW = kernel(alpha_t / alpha_s)
    likelihood_BLW = np.take_along_axis(ahead_BWW.swapaxes(1, 2), np.repeat(z_BL[..., None], V + 1, 2), 1)

    def posterior(x):
        joint = (x @ kernel(alpha_s)) * likelihood_BLW
        return joint / joint.sum(-1, keepdims=True)

    q, p = posterior(np.eye(V + 1)[true_BL]), posterior(x_BLW)
    return jnp.where(q > 0, q * (jnp.log(jnp.where(q > 0, q, 1)) - jnp.log(jnp.where(q > 0, p, 1))), 0).sum(-1)


def dense_loss(params, objective: ObjectiveSpec):
    """T times the mean divergence, and without carry-over the mean nats of the clean tokens, from whole logits."""
    drawn, true_BL = drawn_by(objective), tokens((B, L), V)

    def predicted(z_BL):
        h_BLD = hidden(params, z_BL, TRUNK, HardwareSpec())
        logits_BLW = replicate(h_BLD) @ params.head[...]
        if objective.zero_masking:
            logits_BLW = jnp.pad(logits_BLW, ((0, 0), (0, 0), (0, 1)), constant_values=-1e9)
        return replicate(jax.nn.softmax(logits_BLW))

    m_B = np.asarray(drawn.level_B, np.float64)
    i_B = np.rint(np.arccos(1 - m_B) / np.pi * 2 * T)
    alphas = share_kept(objective, i_B), share_kept(objective, i_B - 1)
    value = T * divergences(predicted(drawn.inputs_BL), true_BL, np.asarray(drawn.inputs_BL), *alphas).mean()
    if not objective.carry_over:
        clean_BLW = predicted(drawn.targets_BL)
        value -= jnp.log(jnp.take_along_axis(clean_BLW, jnp.asarray(true_BL)[..., None], -1)).mean()
    return value


SLOW = [pytest.param(carry, True, marks=pytest.mark.slow) for carry in (True, False)]


@pytest.mark.parametrize(("carry_over", "zero_masking"), [(True, False), (False, False), *SLOW])
def test_loss_and_gradient_are_those_of_the_definition(carry_over, zero_masking):
    objective = d3pm(carry_over, zero_masking)
    run, drawn = run_of(objective), drawn_by(objective)
    model = free_model(run.model)
    ours, grads = jax.jit(jax.value_and_grad(lambda w: draw_loss(place(w), drawn, run)))(model)
    theirs, expected = jax.jit(jax.value_and_grad(lambda w: dense_loss(w, objective)))(model)
    assert ours == pytest.approx(float(theirs), rel=1e-5)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4)
    assert grads.head[...].shape[1] == V + (not zero_masking)


def test_the_terms_are_not_small():
    """Neither the reconstruction term nor the terms for probability on MASK: the definition is tested."""
    whole = drawn_by(d3pm(False, False))
    params, nothing = free_model(run_of(d3pm(False, False)).model), jnp.zeros_like(whole.weight_BL)
    values = [
        float(jitted_loss(d3pm(False, False))(params, drawn))
        for drawn in (whole, whole.replace(jump_B=None), whole.replace(clean_BL=nothing))
    ]
    assert min(abs(value - values[0]) for value in values[1:]) > 0.03


def test_under_zero_masking_and_carry_over_it_is_the_steps_form_draw_by_draw():
    steps = dataclasses.replace(d3pm(), variant=Variant.STEPS)
    for key in range(3):
        one, other = drawn_by(d3pm(), key), drawn_by(steps, key)
        for name in ("inputs_BL", "targets_BL", "weight_BL", "level_B"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        values = [jitted_loss(objective)(sharp_model(TRUNK), one) for objective in (d3pm(), steps)]
        assert values[0] == values[1]


@functools.cache
def jitted_loss(objective: ObjectiveSpec):
    return jax.jit(lambda params, drawn: draw_loss(place(params), drawn, run_of(objective)))


def test_row_losses_are_the_losses_without_gradient():
    objective = d3pm(zero_masking=False)
    run, drawn = run_of(objective), drawn_by(objective)

    def both(params):
        forward = functools.partial(hidden, params, spec=run.model, hardware=run.hardware)
        rows_B = row_losses(drawn, lambda z: forward(z), params.head[...], objective, V)
        return draw_loss(params, drawn, run), rows_B.mean()

    one, other = jax.jit(lambda w: both(place(w)))(free_model(run.model))
    assert one == pytest.approx(float(other), rel=1e-5)


@pytest.mark.parametrize("steps", [2, 1000, 1 << 20])
def test_extra_nats_do_not_cancel(steps):
    """g / r in float64, from its definition, for every probability of MASK; and its slope is finite."""
    objective = dataclasses.replace(d3pm(), time_steps=steps)
    i_T = np.unique(np.geomspace(1, steps, 40).astype(np.int32))
    m_T, jump_T = step_level(objective, jnp.asarray(i_T))
    mt, ms = (1 - share_kept(objective, i.astype(float)) for i in (i_T, i_T - 1))
    with_slope = jax.jit(lambda n: jax.jvp(lambda n: extra_nats(n, m_T, jump_T), (n,), (jnp.ones_like(n),)))
    for nats in (1e-3, 0.5, 5.0, 40.0):
        x, r = np.exp(-np.float64(nats)), (mt - ms) / mt
        before = np.divide((1 - ms) * x, ms, out=np.zeros_like(ms), where=ms > 0)
        expected = (np.log1p((1 - mt) * x / mt) - (1 - r) * np.log1p(before)) / r
        value, slope = with_slope(np.full(len(i_T), nats, np.float32))
        early = m_T > 1e-6  # for less, the float64 reference itself cancels
        np.testing.assert_allclose(value[early], expected[early], rtol=2e-3, atol=2e-5)
        assert jnp.isfinite(slope).all()


def test_the_evaluation_leaves_the_mask_column_out():
    """A model is compared by the NELBO over V tokens, whatever it was trained on and on any mesh."""
    objective = d3pm(False, False)
    rows_SL = tokens((16, L), V)
    changes: dict[str, Any] = {"evaluation": EvaluationSpec(eval_tokens=16 * L, mc_samples=2, batch=8)}
    plain = run_spec(Family.MDM, TRUNK, L, optim=OptimSpec(global_batch=B), **changes)
    found = []
    for run, data, model in ((plain, 1, 1), (run_of(objective, **changes), 1, 1), (run_of(objective, **changes), 2, 2)):
        spec = dataclasses.replace(run, hardware=HardwareSpec(mesh_data=data, mesh_model=model))
        mesh = make_mesh(data, model, jax.devices()[: data * model])
        with jax.set_mesh(mesh):
            params = jax.jit(place)(sharp_model(spec.model, mesh_model=model))
            found.append(nelbo.evaluate(params, spec, rows_SL, mesh))
    assert dataclasses.astuple(found[1]) == pytest.approx(dataclasses.astuple(found[0]), rel=1e-6)
    assert dataclasses.astuple(found[2]) == pytest.approx(dataclasses.astuple(found[0]), rel=1e-5)
