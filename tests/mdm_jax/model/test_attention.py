"""Every attention kernel against the reference, forward and gradients, and which kernel a device gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from tiny_runs import on_mesh

from mdm_jax.devices.sharding import BATCH_L, BATCH_LHK, DATA, MODEL, REPLICA, reshard
from mdm_jax.model.attention import Kernel, attend, attend_reference, attend_splash, pick_kernel
from mdm_jax.model.product_attention import attend_by_products
from mdm_jax.spec import Attention

pytestmark = pytest.mark.usefixtures("compiled_quickly")
BOTH = pytest.mark.parametrize("kind", list(Attention))
TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 2**-6}  # relative to the output where that is above 1


def heads(seed, shape, dtype):
    return reshard(jax.random.normal(jax.random.key(seed), shape).astype(dtype), BATCH_LHK)


def assert_is_reference(function, kind, shape, dtype, length_B=None):
    q, k, v, direction = (heads(seed, shape, dtype) for seed in range(4))
    length_B = None if length_B is None else jnp.array(length_B)

    def tokens_of(x_BLHK):  # nothing reads what padding gives
        if length_B is None:
            return x_BLHK
        return jnp.where(reshard(jnp.arange(shape[1]) < length_B[:, None], BATCH_L)[:, :, None, None], x_BLHK, 0)

    def output_and_gradients(attention, q, k, v):
        out, pull = jax.vjp(lambda *x: attention(*x, kind, length_B), q, k, v)
        return [tokens_of(out), *pull(tokens_of(direction))]

    run = jax.jit(output_and_gradients, static_argnums=0)
    for actual, expected in zip(run(function, q, k, v), run(attend_reference, q, k, v), strict=True):
        assert actual.dtype == dtype
        assert actual.sharding == q.sharding
        np.testing.assert_allclose(
            *(np.float32(x) for x in (actual, expected)), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@BOTH
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_the_form_of_this_backend_is_the_reference(kind, dtype):
    with on_mesh(2, 2):
        assert_is_reference(attend, kind, (2, 7, 4, 6), dtype)


@BOTH
def test_rows_of_two_blocks_that_keep_their_exponentials_are_the_reference(kind):
    with on_mesh(2, 2):
        assert_is_reference(attend_by_products, kind, (2, 150, 2, 6), jnp.float32, [140, 70])


@BOTH
def test_no_token_sees_the_padding_of_its_row(kind):
    with on_mesh(2, 2):
        assert_is_reference(attend, kind, (4, 7, 4, 6), jnp.float32, [7, 3, 1, 6])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(Attention.CAUSAL, jnp.float32), (Attention.BIDIRECTIONAL, jnp.float32), (Attention.CAUSAL, jnp.bfloat16)],
)
def test_long_rows_are_the_reference(kind, dtype):
    """300 tokens are two whole blocks of queries and a part of a third; padding ends in the first and the last."""
    with on_mesh(2, 2):
        assert_is_reference(attend_by_products, kind, (2, 300, 2, 6), dtype, [290, 70])


def splash_step_by_step(q, k, v, kind, length_B=None):
    return attend_splash(q, k, v, kind, length_B, interpret=True)


@BOTH
def test_splash_does_not_see_padding(kind):
    with on_mesh(2, 1):
        assert_is_reference(splash_step_by_step, kind, (2, 128, 1, 16), jnp.float32, [128, 50])


@pytest.mark.parametrize(
    ("kind", "width", "dtype"),
    [
        (Attention.CAUSAL, 64, jnp.float32),
        (Attention.BIDIRECTIONAL, 80, jnp.bfloat16),
        pytest.param(Attention.BIDIRECTIONAL, 64, jnp.float32, marks=pytest.mark.slow),
        pytest.param(Attention.CAUSAL, 80, jnp.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_splash_is_the_reference(kind, width, dtype):
    """Interpreted, in two tiles: 384 tokens are three blocks of 128."""
    with on_mesh():
        assert_is_reference(splash_step_by_step, kind, (1, 384, 1, width), dtype)


def test_splash_runs_on_each_devices_rows_and_heads():
    with on_mesh(2, 2):
        assert_is_reference(splash_step_by_step, Attention.CAUSAL, (2, 128, 2, 16), jnp.float32)


@pytest.mark.parametrize(
    ("platform", "device", "length", "width", "dtype", "kernel"),
    [
        ("tpu", "TPU v5 lite", 2048, 64, jnp.bfloat16, Kernel.SPLASH),
        ("tpu", "TPU v5", 128, 80, jnp.float32, Kernel.SPLASH),
        ("tpu", "TPU v5", 2000, 128, jnp.bfloat16, Kernel.PRODUCTS),
        ("tpu", "TPU v5", 64, 128, jnp.bfloat16, Kernel.PRODUCTS),
        ("gpu", "NVIDIA H100 80GB HBM3", 2048, 128, jnp.bfloat16, Kernel.CUDNN),
        ("gpu", "NVIDIA H100 80GB HBM3", 2048, 128, jnp.float32, Kernel.PRODUCTS),
        ("gpu", "NVIDIA H100 80GB HBM3", 2048, 20, jnp.bfloat16, Kernel.PRODUCTS),
        ("gpu", "NVIDIA H100 80GB HBM3", 2048, 256, jnp.bfloat16, Kernel.PRODUCTS),
        ("gpu", "Tesla V100-SXM2-16GB", 2048, 128, jnp.bfloat16, Kernel.PRODUCTS),
        ("cpu", "cpu", 2048, 128, jnp.bfloat16, Kernel.PRODUCTS),
        ("cpu", "cpu", 64, 128, jnp.float32, Kernel.PRODUCTS),
    ],
)
def test_the_kernel_of_a_device_and_shape(platform, device, length, width, dtype, kernel):
    assert pick_kernel(platform, device, length, width, dtype) is kernel


@pytest.mark.parametrize(("length", "splash"), [(256, True), (200, False)])
def test_the_mesh_decides_and_not_this_machine(length, splash):
    """Traced on a CPU for a TPU's mesh: the TPU's kernel where the shape fits it."""
    device = AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = AbstractMesh((1, 2, 1), (REPLICA, DATA, MODEL), (AxisType.Explicit,) * 3, abstract_device=device)
    x = jax.ShapeDtypeStruct((2, length, 2, 64), jnp.bfloat16, sharding=jax.NamedSharding(mesh, BATCH_LHK))
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.make_jaxpr(lambda q: attend(q, q, q, Attention.CAUSAL))(x)
    assert ("pallas_call" in str(traced)) is splash
