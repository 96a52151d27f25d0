"""The control variate leaves the expectation alone, summed over all counts and masks, and lowers the variance."""

import dataclasses
import itertools
from collections.abc import Iterator
from math import comb

import enumerated
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, put, run_spec, sharp_model, tokens

from mdm_jax.devices.sharding import make_mesh, place
from mdm_jax.evaluate import nelbo
from mdm_jax.evaluate.control_variate import (
    controlled_losses,
    draw_weights,
    group_counts,
    group_draw,
    group_losses,
    predictions,
    stratum_edges,
)
from mdm_jax.model.transformer import hidden
from mdm_jax.spec import Estimator, EvaluationSpec, Family, HardwareSpec, ModelSpec, OptimSpec, RunSpec

losses_of_draws = jax.jit(controlled_losses)
V, L, ROWS, BATCH = 3, 4, 32, 64
TRUNK = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V)


def masks_of_size(length: int, count: int) -> list[np.ndarray]:
    return [np.isin(np.arange(length), chosen) for chosen in itertools.combinations(range(length), count)]


def count_probabilities(length: int, pairs: int) -> np.ndarray:
    """`[J, L]`: the probability that the first draw of pair j masks 1 .. L tokens, from the edges of its stratum."""
    edge_J, k = stratum_edges(pairs), np.arange(length)
    low_JL = np.maximum(edge_J[:-1, None], k / length)
    high_JL = np.minimum(edge_J[1:, None], (k + 1) / length)
    return np.maximum(high_JL - low_JL, 0) / np.diff(edge_J)[:, None]


def outcomes(length: int, draws: int) -> Iterator[tuple[float, np.ndarray]]:
    """Every group of masks `[R, L]` of a row, with its probability."""
    probability_JL = count_probabilities(length, draws // 2)
    for counts in itertools.product(range(1, length + 1), repeat=draws // 2):
        chance = np.prod([probability_JL[j, k - 1] for j, k in enumerate(counts)])
        sizes = [size for k in counts for size in (k, length + 1 - k)]
        if chance > 0:
            share = float(chance) / np.prod([comb(length, size) for size in sizes])
            for masks in itertools.product(*(masks_of_size(length, size) for size in sizes)):
                yield share, np.stack(masks)


def arbitrary_nats(length: int) -> np.ndarray:
    """`[2^L, L]`: nats of each token under each mask, as unlike each other as no trained model's are."""
    return np.random.default_rng(length).gamma(0.5, 3.0, (2**length, length)).astype(np.float32)


def nats_under(mask_xL: np.ndarray) -> np.ndarray:
    length = mask_xL.shape[-1]
    return arbitrary_nats(length)[mask_xL @ (1 << np.arange(length))]


def exact_nelbo(length: int) -> float:
    by_count = [[nats_under(m)[m].mean() for m in masks_of_size(length, k)] for k in range(1, length + 1)]
    return float(np.mean([np.mean(losses) for losses in by_count]))


@pytest.mark.parametrize(("length", "draws"), [(2, 4), (3, 4), (4, 4), (5, 4), (2, 8), (3, 6)])
def test_the_expectation_is_the_nelbo(length: int, draws: int) -> None:
    chances, masks = zip(*outcomes(length, draws), strict=True)
    mask_SRL = np.stack(masks)
    loss_S = np.asarray(losses_of_draws(jnp.asarray(nats_under(mask_SRL)), jnp.asarray(mask_SRL)), np.float64).mean(1)
    assert np.sum(chances) == pytest.approx(1, abs=1e-12)
    assert np.dot(chances, loss_S) == pytest.approx(exact_nelbo(length), rel=1e-6)
    assert loss_S.std() > 0.01


def test_a_draw_does_not_enter_its_own_prediction() -> None:
    rng = np.random.default_rng(0)
    mask_SRL, nats_SRL = rng.random((1, 6, 5)) < 0.6, 4 * rng.random((1, 6, 5)).astype(np.float32)
    mask_SRL[..., 0] = True
    before = np.asarray(predictions(jnp.asarray(nats_SRL), jnp.asarray(mask_SRL)))
    mask_SRL[0, 2], nats_SRL[0, 2] = ~mask_SRL[0, 2], 7.0
    mask_SRL[0, 2, 0] = True
    after = np.asarray(predictions(jnp.asarray(nats_SRL), jnp.asarray(mask_SRL)))
    np.testing.assert_allclose(after[0, 2], before[0, 2], atol=1e-6)
    assert np.abs(after[0, 3] - before[0, 3]).max() > 0.1


@pytest.mark.parametrize("length", [2, 5, 8, 63])
def test_counts_follow_their_strata(length: int) -> None:
    """Over a group, weighted by the strata's widths, every count from 1 to L is equally likely."""
    rows, draws = 4000, 6
    count_SR = np.asarray(group_counts(jax.random.key(0), rows, draws, length))
    assert count_SR.min() >= 1
    assert (count_SR[:, 0::2] + count_SR[:, 1::2] == length + 1).all()
    expected_JL = count_probabilities(length, draws // 2)
    for j in range(draws // 2):
        seen_L = np.bincount(count_SR[:, 2 * j] - 1, minlength=length) / rows
        assert np.abs(seen_L - expected_JL[j]).max() < 5 * (0.25 / rows) ** 0.5
        assert (seen_L[expected_JL[j] == 0] == 0).all()
    both_RL = np.repeat(expected_JL, 2, 0)
    both_RL[1::2] = both_RL[1::2, ::-1]
    np.testing.assert_allclose(draw_weights(draws) @ both_RL / draws, 1 / length)


def test_less_variance_where_some_tokens_are_harder() -> None:
    """Tokens differ by a fixed effect, and each draw adds its own noise: most of the variance is that of the effect."""
    rng, rows, draws, length = np.random.default_rng(1), 300, 8, 24
    count_SR = np.asarray(group_counts(jax.random.key(1), rows, draws, length))
    mask_SRL = rng.random((rows, draws, length)).argsort(-1).argsort(-1) < count_SR[..., None]
    nats_SRL = 2 + 1.5 * rng.standard_normal((1, 1, length)) + 0.5 * rng.standard_normal(mask_SRL.shape)
    plain_SR = (nats_SRL * mask_SRL).sum(-1) / count_SR * draw_weights(draws)
    controlled_SR = np.asarray(losses_of_draws(jnp.asarray(nats_SRL, jnp.float32), jnp.asarray(mask_SRL)))
    assert controlled_SR.mean(1).var() < 0.35 * plain_SR.mean(1).var()


def spec_of(data: int = 1, model: int = 1, estimator: Estimator = Estimator.CONTROL_VARIATE) -> RunSpec:
    evaluation = EvaluationSpec(ROWS * L, 16, BATCH, estimator=estimator)
    hardware = HardwareSpec(mesh_data=data, mesh_model=model)
    return run_spec(Family.MDM, TRUNK, L, optim=OptimSpec(global_batch=8), evaluation=evaluation, hardware=hardware)


def rows() -> np.ndarray:
    repeated = tokens((ROWS * 2, L), V, seed=3)[:ROWS]
    return np.concatenate([repeated, repeated])


def evaluated(spec: RunSpec, **arguments) -> nelbo.Evaluation:
    data, model = spec.hardware.mesh_data, spec.hardware.mesh_model
    mesh = make_mesh(data, model, jax.devices()[: data * model])
    with jax.set_mesh(mesh):
        params = jax.jit(place)(sharp_model(spec.model, mesh_model=model))
        return nelbo.evaluate(params, spec, rows(), mesh, **arguments)


def exact_loss(spec: RunSpec) -> float:
    """The mean NELBO of the rows, summed over all masks."""
    with on_mesh():
        log_p = enumerated.predictions_of(sharp_model(spec.model), spec.model)
        return float(enumerated.nats_by_count(log_p, rows(), V).mean())


def repeated(
    monkeypatch: pytest.MonkeyPatch, repetitions: int, estimator: Estimator = Estimator.CONTROL_VARIATE
) -> tuple[np.ndarray, np.ndarray]:
    """The errors of repeated evaluations, and the standard errors that they report."""
    spec, found = spec_of(estimator=estimator), []
    for seed in range(repetitions):
        monkeypatch.setattr(nelbo, "DRAW_SEED", seed)
        found.append(evaluated(spec))
    assert (found[0].tokens, found[0].mc_samples) == (2 * ROWS * L, 16)
    return np.array([one.loss for one in found]) - exact_loss(spec_of()), np.array([one.se_mc for one in found])


def test_an_evaluation_is_the_nelbo_with_an_honest_error(compiled_quickly, monkeypatch) -> None:
    """Forty repetitions know the actual error to 11%."""
    error_N, reported_N = repeated(monkeypatch, 40)
    assert abs(error_N.mean()) < 4 * reported_N.mean() / 40**0.5
    assert 0.7 < reported_N.mean() / error_N.std(ddof=1) < 1.4


@pytest.mark.slow
@pytest.mark.parametrize("estimator", Estimator)
def test_the_error_is_within_a_tenth(estimator: Estimator, compiled_quickly, monkeypatch) -> None:
    """Four hundred repetitions know it to 3.5%."""
    error_N, reported_N = repeated(monkeypatch, 400, estimator)
    assert abs(error_N.mean()) < 4 * reported_N.mean() / 400**0.5
    assert 0.9 < reported_N.mean() / error_N.std(ddof=1) < 1.1


def test_the_mesh_changes_nothing(compiled_quickly) -> None:
    one, other = evaluated(spec_of()), evaluated(spec_of(4, 2))
    assert dataclasses.astuple(other) == pytest.approx(dataclasses.astuple(one), rel=1e-5)


def test_an_interrupted_evaluation_goes_on_with_the_same_bits(compiled_quickly, monkeypatch) -> None:
    monkeypatch.setattr(nelbo, "DISPATCH_FLOPS", 1)  # a batch at a time
    whole: list[np.ndarray] = []
    expected = evaluated(spec_of(), finished=whole.append)
    assert len(whole) == 2 * ROWS * 16 // BATCH
    for done in (1, 8, 11):
        resumed: list[np.ndarray] = []
        assert evaluated(spec_of(), known=whole[done - 1].copy(), finished=resumed.append) == expected
        assert len(resumed) == len(whole) - done


def test_the_arm_ignores_the_estimator(compiled_quickly) -> None:
    found = evaluated(run_spec(Family.ARM, TRUNK, L, evaluation=spec_of().evaluation))
    assert (found.tokens, found.mc_samples, found.se_mc) == (2 * ROWS * L, 1, 0)


def test_a_row_does_not_depend_on_the_others(one_device) -> None:
    """The losses of a row come from its own draws."""
    spec = spec_of().model
    params = jax.jit(place)(sharp_model(spec))

    @jax.jit
    def losses(rows_SL):
        def run(tokens_BL, position_PM):
            return hidden(params, tokens_BL, spec, HardwareSpec(), position_PM=position_PM)

        drawn = group_draw(jax.random.key(5), rows_SL, V, 4)
        return group_losses(drawn, run, params.head[...], V, 4).reshape(-1, 4)

    first_SL, mesh = tokens((6, L), V), jax.sharding.get_mesh()
    other_SL = np.concatenate([first_SL[:3], tokens((3, L), V, seed=9)])
    before_SR, after_SR = (np.asarray(losses(put(mesh, rows_SL))) for rows_SL in (first_SL, other_SL))
    np.testing.assert_allclose(after_SR[:3], before_SR[:3], rtol=1e-5)
    assert not np.allclose(after_SR[3:], before_SR[3:])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mc_samples": 8}, r"mc_samples = 8: must be a multiple of 16"),
        ({"mc_samples": 24}, r"mc_samples = 24: must be a multiple of 16"),
        ({"batch": 12}, r"evaluation\.batch = 12: must be a multiple of 8"),
        ({"batch": 24, "mc_samples": 32}, r"evaluation\.batch = 24: must be a multiple of 16"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RunSpec(evaluation=EvaluationSpec(estimator=Estimator.CONTROL_VARIATE, **change))


def test_every_device_needs_whole_groups() -> None:
    evaluation = EvaluationSpec(batch=24, estimator=Estimator.CONTROL_VARIATE)
    with pytest.raises(ValueError, match=r"evaluation\.batch = 24: must be a multiple of 16"):
        RunSpec(evaluation=evaluation, hardware=HardwareSpec(mesh_data=2))
    RunSpec(evaluation=dataclasses.replace(evaluation, estimator=Estimator.COUNTS), hardware=HardwareSpec(mesh_data=2))
