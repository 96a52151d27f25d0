"""A row of an MDM's sampler does not depend on its batch, whatever the sampler; and weights with NaN end."""

import dataclasses

import jax
import numpy as np
import pytest
from canvases import MASKED, eight_rows, fill, placed
from tiny_runs import on_mesh, sharp_model

from mdm_jax.sample.denoise import denoise
from mdm_jax.sample.samplers import KINDS

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MODEL = dataclasses.replace(MASKED, vocab_size=12)
V, L, B = MODEL.vocab_size, 8, 8
BOUNDS = {"threshold": 0.4, "entropy_bound": 2.0}
RULES = {str(name): (kind.rule, BOUNDS.get(name, 0.5)) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", RULES)
def test_a_row_alone_equals_the_row_in_a_batch(name):
    rule, bound = RULES[name]
    rows = eight_rows(V, bound)
    lengths = np.asarray(rows.length_B)
    together = fill(rows, rule, MODEL)
    assert not ((together.ids_BL == V) & (np.arange(L) < lengths[:, None])).any()
    for b in range(B):
        alone = fill(jax.tree.map(lambda x, b=b: x[b : b + 1], rows), rule, MODEL)
        kept = lengths[b]
        np.testing.assert_array_equal(alone.ids_BL[0, :kept], together.ids_BL[b, :kept])
        np.testing.assert_allclose(alone.nats_BL[0], together.nats_BL[b], atol=1e-5)
        assert alone.forwards_B[0] == together.forwards_B[b]


@pytest.mark.parametrize("name", ["first_hitting", "confidence"])
def test_a_mesh_does_not_change_the_rows(name):
    rule, bound = RULES[name]
    rows = eight_rows(V, bound)
    one, four = fill(rows, rule, MODEL), fill(rows, rule, MODEL, mesh=(2, 2))
    np.testing.assert_array_equal(one.ids_BL, four.ids_BL)
    np.testing.assert_array_equal(one.forwards_B, four.forwards_B)


@pytest.mark.parametrize("name", RULES)
def test_weights_with_nan_come_to_an_end(name):
    rule, bound = RULES[name]
    with on_mesh():
        weights = placed(jax.tree.map(lambda w: w * np.nan, sharp_model(MODEL)))
        found = jax.device_get(denoise(weights, eight_rows(V, bound), MODEL, rule))
    assert np.isnan(found.nats_BL).any()
