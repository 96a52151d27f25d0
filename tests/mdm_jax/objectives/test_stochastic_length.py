"""Batches of stochastic length: a cut batch is the batch of its short rows, for both families, in one shape."""

import dataclasses
import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import reshard
from scipy import stats
from tiny_runs import run_spec, sharp_model, tokens

from mdm_jax.devices.sharding import BATCH, BATCH_L, HEAD_DV, place
from mdm_jax.evaluate import nelbo
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives import loss as objectives
from mdm_jax.objectives import mdm
from mdm_jax.objectives.arm import equal_weights
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.masking import kept_length
from mdm_jax.spec import (
    Attention,
    EvaluationSpec,
    Family,
    FlopConvention,
    HardwareSpec,
    LevelSampler,
    ModelSpec,
    ObjectiveSpec,
    OptimSpec,
    RunSpec,
    Variant,
)
from mdm_jax.spec.counting import step_flops

pytestmark = pytest.mark.usefixtures("one_device")
V, L, B = 5, 8, 8
SHORT: dict[str, Any] = {"stochastic_length": 0.5}
FORMS = [
    ObjectiveSpec(**SHORT),
    ObjectiveSpec(levels=LevelSampler.OPTIMAL, **SHORT),
    ObjectiveSpec(levels=LevelSampler.IID, **SHORT),
    ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.STRATIFIED, **SHORT),
    ObjectiveSpec(Variant.NLL, **SHORT),
]


def test_lengths():
    keys = jax.random.split(jax.random.key(0), 4000)
    length_X = np.asarray(jax.jit(lambda: jax.lax.map(lambda key: kept_length(key, 0.5, L), keys))())
    count_L = np.bincount(length_X, minlength=L + 1)[1:]
    expected_L = np.full(L, 2000 / L) + np.eye(L)[-1] * 2000
    assert stats.chisquare(count_L, expected_L).pvalue > 1e-3
    assert (np.asarray(jax.vmap(lambda key: kept_length(key, 0.0, L))(keys[:50])) == L).all()


@functools.partial(jax.jit, static_argnums=0)
def drawn_with(objective: ObjectiveSpec, kept: int, key: int = 0) -> Draw:
    """The draw of a batch that is cut to `kept` tokens."""
    tokens_BL = jnp.asarray(tokens((B, L), V))
    if objective.variant is Variant.NLL:
        drawn = objectives.draw(jax.random.key(key), tokens_BL, ObjectiveSpec(Variant.NLL), V)
        return dataclasses.replace(drawn, weight_BL=equal_weights(tokens_BL, jnp.int32(kept)))
    return mdm.draw(jax.random.key(key), tokens_BL, objective, V, jnp.int32(kept))


@functools.partial(jax.jit, static_argnums=(0, 1))
def cut_loss(spec: ModelSpec, objective: ObjectiveSpec, model: Transformer, drawn: Draw, kept: int):
    """The loss of the cut batch, from whole rows in one shape."""
    length_B = reshard(jnp.full(B, kept, jnp.int32), BATCH)
    drawn = jax.tree.map(lambda x: reshard(x, BATCH_L) if x.ndim == 2 else x, drawn)
    head_DV = reshard(model.head[...], HEAD_DV)
    run = functools.partial(hidden, model, spec=spec, hardware=HardwareSpec(), length_B=length_B)
    return objectives.loss(drawn, lambda z, at=None: run(z, position_PM=at), head_DV, objective, V)


@functools.partial(jax.jit, static_argnums=0)
def short_nats(spec: ModelSpec, model: Transformer, inputs_BK, targets_BK):
    """The nats of each token, `[B, K]`, from rows that are as short as the cut."""
    logits_BKV = hidden(model, inputs_BK, spec, HardwareSpec()) @ model.head[...]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits_BKV), targets_BK[..., None], -1)[..., 0]


@pytest.mark.parametrize("kept", [1, 5, L])
@pytest.mark.parametrize("objective", FORMS, ids=lambda objective: objective.label)
def test_a_cut_batch_is_the_batch_of_its_short_rows(objective, kept):
    """Its loss is the weighted nats of the model on the short rows alone, and no weight is on the padding."""
    causal = objective.variant is Variant.NLL
    attention = Attention.CAUSAL if causal else Attention.BIDIRECTIONAL
    spec = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V, attention=attention)
    model, drawn = sharp_model(spec), drawn_with(objective, kept)
    weight_BL = np.asarray(drawn.weight_BL)
    nats_BK = np.asarray(short_nats(spec, model, drawn.inputs_BL[:, :kept], drawn.targets_BL[:, :kept]))
    assert (weight_BL[:, kept:] == 0).all()
    expected = (weight_BL[:, :kept] * nats_BK).sum()
    assert cut_loss(spec, objective, model, drawn, kept) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("levels", [LevelSampler.ANTITHETIC, LevelSampler.OPTIMAL])
@pytest.mark.parametrize("kept", [1, 2, 7, L])
def test_counts_are_of_the_kept_tokens(levels, kept):
    """A pair has kept + 1 masked tokens, and L + 1 positions for the head; the weights sum to 1."""
    for key in range(5):
        drawn = drawn_with(ObjectiveSpec(levels=levels, **SHORT), kept, key)
        masked_BL = np.asarray(drawn.inputs_BL) == V
        assert (masked_BL.reshape(B // 2, -1).sum(1) == L + 1).all()
        inside_BL = masked_BL[:, :kept]
        assert (inside_BL.reshape(B // 2, -1).sum(1) == kept + 1).all()
        assert (inside_BL.sum(1) >= 1).all()
        assert ((np.asarray(drawn.weight_BL)[:, :kept] > 0) == inside_BL).all()
        np.testing.assert_allclose(np.asarray(drawn.weight_BL).sum(), 1, rtol=1e-6)


def test_draws_have_both_whole_and_cut_batches_in_one_shape():
    objective, tokens_BL = FORMS[0], jnp.asarray(tokens((B, L), V))
    keys = jax.random.split(jax.random.key(0), 40)
    drawn = jax.jit(lambda: jax.lax.map(lambda key: objectives.draw(key, tokens_BL, objective, V), keys))()
    length_X = np.asarray(drawn.length_B)[:, 0]
    assert (np.asarray(drawn.length_B) == length_X[:, None]).all()
    assert 10 < (length_X == L).sum() < 35
    last_X = np.array([np.flatnonzero(row.any(0))[-1] for row in np.asarray(drawn.weight_BL) > 0])
    assert (last_X < length_X).all()


@pytest.mark.parametrize("family", list(Family))
def test_the_evaluation_reads_whole_rows(family):
    trunk = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)
    whole = run_spec(family, trunk, L, evaluation=EvaluationSpec(eval_tokens=16 * L, mc_samples=2, batch=8))
    short = dataclasses.replace(whole, objective=dataclasses.replace(whole.objective, stochastic_length=1.0))
    params, mesh = jax.jit(place)(sharp_model(whole.model)), jax.sharding.get_mesh()
    one, other = (nelbo.evaluate(params, run, tokens((16, L), V), mesh) for run in (whole, short))
    assert one == other


@pytest.mark.parametrize("convention", list(FlopConvention))
@pytest.mark.parametrize("family", list(Family))
def test_tokens_and_flops_are_the_expected_ones(family, convention):
    """SMDM's mean length L (1 - r) + r (L + 1) / 2; FLOPs by the sum over all lengths."""
    whole = run_spec(family, ModelSpec(vocab_size=V), 64, optim=OptimSpec(global_batch=4))
    share = 0.25
    short = dataclasses.replace(whole, objective=dataclasses.replace(whole.objective, stochastic_length=share))
    mean = sum(step_flops(_of_length(whole, n), convention) for n in range(2, 65)) + _of_one(whole, convention)
    expected = Fraction(3, 4) * step_flops(whole, convention) + Fraction(1, 4) * Fraction(mean, 64)
    assert step_flops(short, convention) == round(expected)
    assert short.train_tokens == 1000 * 4 * (0.75 * 64 + 0.25 * 32.5)
    assert short.run_id != whole.run_id


def _of_length(spec: RunSpec, length: int) -> RunSpec:
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, seq_len=length))


def _of_one(spec: RunSpec, convention: FlopConvention) -> int:
    """FLOPs at length 1, which no spec has: the quadratic through the lengths 2, 3 and 4."""
    two, three, four = (step_flops(_of_length(spec, n), convention) for n in (2, 3, 4))
    return 3 * two - 3 * three + four
