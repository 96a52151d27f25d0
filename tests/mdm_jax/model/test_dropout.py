"""Dropout: the share of zeros, its mean, and where its zeros come from: the row's seed and the place alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, sharp_model, tokens

from mdm_jax.devices.sharding import BATCH_LD, place, reshard
from mdm_jax.model.dropout import dropout
from mdm_jax.model.transformer import hidden
from mdm_jax.spec import HardwareSpec, LayerLoop, ModelSpec

pytestmark = pytest.mark.usefixtures("compiled_quickly")
B, L, D, RATE = 8, 16, 32, 0.3
SEEDS_B = np.arange(10, 10 + B, dtype=np.uint32)
ONE = HardwareSpec()
TRUNK = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_ffn=32, vocab_size=5, dropout=RATE)


def dropped(seed_B, number: int, data: int = 1, model: int = 1) -> np.ndarray:
    with on_mesh(data, model):
        run = jax.jit(lambda seed_B: dropout(reshard(jnp.ones((B, L, D)), BATCH_LD), RATE, seed_B, number))
        return np.asarray(run(jnp.asarray(seed_B)))


def test_zeros_and_scale():
    x_BLD = dropped(SEEDS_B, 0)
    share = (x_BLD == 0).mean()
    assert abs(share - RATE) < 4 * (RATE * (1 - RATE) / x_BLD.size) ** 0.5
    np.testing.assert_allclose(x_BLD[x_BLD != 0], 1 / (1 - RATE), rtol=1e-6)


def test_zeros_follow_the_seed_and_the_place():
    x_BLD = dropped(SEEDS_B, 0)
    np.testing.assert_array_equal(dropped(SEEDS_B[::-1].copy(), 0), x_BLD[::-1])
    np.testing.assert_array_equal(dropped(SEEDS_B, 0, 2, 2), x_BLD)
    for other in (dropped(SEEDS_B, 1), dropped(SEEDS_B + 100, 0)):
        agree = ((other == 0) == (x_BLD == 0)).mean()
        assert agree == pytest.approx(RATE**2 + (1 - RATE) ** 2, abs=0.03)


def outputs(spec: ModelSpec, seed_B=None, hardware=ONE) -> np.ndarray:
    with on_mesh():
        run = jax.jit(lambda w, z, s: hidden(place(w), z, spec, hardware, seed_B=s))
        seeds = None if seed_B is None else jnp.asarray(seed_B)
        return np.asarray(run(sharp_model(spec), jnp.asarray(tokens((B, L), 5)), seeds))


def test_it_is_off_without_seeds():
    np.testing.assert_array_equal(outputs(TRUNK), outputs(dataclasses.replace(TRUNK, dropout=0.0)))


def test_every_place_of_a_model_has_its_own_zeros():
    """Rows with equal seeds are equal, and each of the model's places drops: embedding, two branches, two layers."""
    one, other = outputs(TRUNK, SEEDS_B), outputs(TRUNK, SEEDS_B, HardwareSpec(layers=LayerLoop.UNROLL))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert np.abs(one - outputs(TRUNK)).max() > 0.1
    with on_mesh():
        run = jax.make_jaxpr(lambda w, z, s: hidden(w, z, TRUNK, HardwareSpec(layers=LayerLoop.UNROLL), seed_B=s))
        text = str(run(sharp_model(TRUNK), jnp.asarray(tokens((B, L), 5)), jnp.asarray(SEEDS_B)))
    assert text.count("random_fold_in") == 1 + 2 * TRUNK.n_layers
