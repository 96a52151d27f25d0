"""Two policies of recomputation in one model: the result is that of one, and the memory lies between."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh, quick_compilation, sharp_model, tokens

from mdm_jax.devices.sharding import BATCH, BATCH_L, place, reshard
from mdm_jax.model.transformer import hidden
from mdm_jax.spec import Attention, HardwareSpec, LayerLoop, ModelSpec, Remat

SPEC = ModelSpec(n_layers=4, d_model=16, n_heads=2, d_ffn=24, vocab_size=12, dropout=0.2)
ROWS, LENGTH = 4, 6


def mix(remat, layers, rest=Remat.NONE, loop=LayerLoop.SCAN):
    return HardwareSpec(layers=loop, remat=remat, remat_layers=layers, remat_rest=rest)


def traced(spec, hardware, batch=ROWS, length=LENGTH):
    """The gradient of a function of the outputs, and its arguments."""
    ids_BL = tokens((batch, length), spec.vocab_size)

    def loss(model):
        seeds_B = reshard(jnp.arange(batch, dtype=jnp.uint32), BATCH) if spec.dropout else None
        h_BLD = hidden(place(model), reshard(jnp.asarray(ids_BL), BATCH_L), spec, hardware, seed_B=seeds_B)
        return jnp.sin(h_BLD).sum()

    return jax.jit(jax.value_and_grad(loss)).trace(sharp_model(spec))


@functools.cache
def value_and_gradient(attention, hardware, mesh=(1, 1)):
    spec = dataclasses.replace(SPEC, attention=attention)
    with quick_compilation(), on_mesh(*mesh):
        return jax.device_get(traced(spec, hardware).lower().compile()(sharp_model(spec)))


FURTHER = [  # each compiles for 2 to 4 s
    (Attention.CAUSAL, mix(Remat.FULL, 2, Remat.DOTS), (1, 1)),
    (Attention.BIDIRECTIONAL, mix(Remat.DOTS, 1), (1, 1)),
    (Attention.BIDIRECTIONAL, mix(Remat.FULL, 2, Remat.DOTS), (2, 2)),
    (Attention.CAUSAL, mix(Remat.FULL, 1, loop=LayerLoop.UNROLL), (1, 1)),
]
MIX = Attention.BIDIRECTIONAL, mix(Remat.FULL, 3), (1, 1)
CASES = [MIX, *(pytest.param(*case, marks=pytest.mark.slow) for case in FURTHER)]


@pytest.mark.parametrize(("attention", "hardware", "mesh"), CASES)
def test_a_mix_changes_no_number(attention, hardware, mesh):
    """The layers' dropout, which is drawn by their number, is the same too."""
    plain, actual = value_and_gradient(attention, HardwareSpec()), value_and_gradient(attention, hardware, mesh)
    for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(actual), strict=True):
        scale = max(1.0, np.abs(expected).max())  # four devices add up in another order: 2.3e-5 where the largest is 17
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("loop", "remat"), [(LayerLoop.SCAN, Remat.FULL), (LayerLoop.UNROLL, Remat.DOTS)])
def test_a_policy_for_all_layers_is_one_program(one_device, loop, remat):
    def text(layers):
        return str(traced(SPEC, mix(remat, layers, loop=loop)).lower().as_text())

    assert text(SPEC.n_layers) == text(0) != text(2)


def test_each_further_layer_that_recomputes_saves_memory(one_device):
    spec = dataclasses.replace(SPEC, n_layers=6, dropout=0.0)
    settings = HardwareSpec(), mix(Remat.FULL, 2), mix(Remat.FULL, 4)

    def kept_bytes(hardware):
        stats = traced(spec, hardware, batch=16, length=32).lower().compile().memory_analysis()
        assert stats is not None
        return stats.temp_size_in_bytes

    with quick_compilation():
        none, two, four = map(kept_bytes, settings)
    assert none > 1.2 * two > 1.44 * four


@pytest.mark.parametrize("rest", [Remat.NONE, Remat.DOTS])
def test_the_backward_pass_holds_no_copy_of_the_weights(one_device, rest):
    """It reads each layer's weights from the whole stack. A slice of the stack would be such a copy."""
    shapes = set()
    for equation in traced(SPEC, mix(Remat.FULL, 3, rest)).jaxpr.eqns:
        if equation.primitive.name == "scan" and equation.params["reverse"]:
            shapes |= {variable.aval.shape for variable in equation.invars}
    ffn = SPEC.d_model, SPEC.d_ffn
    assert (4, *ffn) in shapes
    assert not {(1, *ffn), (3, *ffn)} & shapes
