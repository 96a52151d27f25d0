"""The losses against brute force: with 3 tokens and rows of 4, every mask, every order and every row can be summed."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import all_rows, predictions_of
from jax.sharding import reshard
from tiny_runs import sharp_model, tokens

from mdm_jax.devices.sharding import MICRO_BATCH_L, place
from mdm_jax.model.transformer import hidden
from mdm_jax.objectives import loss as objectives
from mdm_jax.objectives.noise import mask_probability, nelbo_weight
from mdm_jax.objectives.weighting import count_weights, level_weight
from mdm_jax.spec import (
    Attention,
    HardwareSpec,
    LevelSampler,
    ModelSpec,
    NoiseSchedule,
    ObjectiveSpec,
    Variant,
    Weighting,
)
from mdm_jax.spec.objective_spec import PARTIAL

pytestmark = pytest.mark.usefixtures("one_device")
V, L, B = 3, 4, 16
DRAWS = 2048
COUNT = ObjectiveSpec()
NLL = ObjectiveSpec(variant=Variant.NLL)
CONTINUOUS = {
    (noise, levels): ObjectiveSpec(Variant.CONTINUOUS, levels, noise)
    for noise in (NoiseSchedule.LOG_LINEAR, NoiseSchedule.COSINE)
    for levels in (LevelSampler.IID, LevelSampler.SHIFTED, LevelSampler.STRATIFIED)
}
WHOLE = [noise for noise in NoiseSchedule if noise not in PARTIAL]
OTHERS = [w for w in Weighting if w is not Weighting.ELBO]
WEIGHTED = [
    *(ObjectiveSpec(weighting=w) for w in OTHERS),
    *(ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.STRATIFIED, NoiseSchedule.COSINE, w) for w in OTHERS),
]
MASKS_ML = all_rows(2, L)[1:].astype(bool)
ALL_ROWS = all_rows(V, L)
ROW_L = np.array([2, 0, 1, 1], np.int32)


def name(objective: ObjectiveSpec) -> str:
    return f"{objective.label}-{objective.noise}-{objective.levels}"


def trunk(attention: Attention) -> ModelSpec:
    return ModelSpec(n_layers=1, d_model=8, n_heads=2, d_ffn=16, vocab_size=V, attention=attention)


class Scorer:
    """One random model of either kind: its log-probabilities, and the losses of draws under it."""

    def __init__(self, attention: Attention):
        self.spec = trunk(attention)
        self.model = sharp_model(self.spec)
        self.log_p = predictions_of(self.model, self.spec)
        self._losses = jax.jit(self._losses_of, static_argnums=1)

    def hidden(self, tokens_BL, position_PM=None):
        return hidden(self.model, tokens_BL, self.spec, HardwareSpec(), position_PM=position_PM)

    def _losses_of(self, draws, objective):
        head_DV = place(self.model).head[...]

        def one(drawn):
            arguments = (drawn, self.hidden, head_DV, objective, V)
            return objectives.loss(*arguments), objectives.row_losses(*arguments)

        return jax.lax.map(one, jax.tree.map(lambda x: reshard(x, MICRO_BATCH_L), draws))

    def losses(self, draws, objective: ObjectiveSpec) -> tuple[np.ndarray, np.ndarray]:
        """The `[K]` losses and `[K, B]` row losses of K draws of B rows, float64.

        Scoring reads an objective's variant alone, so one compiled program serves all continuous forms.
        """
        loss_K, row_KB = self._losses(
            draws, {o.variant: o for o in (COUNT, NLL, *CONTINUOUS.values())}[objective.variant]
        )
        return np.asarray(loss_K, np.float64), np.asarray(row_KB, np.float64)


@pytest.fixture(scope="module")
def mdm() -> Scorer:
    return Scorer(Attention.BIDIRECTIONAL)


@pytest.fixture(scope="module")
def arm() -> Scorer:
    return Scorer(Attention.CAUSAL)


@functools.cache
def draws(objective: ObjectiveSpec):
    """DRAWS independent draws for a batch of equal rows: equal, because levels are stratified over a batch's rows."""
    tokens_BL = jnp.tile(jnp.asarray(ROW_L), (B, 1))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return jax.jit(lambda: jax.lax.map(lambda key: objectives.draw(key, tokens_BL, objective, V), keys))()


def first(drawn):
    """The first of many draws, or a single one as a stack of one."""
    many = drawn.weight_BL.ndim == 3
    return jax.tree.map(lambda x: x[:1] if many else x[None], drawn)


@pytest.fixture(scope="module")
def nats_RML(mdm) -> np.ndarray:
    """`-log p(x_i | x under mask M)` of every row of tokens, every mask and every position, masked or not."""
    rows_RM = np.where(MASKS_ML, V, ALL_ROWS[:, None])
    log_p = mdm.log_p(rows_RM.reshape(-1, L)).reshape(*rows_RM.shape, V)
    return -np.take_along_axis(log_p, ALL_ROWS[:, None, :, None], -1)[..., 0]


def row_index(row_L) -> int:
    return int(np.ravel_multi_index(tuple(row_L), (V,) * L))


def nelbo_count(nats_ML: np.ndarray, weighting: Weighting = Weighting.ELBO) -> float:
    """Mean over K of the mean over all sets of K positions of their mean nats, as weighted: no draw involved."""
    size_M = MASKS_ML.sum(1)
    mean_M = (nats_ML * MASKS_ML).sum(1) / size_M
    mean_K = np.array([mean_M[size_M == k].mean() for k in range(1, L + 1)])
    return float(np.mean(count_weights(weighting, L) * mean_K))


def nelbo_continuous(nats_ML: np.ndarray, noise: NoiseSchedule, weighting: Weighting = Weighting.ELBO) -> float:
    """Gauss-Legendre over t of w(t) times the expectation over all masks."""
    x, weight_T = np.polynomial.legendre.leggauss(40 if weighting is not Weighting.CLIPPED else 1000)  # it has a kink
    t_T = jnp.asarray((x + 1) / 2, jnp.float32)
    m_T = np.asarray(mask_probability(noise, t_T), np.float64)[:, None]
    size_M = MASKS_ML.sum(1)
    probability_TM = m_T**size_M * (1 - m_T) ** (L - size_M)
    nats_M = (nats_ML * MASKS_ML).sum(1) / L
    w_T = np.asarray(nelbo_weight(noise, t_T) * level_weight(weighting, jnp.asarray(m_T[:, 0], jnp.float32)))
    return float((weight_T / 2 * w_T) @ probability_TM @ nats_M)


def test_both_forms_have_one_expectation(nats_RML):
    for row in (row_index(ROW_L), 0, 40):
        expected = nelbo_count(nats_RML[row])
        for noise in WHOLE:
            assert nelbo_continuous(nats_RML[row], noise) == pytest.approx(expected, rel=1e-5)
    losses = [nelbo_count(nats_ML) for nats_ML in nats_RML]
    assert max(losses) - min(losses) > 0.5  # the model is far from uniform, so that equality says something


@pytest.mark.parametrize("weighting", OTHERS)
def test_both_forms_of_a_weighting_have_one_expectation(nats_RML, weighting):
    nats_ML = nats_RML[row_index(ROW_L)]
    expected = nelbo_count(nats_ML, weighting)
    for noise in WHOLE:
        assert nelbo_continuous(nats_ML, noise, weighting) == pytest.approx(expected, rel=1e-5)
    assert abs(expected / nelbo_count(nats_ML) - 1) > 1e-3  # another loss than the NELBO, so that it says something


def test_count_form_is_the_any_order_likelihood(nats_RML):
    """The mean over all 4! orders of the chain rule in that order."""
    nats_ML = nats_RML[row_index(ROW_L)]
    by_mask = {tuple(mask): nats_L for mask, nats_L in zip(MASKS_ML, nats_ML, strict=True)}
    chains = [
        sum(by_mask[tuple(i in order[done:] for i in range(L))][order[done]] for done in range(L))
        for order in itertools.permutations(range(L))
    ]
    assert nelbo_count(nats_ML) == pytest.approx(np.mean(chains) / L, rel=1e-12)


def test_nelbo_is_a_bound(nats_RML):
    """Probabilities that are bounded from below over all rows sum to less than one; near one where orders agree."""
    total = sum(math.exp(-L * nelbo_count(nats_ML)) for nats_ML in nats_RML)
    assert 0.2 < total < 1


@pytest.mark.parametrize("objective", [COUNT, *CONTINUOUS.values(), *WEIGHTED], ids=name)
def test_monte_carlo_mean_of_the_training_loss(mdm, nats_RML, objective):
    loss_K, row_KB = mdm.losses(draws(objective), objective)
    expected = nelbo_count(nats_RML[row_index(ROW_L)], objective.weighting)
    se = loss_K.std(ddof=1) / len(loss_K) ** 0.5
    assert se < 0.02 * expected
    assert abs(loss_K.mean() - expected) < 4 * se
    np.testing.assert_allclose(row_KB.mean(1), loss_K, rtol=1e-4)


def test_count_form_varies_least(mdm):
    """The reason for its being the default (about 7x on trained models)."""
    variances = {o: mdm.losses(draws(o), o)[0].var() for o in (COUNT, *CONTINUOUS.values())}
    assert min(variances, key=lambda o: variances[o]) is COUNT


def test_row_losses_are_each_rows_own(mdm):
    """The loss of a row is the weighted nats of its own masked tokens, whatever the other rows are."""
    tokens_BL = jnp.asarray(tokens((B, L), V))
    for objective in (COUNT, CONTINUOUS[NoiseSchedule.COSINE, LevelSampler.STRATIFIED], WEIGHTED[0]):
        drawn = jax.jit(lambda o=objective: objectives.draw(jax.random.key(1), tokens_BL, o, V))()
        log_p = np.take_along_axis(mdm.log_p(drawn.inputs_BL), np.asarray(tokens_BL)[..., None], -1)[..., 0]
        expected_B = -B * (np.asarray(drawn.weight_BL) * log_p).sum(1)
        _, row_1B = mdm.losses(first(drawn), objective)
        np.testing.assert_allclose(row_1B[0], expected_B, rtol=1e-4)


def test_draws_hide_what_they_score(mdm):
    """MASK stands exactly where the weight is not zero, and every other token is the row's own (carry-over)."""
    for objective in (COUNT, *CONTINUOUS.values(), *WEIGHTED):
        drawn = draws(objective)
        inputs, targets, weight = (np.asarray(x) for x in (drawn.inputs_BL, drawn.targets_BL, drawn.weight_BL))
        assert (targets == ROW_L).all()
        assert ((inputs == V) == (weight > 0)).all()
        assert (inputs == np.where(weight > 0, V, ROW_L)).all()
    assert mdm.model.head.shape == (8, V)  # zero masking: the head has no column for MASK


@pytest.mark.parametrize("objective", [NLL, COUNT, *CONTINUOUS.values()], ids=name)
def test_families_score_the_same_tokens_equally(objective):
    """Every one of the tokens x_0 .. x_{L-1}, each with weight 1 / (B L): exactly (ARM), or in expectation (MDM)."""
    drawn = draws(objective)
    weight_KL = np.asarray(drawn.weight_BL, np.float64).sum(1)
    assert (np.asarray(drawn.targets_BL) == ROW_L).all()
    se_L = weight_KL.std(0, ddof=1) / len(weight_KL) ** 0.5
    if objective is NLL:
        np.testing.assert_allclose(weight_KL, 1 / L, rtol=1e-6)
    else:
        assert (np.abs(weight_KL.mean(0) - 1 / L) < 4 * se_L).all()


def chain_rule(arm: Scorer, row_L) -> list[float]:
    """Nats of each token, from the model called on each prefix alone: start, then what came before."""
    prefixes = [[V, *row_L[:i]] for i in range(L)]
    return [-arm.log_p(np.array([prefix]))[0, -1, row_L[i]] for i, prefix in enumerate(prefixes)]


def test_arm_loss_is_the_chain_rule(arm):
    loss_1, row_1B = arm.losses(first(draws(NLL)), NLL)
    expected = np.mean(chain_rule(arm, ROW_L))
    np.testing.assert_allclose(row_1B, expected, rtol=1e-5)
    assert loss_1[0] == pytest.approx(expected, rel=1e-5)


def test_arm_is_a_distribution_over_rows(arm):
    drawn = objectives.draw(jax.random.key(0), jnp.asarray(ALL_ROWS), NLL, V)
    loss_1, row_1R = arm.losses(first(drawn), NLL)
    assert np.exp(-L * row_1R).sum() == pytest.approx(1, rel=1e-5)
    assert loss_1[0] == pytest.approx(row_1R.mean(), rel=1e-5)
