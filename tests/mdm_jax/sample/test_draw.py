"""Drawn tokens against their probabilities: over a grid of uniform numbers each token has its share of the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import log_softmax
from tiny_runs import on_mesh

from mdm_jax.devices.sharding import HEAD_DV, reshard, rows_spec
from mdm_jax.sample.canvas import Filters
from mdm_jax.sample.draw import CHUNK_POSITIONS, draw, predict

GRID = 1 << 12
pytestmark = pytest.mark.usefixtures("compiled_quickly")


def filters(rows: int, temperature=1.0, top_k=None, top_p=None) -> Filters:
    def if_given(value, dtype):
        return None if value is None else np.full(rows, value, dtype)

    return Filters(np.full(rows, temperature, np.float32), if_given(top_k, np.int32), if_given(top_p, np.float32))


def shares(logits, **options) -> np.ndarray:
    """The share of a grid of uniform numbers that draws each token."""
    logits_V = np.asarray(logits, np.float32)
    uniform_N = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    token_N = draw(jnp.tile(logits_V, (GRID, 1)), jnp.asarray(uniform_N), filters(GRID, **options))
    return np.bincount(np.asarray(token_N), minlength=len(logits_V)) / GRID


LOGITS = np.array([0.3, -1.0, 2.0, 0.3, -30.0, 1.2])


def softmax(logits) -> np.ndarray:
    return np.exp(log_softmax(np.asarray(logits, float)))


def only(logits, kept) -> np.ndarray:
    return np.where(np.isin(np.arange(len(logits)), kept), logits, -np.inf)


CASES = [
    ({}, LOGITS),
    ({"temperature": 0.5}, LOGITS / 0.5),
    ({"temperature": 3.0}, LOGITS / 3),
    ({"temperature": 0.0}, only(LOGITS, [2])),
    ({"top_k": 1}, only(LOGITS, [2])),
    ({"top_k": 2}, only(LOGITS, [2, 5])),
    ({"top_k": 3}, only(LOGITS, [2, 5, 0, 3])),  # the third and the fourth are equal
    ({"top_k": 100}, LOGITS),
    ({"top_p": 1.0}, LOGITS),
    ({"top_p": 0.5}, only(LOGITS, [2])),  # the likeliest has .54
    ({"top_p": 0.6}, only(LOGITS, [2, 5])),
    ({"top_p": 1e-6}, only(LOGITS, [2])),
    ({"top_p": 0.6, "temperature": 3.0}, only(LOGITS, [2, 5, 0, 3]) / 3),
    ({"top_p": 0.6, "top_k": 1}, only(LOGITS, [2])),
    ({"top_p": 0.7, "top_k": 2}, only(LOGITS, [2, 5])),  # of what top-k leaves, the likeliest has .69
    ({"top_p": 0.68, "top_k": 2}, only(LOGITS, [2])),
]


@pytest.mark.parametrize(("options", "expected"), CASES)
def test_each_token_has_its_share_of_the_grid(options, expected):
    assert abs(shares(LOGITS, **options) - softmax(expected)).max() <= 1.01 / GRID


def test_zero_and_the_largest_number_below_one_draw_tokens_that_can_be_drawn():
    logits_NV = jnp.tile(jnp.array([-jnp.inf, 0.0, 0.0, -jnp.inf]), (2, 1))
    edges = jnp.array([0.0, np.nextafter(np.float32(1), np.float32(0))])
    assert draw(logits_NV, edges, filters(2)).tolist() == [1, 2]


def test_the_tail_of_a_distribution_is_drawn_as_often_as_it_should():
    """2^15 tokens of the logit -17 beside a token of the logit 0 have the probability .00135 together.

    Float32 Gumbel noise is never above 15.95, so that they would only win over noise below -1.05, which the first token
    has with the probability .06: they would come out several times too rarely.
    """
    logits_V = np.full((1 << 15) + 1, -17.0, np.float32)
    logits_V[0] = 0
    tail = 1 - softmax(logits_V)[0]
    assert tail == pytest.approx(0.00135, rel=0.01)
    uniform_N = (1 - (np.arange(64) + 0.5) / 64 * 4 * tail).astype(np.float32)
    token_N = np.asarray(draw(jnp.tile(logits_V, (64, 1)), jnp.asarray(uniform_N), filters(64)))
    assert (token_N > 0).mean() == pytest.approx(1 / 4, abs=1 / 32)
    assert len(set(token_N[token_N > 0])) == 16


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_statistics_are_those_of_the_logits(mesh):
    """The positions go through the head in chunks, and the head has padding columns."""
    draws = np.random.default_rng(0)
    length = CHUNK_POSITIONS // 4 + 3
    h_BLD = draws.normal(size=(4, length, 8)).astype(np.float32)
    head_DV = draws.normal(size=(8, 6)).astype(np.float32)
    uniform_BL = draws.random((4, length)).astype(np.float32)
    with on_mesh(*mesh):

        @jax.jit
        def run(h_BLD, head_DV, uniform_BL, filters):
            by_row = jax.tree.map(lambda x: reshard(x, rows_spec(x.ndim)), (h_BLD, uniform_BL, filters))
            return predict(by_row[0], reshard(head_DV, HEAD_DV), by_row[1], 5, by_row[2])

        found = run(h_BLD, head_DV, uniform_BL, filters(4, temperature=0.0))
    log_p_BLV = log_softmax(h_BLD.astype(float) @ head_DV[:, :5])
    p_BLV = np.sort(np.exp(log_p_BLV))
    np.testing.assert_array_equal(found.token, log_p_BLV.argmax(-1))
    np.testing.assert_allclose(found.nats, -log_p_BLV.max(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.margin, p_BLV[..., -1] - p_BLV[..., -2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.entropy, -(np.exp(log_p_BLV) * log_p_BLV).sum(-1), rtol=1e-5, atol=1e-6)
