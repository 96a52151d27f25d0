"""The fused vocabulary loss: its values and gradients are the dense loss's, and no `[B, L, V]` array exists."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import reshard
from tiny_runs import on_mesh, put, run_spec, tokens

from mdm_jax.devices.sharding import BATCH, BATCH_L, HEAD_DV, make_mesh
from mdm_jax.model.transformer import hidden
from mdm_jax.objectives.loss import draw
from mdm_jax.objectives.vocab_loss import (
    CHUNK_ROWS,
    token_and_likeliest_nats,
    token_nats,
    token_nats_reference,
    vocab_loss,
)
from mdm_jax.spec import Family, ModelSpec, OptimSpec, RunSpec
from mdm_jax.train.optim import learning_rate
from mdm_jax.train.state import init_state
from mdm_jax.train.step import compile_step

pytestmark = pytest.mark.usefixtures("one_device")
D = 8


def arguments(rows: int, vocab_size: int, dtype=jnp.float32):
    """Hidden rows, targets, weights (some of them 0) and a head, one device's float32 arrays (rows in `dtype`)."""
    key_h, key_target, key_weight, key_head = jax.random.split(jax.random.key(0), 4)
    weight_N = jax.random.uniform(key_weight, (rows,)) * (jnp.arange(rows) % 5 > 0) / rows
    return (
        jax.random.normal(key_h, (rows, D)).astype(dtype),
        jax.random.randint(key_target, (rows,), 0, vocab_size),
        weight_N,
        jax.random.normal(key_head, (D, vocab_size)),
    )


def loss_and_gradients(loss, h_ND, target_N, weight_N, head_DV):
    """The loss, three times which is differentiated by the rows and the head."""
    value, pull = jax.vjp(lambda h, head: loss(h, target_N, weight_N, head), h_ND, head_DV)
    return value, *pull(jnp.float32(3))


def dense(h_ND, target_N, weight_N, head_DV):
    return (weight_N * token_nats_reference(h_ND, target_N, head_DV)).sum()


@jax.jit
def reference(*arrays):
    return token_nats_reference(arrays[0], arrays[1], arrays[3]), loss_and_gradients(dense, *arrays)


def fused(h_ND, target_N, weight_N, head_DV, mesh_model: int = 1):
    """The fused loss and its gradients in a run's layout. Garbage pads the head until `mesh_model` divides it."""
    vocab_size = head_DV.shape[1]

    @jax.jit
    def run(h_ND, target_N, weight_N, head_DV):
        pad = -vocab_size % mesh_model
        head_DV = jnp.pad(head_DV, ((0, 0), (0, pad)), constant_values=9.0)
        layouts = (BATCH_L, BATCH, BATCH, HEAD_DV)
        arrays = [reshard(x, spec) for x, spec in zip((h_ND, target_N, weight_N, head_DV), layouts, strict=True)]
        nats_N = token_nats(arrays[0], arrays[1], arrays[3], vocab_size)
        return nats_N, loss_and_gradients(
            lambda h, target, weight, head: vocab_loss(h, target, weight, head, vocab_size), *arrays
        )

    nats_N, (loss, dh_ND, dhead_DV) = jax.device_get(run(h_ND, target_N, weight_N, head_DV))
    assert (dhead_DV[:, vocab_size:] == 0).all()
    return nats_N, (loss, dh_ND, dhead_DV[:, :vocab_size])


@pytest.mark.parametrize(
    ("rows", "vocab_size", "mesh"),
    [
        (40, 11, (1, 1)),
        (2 * CHUNK_ROWS + 453, 11, (1, 1)),  # two chunks, the last one ragged
        (4 * CHUNK_ROWS + 910, 11, (2, 1)),  # the same on each device
        (40, 257, (1, 8)),  # 257 columns divide by nothing
        (40, 257, (4, 2)),
    ],
)
def test_fused_is_dense(rows, vocab_size, mesh):
    arrays = [np.asarray(x) for x in arguments(rows, vocab_size)]
    expected_N, expected = reference(*arrays)
    with on_mesh(*mesh):
        actual_N, actual = fused(*arrays, mesh_model=mesh[1])
    np.testing.assert_allclose(actual_N, expected_N, rtol=1e-5, atol=1e-5)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * float(jnp.abs(y).max()))


def test_bfloat16_rows():
    """Gradients come in the rows' dtype and close to those of float32; the loss is summed in float32."""
    _, (expected, dh32_ND, dhead32_DV) = reference(*arguments(40, 11))
    _, (loss, dh_ND, dhead_DV) = fused(*arguments(40, 11, jnp.bfloat16))
    assert (loss.dtype, dh_ND.dtype, dhead_DV.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    assert loss == pytest.approx(float(expected), rel=1e-2)
    for rough, exact in ((dh_ND, dh32_ND), (dhead_DV, dhead32_DV)):
        assert np.linalg.norm(np.float32(rough) - exact) < 2e-2 * np.linalg.norm(exact)


def test_large_logits_overflow_nothing():
    h_ND, target_N, weight_N, head_DV = arguments(40, 11)
    arrays = (300 * h_ND, target_N, weight_N, head_DV)
    (nats_N, actual), (expected_N, expected) = fused(*arrays), reference(*arrays)
    assert expected_N.max() > 1000
    np.testing.assert_allclose(nats_N, expected_N, rtol=1e-5, atol=1e-3)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * float(jnp.abs(y).max()))


# A prime vocabulary that divides no other size: an array's size tells whether it has a number for each word.
WORDS, BATCH_ROWS, LENGTH = 97, 8, 512
TRUNK = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_ffn=32, vocab_size=WORDS)


def largest_over_the_vocabulary(program: str) -> int:
    """Rows of the largest array of a compiled program that holds a number for each word of the vocabulary."""
    shapes = (shape.split(",") for shape in re.findall(r"\b(?:pred|bf16|[fsu]\d+)\[([\d,]+)\]", program))
    sizes = (int(np.prod([int(n) for n in shape])) for shape in shapes)
    return max(size // WORDS for size in sizes if size % WORDS == 0)


def compiled(function, *arrays) -> str:
    """The compiled program's text. Leaves go in flat: jax puts its own records into our dataclasses otherwise."""
    leaves, tree = jax.tree.flatten(arrays)
    return jax.jit(lambda *x: function(*tree.unflatten(x))).lower(*leaves).compile().as_text() or ""


def program_of_step(spec: RunSpec) -> str:
    batch_BL = put(make_mesh(1, 1, jax.devices()[:1]), tokens((BATCH_ROWS, LENGTH), WORDS))
    return compiled(compile_step(spec), init_state(spec), batch_BL, learning_rate(spec.optim, spec.schedule))


@pytest.mark.parametrize("family", [Family.MDM, pytest.param(Family.ARM, marks=pytest.mark.slow)])
def test_no_array_of_the_step_holds_all_logits(family):
    spec = run_spec(family, TRUNK, LENGTH, optim=OptimSpec(global_batch=BATCH_ROWS))
    assert 0 < largest_over_the_vocabulary(program_of_step(spec)) < 1.5 * CHUNK_ROWS < BATCH_ROWS * LENGTH // 2


def test_the_search_finds_all_logits_of_a_dense_loss():
    spec = run_spec(Family.ARM, TRUNK, LENGTH, optim=OptimSpec(global_batch=BATCH_ROWS))
    state = init_state(spec)
    drawn = draw(jax.random.key(0), jnp.asarray(tokens((BATCH_ROWS, LENGTH), WORDS)), spec.objective, WORDS)

    def dense_loss(params):
        h_BLD = hidden(params, drawn.inputs_BL, spec.model, spec.hardware)
        flat = (h_BLD.reshape(-1, TRUNK.d_model), drawn.targets_BL.reshape(-1), drawn.weight_BL.reshape(-1))
        return dense(*flat, reshard(params.head[...], jax.P(None, None)))

    assert largest_over_the_vocabulary(compiled(jax.grad(dense_loss), state.params)) >= BATCH_ROWS * LENGTH


@pytest.mark.parametrize("mesh", [(1, 1), (1, 8), (4, 2)], ids=str)
def test_the_likeliest_token_is_that_of_whole_logits(mesh):
    """The lowest id is taken among equals: columns 3 and 9 of the head are the same."""
    h_ND, target_N, _, head_DV = (np.array(x) for x in arguments(40, 11))
    head_DV[:, 9] = head_DV[:, 3] = head_DV[:, 3] * 2
    log_p_NV = np.asarray(jax.nn.log_softmax(h_ND @ head_DV))
    padded_DV = np.pad(head_DV, ((0, 0), (0, -11 % mesh[1])), constant_values=9.0)
    with on_mesh(*mesh):
        found = jax.jit(
            lambda h, target, head: token_and_likeliest_nats(
                reshard(h, BATCH_L), reshard(target, BATCH), reshard(head, HEAD_DV), 11
            )
        )(h_ND, target_N, padded_DV)
    nats_N, best_N, token_N = jax.device_get(found)
    np.testing.assert_allclose(nats_N, -log_p_NV[np.arange(40), target_N], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(best_N, -log_p_NV.max(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(token_N, log_p_NV.argmax(1))
    assert (token_N == 3).any()
