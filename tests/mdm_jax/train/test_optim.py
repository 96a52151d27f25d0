"""Learning rates against closed forms, and AdamW against its equations written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdm_jax.spec import OptimSpec, ScheduleKind, ScheduleSpec
from mdm_jax.train.optim import adamw, learning_rate

PEAK, FINAL = 3e-3, 0.1
OPTIM = OptimSpec(lr_peak=PEAK)


def rates(**schedule) -> np.ndarray:
    """The learning rate of every step of a run."""
    spec = ScheduleSpec(lr_final_fraction=FINAL, **schedule)
    return np.asarray(jax.jit(jax.vmap(learning_rate(OPTIM, spec).at))(jnp.arange(spec.steps)))


def close(expected):
    return pytest.approx(expected, rel=1e-5)


def test_cosine():
    """Step s (0-based) uses the rate at s + 1 of the run's length, so that the last one ends exactly at the floor."""
    rate = rates(steps=1000, warmup_steps=100)
    assert rate[0] == close(PEAK / 100)
    assert rate[49] == close(PEAK / 2)
    assert rate[99] == rate.max() == close(PEAK)
    assert rate[549] == close(PEAK * (1 + FINAL) / 2)  # half way down
    assert rate[324] == close(PEAK * (FINAL + (1 - FINAL) * (1 + np.sqrt(0.5)) / 2))  # a quarter of the half turn
    assert rate[999] == close(PEAK * FINAL)
    done = np.arange(101, 1001)
    expected = PEAK * (FINAL + (1 - FINAL) / 2 * (1 + np.cos(np.pi * (done - 100) / 900)))
    np.testing.assert_allclose(rate[100:], expected, rtol=1e-4)


def test_wsd():
    rate = rates(kind=ScheduleKind.WSD, steps=1000, warmup_steps=100, cooldown_steps=200)
    assert rate[0] == close(PEAK / 100)
    np.testing.assert_allclose(rate[99:800], PEAK, rtol=1e-6)
    assert rate[899] == close(PEAK * (1 + FINAL) / 2)
    assert rate[999] == close(PEAK * FINAL)
    np.testing.assert_allclose(np.diff(rate[799:]), -PEAK * (1 - FINAL) / 200, rtol=1e-3)


@pytest.mark.parametrize("kind", list(ScheduleKind))
def test_schedules_at_their_limits(kind):
    no_warmup = rates(kind=kind, steps=10, warmup_steps=0)
    assert no_warmup[0] <= PEAK * (1 + 1e-6)
    assert no_warmup[0] > 0.9 * PEAK
    all_warmup = rates(kind=kind, steps=10, warmup_steps=10)
    np.testing.assert_allclose(all_warmup, PEAK * np.arange(1, 11) / 10, rtol=1e-6)
    assert np.isfinite(rates(kind=kind, steps=1, warmup_steps=0)).all()
    assert np.isfinite(rates(kind=kind, steps=1, warmup_steps=1)).all()


def test_wsd_without_cooldown_is_constant():
    np.testing.assert_allclose(rates(kind=ScheduleKind.WSD, steps=50, warmup_steps=0), PEAK, rtol=1e-6)


def test_schedules_of_one_kind_share_a_program():
    """A sweep's runs differ in length and rate: these are arguments."""
    step = jax.jit(lambda rate, i: rate.at(i))
    for steps, peak in ((100, 1e-3), (2000, 5e-4)):
        rate = learning_rate(OptimSpec(lr_peak=peak), ScheduleSpec(steps=steps, warmup_steps=10))
        assert step(rate, jnp.int32(9)) == close(peak)
    assert step._cache_size() == 1  # type: ignore[attr-defined]


def clipped(gradient: dict[str, np.ndarray], most: float) -> dict[str, np.ndarray]:
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    return {name: g * min(1, most / norm) for name, g in gradient.items()}


@pytest.mark.parametrize("scale", [0.01, 100.0], ids=["not clipped", "clipped"])
def test_adamw_is_its_equations(scale):
    """Three steps of Loshchilov & Hutter's algorithm 2 (decay apart from the gradient), the gradient's norm clipped."""
    optim, lr = OptimSpec(b1=0.9, b2=0.95, weight_decay=0.1, clip_norm=1.0), 0.02
    draw = np.random.default_rng(0)
    shapes = {"matrix": (3, 4), "gain": (4,)}  # the gain decays too
    params = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    gradients = [{name: scale * draw.normal(size=shape) for name, shape in shapes.items()} for _ in range(3)]

    transform = adamw(optim)
    actual = jax.tree.map(jnp.float32, params)
    state = transform.init(actual)
    update = jax.jit(transform.update)
    for gradient in gradients:
        direction, state = update(jax.tree.map(jnp.float32, gradient), state, actual)
        actual = jax.tree.map(lambda p, d: p - lr * d, actual, direction)

    for name, p in params.items():
        m = v = np.zeros_like(p)
        for t, gradient in enumerate(gradients, start=1):
            g = clipped(gradient, 1.0)[name]
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            p = p - lr * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + 0.1 * p)
        np.testing.assert_allclose(actual[name], p, rtol=2e-5)


@pytest.mark.parametrize("size", [0.01, 30.0])
def test_the_clip_is_that_of_optax(size):
    """Below and above the greatest norm; the state is the same too, so that older checkpoints can be read."""
    grads = {"a": size * jnp.arange(1.0, 5), "b": -size * jnp.ones((2, 3))}
    ours, theirs = adamw(OPTIM), optax.clip_by_global_norm(OPTIM.clip_norm)
    clipped, _ = theirs.update(grads, theirs.init(grads))
    found, state = ours.update(grads, ours.init(grads), grads)
    again, _ = ours.update(clipped, ours.init(grads), grads)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, again)
    of_optax = optax.chain(theirs, optax.scale_by_adam(), optax.add_decayed_weights(0.1))
    assert jax.tree.structure(state) == jax.tree.structure(of_optax.init(grads))
