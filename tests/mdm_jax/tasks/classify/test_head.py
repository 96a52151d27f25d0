"""A head on the trunk: what it reads, what training changes, and that meshes and padding do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, sharp_model

from mdm_jax.devices.sharding import place, replicate
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import Attention, Family, HardwareSpec, ModelSpec
from mdm_jax.tasks.classify import training
from mdm_jax.tasks.classify.examples import Rows, padded_to
from mdm_jax.tasks.classify.head import Pool, class_logits, class_nats, pooled, zero_head
from mdm_jax.tasks.classify.training import Classifier, Settings, log_probabilities, read_vectors, train_head
from mdm_jax.trained.trunk import Trunk, fresh_trunk

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SPECS = {
    Family.MDM: ModelSpec(1, 16, 2, 24, 7, Attention.BIDIRECTIONAL),
    Family.ARM: ModelSpec(1, 16, 2, 24, 7, Attention.CAUSAL),
}


def rows_of(count: int, seed: int = 0, length: int = 6) -> Rows:
    """Random rows of 1 to `length` tokens; the label says whether the first token is below 3."""
    draw = np.random.default_rng(seed)
    tokens_SL = draw.integers(0, 7, (count, length)).astype(np.int32)
    length_S = draw.integers(1, length + 1, count).astype(np.int32)
    return Rows(tokens_SL, length_S, (tokens_SL[:, 0] < 3).astype(np.int32), 0)


def trunk(family: Family) -> Trunk:
    return Trunk(sharp_model(SPECS[family]), SPECS[family], jax.sharding.get_mesh())


@pytest.mark.parametrize("family", list(Family))
def test_a_vector_is_that_of_the_row_alone_without_start_token_and_padding(family):
    rows = Rows(rows_of(4).tokens_SL, np.array([2, 6, 2, 6], np.int32), np.zeros(4, np.int32), 0)
    with on_mesh():
        model = trunk(family)
        starts = family is Family.ARM
        read = jax.jit(lambda tokens_BL: hidden(model.params, tokens_BL, model.spec, HardwareSpec()))
        expected: dict[Pool, list[np.ndarray]] = {Pool.MEAN: [], Pool.LAST: []}
        for tokens_L, length in zip(rows.tokens_SL, rows.length_S, strict=True):
            row_L = np.concatenate([[7] * starts, tokens_L[:length]]).astype(np.int32)
            h_LD = np.asarray(read(jnp.asarray(row_L[None])))[0][starts:]
            expected[Pool.MEAN].append(h_LD.mean(0))
            expected[Pool.LAST].append(h_LD[-1])
        for pool in Pool:
            found = read_vectors(model, rows, pool)
            np.testing.assert_allclose(found, np.stack(expected[pool]), atol=2e-5)
            backwards = read_vectors(model, rows.take(np.arange(4)[::-1]), pool)
            np.testing.assert_allclose(backwards[::-1], found, atol=1e-6)
        longer = read_vectors(model, padded_to(rows, 9), Pool.LAST)
        np.testing.assert_allclose(longer, np.stack(expected[Pool.LAST]), atol=2e-5)


def test_the_last_vector_has_read_every_token():
    rows = dataclasses.replace(rows_of(4), length_S=np.full(4, 6, np.int32))
    last = np.arange(6) == 5
    changed = dataclasses.replace(rows, tokens_SL=np.where(last, (rows.tokens_SL + 1) % 7, rows.tokens_SL))
    with on_mesh():
        for family in Family:
            one, other = (read_vectors(trunk(family), x, Pool.LAST) for x in (rows, changed))
            assert (np.abs(one - other).max(1) > 1e-3).all()


def test_the_loss_and_its_gradient_are_the_same_on_another_mesh():
    """The model is an ARM, which puts a start token before rows that are split over devices."""
    family, rows, results = Family.ARM, rows_of(8), []

    def loss(parts, tokens_BL, length_B, label_B):
        vectors_BD = pooled(parts[0], SPECS[family], tokens_BL, length_B, Pool.MEAN)
        return class_nats(class_logits(parts[1], vectors_BD), label_B)

    for data, model in ((1, 1), (2, 2)):
        with on_mesh(data, model):
            head = jax.tree.map(lambda x: x + 0.1, zero_head(16, 3))
            parts = jax.jit(place)(sharp_model(SPECS[family], model)), head
            value, gradient = jax.jit(jax.value_and_grad(loss))(parts, rows.tokens_SL, rows.length_S, rows.label_S)
            gradient = gradient[0].blocks.qkv[...], gradient[1].weight_DC
            results.append([np.asarray(value), *(np.asarray(jax.jit(replicate)(x)) for x in gradient)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(b, a, atol=3e-6)


def test_a_new_head_gives_each_class_the_same_probability():
    with on_mesh():
        classifier = Classifier(trunk(Family.MDM), zero_head(16, 5), Pool.MEAN, 0.0)
        np.testing.assert_allclose(log_probabilities(classifier, rows_of(3)), -np.log(5), rtol=1e-6)


@pytest.mark.parametrize(("family", "freeze"), [(Family.MDM, False), (Family.ARM, False), (Family.MDM, True)])
def test_training_finds_the_rule_and_changes_only_what_it_may(family, freeze):
    """The label depends on the first token alone. The given weights stay, and one program makes all steps."""
    train, test = rows_of(400), rows_of(200, seed=1)
    settings = Settings(epochs=12, batch=16, lr=0.03 if freeze else 0.01, freeze=freeze)
    with on_mesh():
        model = trunk(family)
        before = [np.array(leaf) for leaf in jax.tree.leaves(model.params)]
        training._step.clear_cache()  # type: ignore[attr-defined]
        classifier = train_head(model, train, 2, settings, seed=0)
        assert training._step._cache_size() == 1  # type: ignore[attr-defined]
        for then, now in zip(before, jax.tree.leaves(model.params), strict=True):
            np.testing.assert_array_equal(now, then)
        same = [np.array_equal(x, y) for x, y in zip(before, jax.tree.leaves(classifier.trunk.params), strict=True)]
        assert all(same) if freeze else not any(same)
        right = (log_probabilities(classifier, test).argmax(1) == test.label_S).mean()
        assert right > (0.7 if freeze else 0.95)
        again = train_head(model, train, 2, settings, seed=0)
        np.testing.assert_array_equal(again.head.weight_DC, classifier.head.weight_DC)
        other = train_head(model, train, 2, dataclasses.replace(settings, epochs=1), seed=1)
        assert other.train_nats > classifier.train_nats


def test_more_examples_in_a_step_than_there_are():
    with on_mesh():
        classifier = train_head(trunk(Family.MDM), rows_of(5), 2, Settings(epochs=3, batch=64), seed=0)
        assert np.isfinite(classifier.train_nats)


def test_a_loss_that_is_not_finite_names_the_rate():
    with on_mesh():
        model = trunk(Family.MDM)
        broken = model._replace(params=jax.tree.map(lambda x: x * np.float32("nan"), model.params))
        with pytest.raises(ValueError, match="loss = nan: must be finite: take a smaller --lr than 9"):
            train_head(broken, rows_of(20), 2, Settings(epochs=1, lr=9.0), seed=0)


def test_fresh_weights_are_those_of_a_run_with_the_seed():
    with on_mesh():
        model = trunk(Family.ARM)
        one, other = (fresh_trunk(model, seed).params for seed in (0, 1))
        expected = jax.jit(lambda: Transformer(SPECS[Family.ARM], jax.random.key(0)))()
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(x, y)
        assert not np.array_equal(one.embed[...], other.embed[...])


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch": 1}, {"lr": 10.0}, {"lr": -1.0}])
def test_settings_out_of_range_are_named(change):
    with pytest.raises(ValueError, match=f"--{next(iter(change))} = "):
        Settings(**change)


def test_the_default_rate_is_smdm_s_at_its_width_and_larger_for_narrow_trunks():
    assert Settings().rate(768) == pytest.approx(2e-4)
    assert Settings().rate(48) == pytest.approx(3.2e-3)
    assert (Settings(freeze=True).rate(768), Settings(lr=0.5).rate(768)) == (1e-2, 0.5)
