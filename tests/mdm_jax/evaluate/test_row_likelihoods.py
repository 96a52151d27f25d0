"""Exact likelihoods of rows: they agree with loops over tokens, sum to 1, and do not depend on batches or meshes."""

import dataclasses
import functools

import enumerated
import jax
import numpy as np
import pytest
from tiny_runs import sharp_model

from mdm_jax.devices.sharding import make_mesh, place
from mdm_jax.evaluate.likelihood import rows
from mdm_jax.spec import Attention, Likelihood, ModelSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L = 3, 4
MDM = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)
ARM = dataclasses.replace(MDM, attention=Attention.CAUSAL)
ROWS = enumerated.all_rows(V, L)
EXACT = (Likelihood.LEFT_TO_RIGHT, Likelihood.CONFIDENCE)
placed = jax.jit(place)


def losses(model: ModelSpec, method: Likelihood, rows_SL=ROWS, data=1, shards=1, **options) -> np.ndarray:
    mesh = make_mesh(data, shards, jax.devices()[: data * shards])
    with jax.set_mesh(mesh):
        params = placed(sharp_model(model, mesh_model=shards))
        return rows.row_losses(params, model, rows_SL, method, mesh, **options)


@functools.cache
def table(model: ModelSpec):
    """The log-probabilities of every row of tokens and MASK (or start)."""
    inputs_SL = enumerated.all_rows(V + 1, L)
    with jax.set_mesh(make_mesh(1, 1, jax.devices()[:1])):
        log_p_SLV = enumerated.predictions_of(sharp_model(model), model)(inputs_SL)
    base_L = (V + 1) ** np.arange(L)[::-1]
    return lambda rows_SL: log_p_SLV[rows_SL @ base_L]


@pytest.mark.parametrize("method", EXACT)
def test_an_exact_likelihood_agrees_with_a_loop_and_sums_to_one(method):
    actual_S = losses(MDM, method, batch=27) * L
    nothing = np.zeros(0, np.int32)
    if method is Likelihood.CONFIDENCE:
        expected_S = [enumerated.confidence(table(MDM), nothing, row, V)[0] for row in ROWS]
    else:
        expected_S = [enumerated.left_to_right(table(MDM), nothing, row, V) for row in ROWS]
    np.testing.assert_allclose(actual_S, expected_S, rtol=1e-5)
    assert np.exp(-actual_S.astype(np.float64)).sum() == pytest.approx(1, abs=1e-6)


def test_the_two_chains_differ():
    one_S, other_S = (losses(MDM, method) for method in EXACT)
    assert np.abs(one_S - other_S).max() > 0.01


@pytest.mark.parametrize("method", [Likelihood.LEFT_TO_RIGHT, Likelihood.NELBO])
def test_an_arm_has_one_likelihood(method):
    shifted_SL = np.concatenate([np.full((len(ROWS), 1), V), ROWS[:, :-1]], 1)
    nats_SL = -np.take_along_axis(table(ARM)(shifted_SL), ROWS[..., None], -1)[..., 0]
    actual_S = losses(ARM, method)
    np.testing.assert_allclose(actual_S, nats_SL.mean(1), rtol=1e-5)
    assert np.exp(-actual_S.astype(np.float64) * L).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", EXACT)
def test_batches_parts_and_the_order_of_rows_change_nothing(method, monkeypatch):
    expected_S, order = losses(MDM, method), np.random.default_rng(0).permutation(len(ROWS))[:20]
    monkeypatch.setattr(rows, "DISPATCH_FLOPS", 1)
    np.testing.assert_allclose(losses(MDM, method, ROWS[order], batch=8), expected_S[order], rtol=1e-5)
    np.testing.assert_allclose(losses(MDM, method, ROWS[:1], batch=8), expected_S[:1], rtol=1e-5)


@pytest.mark.parametrize(("model", "method"), [(MDM, EXACT[0]), (MDM, EXACT[1]), (ARM, EXACT[0])])
def test_meshes_change_nothing(model, method):
    np.testing.assert_allclose(losses(model, method, ROWS[:21], 2, 2), losses(model, method)[:21], rtol=1e-5)


@pytest.mark.parametrize("method", EXACT)
def test_an_interrupted_evaluation_goes_on(method):
    parts = []

    def stop(losses_K):
        parts.append(losses_K.copy())
        if len(losses_K) == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        losses(MDM, method, batch=8, finished=stop)
    assert [len(part) for part in parts] == [8, 16]
    planted = parts[-1] + 1
    resumed_S = losses(MDM, method, batch=8, known=planted, finished=lambda losses_K: parts.append(losses_K.copy()))
    np.testing.assert_array_equal(resumed_S[:16], planted)
    np.testing.assert_array_equal(resumed_S[16:], losses(MDM, method, batch=8)[16:])
    assert len(parts[2]) == 24
    np.testing.assert_array_equal(losses(MDM, method, known=resumed_S), resumed_S)


BAD = [
    (MDM, Likelihood.NELBO, {}, "method = 'nelbo': must be one of left_to_right, confidence"),
    (ARM, Likelihood.CONFIDENCE, {}, "method = 'confidence': must be one of left_to_right, nelbo"),
    (MDM, Likelihood.CONFIDENCE, {"rows_SL": ROWS[:0]}, "at least one row"),
    (
        MDM,
        Likelihood.CONFIDENCE,
        {"known": np.zeros(7, np.float32), "batch": 8},
        "known losses = 7",
    ),
]


@pytest.mark.parametrize(("model", "method", "options", "said"), BAD)
def test_what_cannot_be_is_named(model, method, options, said):
    with pytest.raises(ValueError, match=said):
        losses(model, method, **options)
