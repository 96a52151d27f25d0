"""The final evaluation: the brute-force loss within its own standard error, which is itself calibrated."""

import dataclasses
import functools

import enumerated
import jax
import numpy as np
import pytest
from scipy import stats
from tiny_runs import on_mesh, run_spec, sharp_model, tokens

from mdm_jax.devices.sharding import make_mesh, place
from mdm_jax.evaluate import nelbo
from mdm_jax.spec import EvaluationSpec, Family, HardwareSpec, ModelSpec, ObjectiveSpec, OptimSpec, RunSpec, Weighting

pytestmark = pytest.mark.usefixtures("compiled_quickly")
V, L, BATCH, ROWS = 3, 4, 8, 24
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)
UNUSED = 5  # rows past the last whole batch


def spec_of(family: Family, mc_samples: int = 128, data: int = 1, model: int = 1) -> RunSpec:
    return run_spec(
        family,
        TRUNK,
        L,
        optim=OptimSpec(global_batch=BATCH),
        evaluation=EvaluationSpec(eval_tokens=ROWS * L, mc_samples=mc_samples, batch=BATCH),
        hardware=HardwareSpec(mesh_data=data, mesh_model=model),
    )


placed = jax.jit(place)


@functools.cache
def evaluate(spec: RunSpec) -> nelbo.Evaluation:
    data, model = spec.hardware.mesh_data, spec.hardware.mesh_model
    mesh = make_mesh(data, model, jax.devices()[: data * model])
    with jax.set_mesh(mesh):
        return nelbo.evaluate(placed(sharp_model(spec.model, mesh_model=model)), spec, arranged_rows(), mesh)


def nats_by_count(rows_SL: np.ndarray) -> np.ndarray:
    """`[S, L]`: the mean nats of masked tokens over all sets of 1 .. L of them."""
    spec = spec_of(Family.MDM).model
    with on_mesh():
        return enumerated.nats_by_count(enumerated.predictions_of(sharp_model(spec), spec), rows_SL, V)


@functools.cache
def arranged_rows() -> np.ndarray:
    """Rows in the order that biases most an evaluation whose levels are tied to rows.

    The four pairs of a batch draw counts (1, 4), (2, 3), (3, 2), (4, 1). The more a row loses where more of it is
    masked, the lower the count that belongs to its place.
    """
    rows_SL = tokens((ROWS + UNUSED, L), V)
    nats_SK = nats_by_count(rows_SL[:ROWS])
    by_slope = np.argsort(nats_SK[:, 0] - nats_SK[:, -1])
    places = [batch + row for row in (0, 7, 2, 5, 3, 4, 1, 6) for batch in range(0, ROWS, BATCH)]
    rows_SL[places] = rows_SL[by_slope]
    return rows_SL


@functools.cache
def row_losses(family: Family) -> np.ndarray:
    """Each used row's exact loss: by the chain rule (ARM), or the mean over all counts (MDM)."""
    rows_SL = arranged_rows()[:ROWS]
    if family is Family.MDM:
        return nats_by_count(rows_SL).mean(1)
    start_SL = np.pad(rows_SL[:, :-1], ((0, 0), (1, 0)), constant_values=V)
    spec = spec_of(family).model
    with on_mesh():
        log_p_SLV = enumerated.predictions_of(sharp_model(spec), spec)(start_SL)
    return -np.take_along_axis(log_p_SLV, rows_SL[..., None], -1)[..., 0].mean(1)


def test_arm_is_exact():
    result, expected_S = evaluate(spec_of(Family.ARM)), row_losses(Family.ARM)
    assert result.loss == pytest.approx(expected_S.mean(), rel=1e-6)
    assert result.se_mc == 0
    assert result.se_data == pytest.approx(expected_S.std(ddof=1) / ROWS**0.5, rel=1e-5)
    assert (result.tokens, result.mc_samples) == (ROWS * L, 1)


def test_mdm_is_its_nelbo():
    result, expected_S = evaluate(spec_of(Family.MDM)), row_losses(Family.MDM)
    assert abs(result.loss - expected_S.mean()) < 4 * result.se_mc
    assert 0 < result.se_mc < 0.02 * result.loss
    assert result.se_data == pytest.approx(expected_S.std(ddof=1) / ROWS**0.5, rel=0.1)
    assert (result.tokens, result.mc_samples) == (ROWS * L, 128)


def test_standard_error_is_calibrated(monkeypatch):
    """Repeated evaluations scatter around the exact loss as wide as each says of itself."""
    z = []
    for seed in range(5):
        monkeypatch.setattr(nelbo, "DRAW_SEED", seed)
        result = evaluate.__wrapped__(spec_of(Family.MDM, mc_samples=32))
        z.append((result.loss - row_losses(Family.MDM).mean()) / result.se_mc)
    assert 0.01 < stats.chi2.cdf(np.sum(np.square(z)), len(z)) < 0.99
    assert len(set(z)) == len(z)


@pytest.mark.parametrize("family", list(Family))
def test_the_mesh_changes_nothing(family):
    one, other = evaluate(spec_of(family)), evaluate(spec_of(family, data=4, model=2))
    assert dataclasses.astuple(other) == pytest.approx(dataclasses.astuple(one), rel=1e-5)


OTHERS = [w for w in Weighting if w is not Weighting.ELBO]


@pytest.mark.parametrize("weighting", [OTHERS[0], *(pytest.param(w, marks=pytest.mark.slow) for w in OTHERS[1:])])
def test_the_weighting_of_the_training_loss_changes_nothing(weighting):
    """Whatever a run was trained on, what is compared is the NELBO."""
    plain = spec_of(Family.MDM, mc_samples=2)
    assert evaluate(dataclasses.replace(plain, objective=ObjectiveSpec(weighting=weighting))) == evaluate(plain)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match=r"evaluation\.eval_tokens.*at least one batch"):
        nelbo.usable_rows(spec_of(Family.ARM), BATCH - 1)
