"""Rows through a sharded weight and out of a sharded table: values and gradients are those of plain products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import on_mesh

from mdm_jax.devices.sharding import (
    BATCH_L,
    BATCH_LCHK,
    BATCH_LD,
    BATCH_LF,
    DATA,
    STORED,
    PartitionSpec,
    layout,
    reshard,
)
from mdm_jax.model.layers import look_up, project

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MESHES = pytest.mark.parametrize("mesh", [(1, 1), (8, 1), (2, 4)], ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")


def normal(seed, shape, spec=None):
    x = jax.random.normal(jax.random.key(seed), shape)
    return x if spec is None else reshard(x, spec)


def one_layer(name):
    return PartitionSpec(*STORED[name][1:])


PRODUCTS = {
    "qkv": ("td,dchk->tchk", (16, 3, 4, 2), BATCH_LCHK, BATCH_LD, (8, 6, 16)),
    "gate": ("td,df->tf", (16, 24), BATCH_LF, BATCH_LD, (8, 6, 16)),
    "down": ("tf,fd->td", (24, 16), BATCH_LD, BATCH_LF, (8, 6, 24)),
}


@MESHES
@pytest.mark.parametrize("name", list(PRODUCTS))
def test_products_and_gradients(mesh, name):
    equation, weight_shape, out, into, x_shape = PRODUCTS[name]
    plain = equation.replace("t", "bl")

    def results(product, x, weight):
        y, pull = jax.vjp(product, x, weight)
        return y, *pull(jnp.ones_like(y) * jnp.asarray(0.5, y.dtype))

    with on_mesh(*mesh):
        x, weight = normal(0, x_shape, into), normal(1, weight_shape, one_layer(name))
        actual = jax.jit(lambda x, w: results(lambda x, w: project(x, w, equation, out), x, w))(x, weight)
        assert [layout(a) for a in actual] == [out, into, layout(weight)]
        host_x, host_weight = np.asarray(x), np.asarray(weight)
    expected = jax.jit(lambda x, w: results(lambda x, w: jnp.einsum(plain, x, w), x, w))(host_x, host_weight)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-5, atol=1e-5)


@MESHES
def test_looked_up_rows_and_their_gradients(mesh):
    table = np.asarray(normal(2, (11, 16)))
    tokens = np.asarray(jax.random.randint(jax.random.key(3), (8, 6), 0, 11))
    weights = np.asarray(normal(4, (8, 6, 16)))
    with on_mesh(*mesh):
        stored = reshard(jnp.asarray(table), STORED["embed"])
        z, w = reshard(jnp.asarray(tokens), BATCH_L), reshard(jnp.asarray(weights), BATCH_LD)
        run = jax.jit(jax.value_and_grad(lambda t: (look_up(t, z, "float32") * w).sum()))
        value, gradient = run(stored)
        assert layout(gradient) == STORED["embed"]
    expected = np.zeros_like(table)
    np.add.at(expected, tokens.reshape(-1), weights.reshape(-1, 16))
    assert float(value) == pytest.approx((table[tokens] * weights).sum(), rel=1e-5)
    np.testing.assert_allclose(np.asarray(gradient), expected, rtol=1e-5, atol=1e-5)


def test_a_row_that_every_token_reads_keeps_its_whole_gradient():
    """4096 equal contributions: their sum in bfloat16 would stop at 256 of them."""
    with on_mesh(2, 1):
        table = reshard(jnp.ones((3, 8)), STORED["embed"])
        tokens = reshard(jnp.full((64, 64), 2), BATCH_L)
        gradient = jax.jit(jax.grad(lambda t: look_up(t, tokens, "bfloat16").astype(jnp.float32).sum()))(table)
        np.testing.assert_array_equal(np.asarray(gradient), [[0.0] * 8, [0.0] * 8, [4096.0] * 8])


def test_gradients_of_weights_are_summed_in_float32():
    """Rows of bfloat16 whose products differ by eight orders of magnitude over the devices: nothing is rounded away."""
    with on_mesh(8, 1):
        x = reshard(jnp.asarray([[[1.0]]] * 4 + [[[2.0**-10]]] * 4, jnp.bfloat16), BATCH_LD)
        weight = reshard(jnp.ones((1, 8)), PartitionSpec(None, DATA))
        gradient = jax.jit(jax.grad(lambda w: project(x, w, "tf,fd->td", BATCH_LD).astype(jnp.float32).sum()))(weight)
        np.testing.assert_array_equal(np.asarray(gradient), [[4 + 4 * 2.0**-10] * 8])
