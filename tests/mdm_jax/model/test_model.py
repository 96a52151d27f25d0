"""The trunk: what each position reads, its pieces against closed forms, and initialisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_runs import sharp_model, tokens

from isoflop.ladder import SMDM
from mdm_jax.model.layers import rms_norm, rope
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import NORM_EPS, ROPE_BASE, Attention, ComputeDtype, HardwareSpec, LayerLoop, ModelSpec, Remat
from mdm_jax.spec.counting import count_parameters

pytestmark = pytest.mark.usefixtures("one_device")
SPEC = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_ffn=24, vocab_size=11)
LENGTH = 6
BOTH = pytest.mark.parametrize("attention", list(Attention))


def normal(shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


@BOTH
def test_which_positions_a_position_reads(attention):
    spec = dataclasses.replace(SPEC, attention=attention)
    model = sharp_model(spec)
    distinct_BL = jnp.arange(LENGTH)[None]  # token j stands at position j: row j of the embedding is read there alone

    def embedding_gradients(weight_L):
        def output(model):
            return (hidden(model, distinct_BL, spec, HardwareSpec()).sum((0, 2)) * weight_L).sum()

        return jnp.abs(jax.grad(output)(model).embed[...]).sum(-1)[:LENGTH]

    reads_LL = np.asarray(jax.jit(lambda: jax.lax.map(embedding_gradients, jnp.eye(LENGTH)))())
    past_LL = np.tri(LENGTH, dtype=bool)
    assert reads_LL[past_LL].min() > 1e-4
    if attention is Attention.CAUSAL:
        assert (reads_LL[~past_LL] == 0).all()
    else:
        assert reads_LL[~past_LL].min() > 1e-4


@BOTH
def test_a_padded_row_is_the_row_alone(attention):
    spec = dataclasses.replace(SPEC, attention=attention)
    model, rows_BL = sharp_model(spec), jnp.asarray(tokens((2, LENGTH), spec.vocab_size))
    padded_BLD = hidden(model, rows_BL, spec, HardwareSpec(), jnp.array([2, 5]))
    for row_L, h_LD, length in zip(rows_BL, np.asarray(padded_BLD), (2, 5), strict=True):
        alone_1LD = hidden(model, row_L[None, :length], spec, HardwareSpec())
        np.testing.assert_allclose(h_LD[:length], alone_1LD[0], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def by_loop_and_remat():
    """`hidden` and the gradient of a function of it, by the way to execute the layers; each is compiled once."""
    model, tokens_BL = sharp_model(SPEC), jnp.asarray(tokens((2, LENGTH), SPEC.vocab_size))
    direction_BLD = normal((2, LENGTH, SPEC.d_model))

    def output(model, hardware):
        h_BLD = hidden(model, tokens_BL, SPEC, hardware)
        return (h_BLD * direction_BLD).sum(), h_BLD

    run = jax.jit(jax.grad(output, has_aux=True), static_argnums=1)
    return lambda loop, remat: run(model, HardwareSpec(layers=loop, remat=remat))


@pytest.mark.parametrize(
    ("loop", "remat"),
    [
        (LayerLoop.SCAN, Remat.NONE),
        (LayerLoop.SCAN, Remat.DOTS),
        (LayerLoop.SCAN, Remat.OFFLOAD),
        (LayerLoop.SCAN, Remat.FULL),
        (LayerLoop.UNROLL, Remat.FULL),
    ],
)
def test_loops_and_rematerialisation_change_nothing(by_loop_and_remat, loop, remat):
    plain, other = by_loop_and_remat(LayerLoop.UNROLL, Remat.NONE), by_loop_and_remat(loop, remat)
    for expected, actual in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_rematerialisation_keeps_less_for_the_backward_pass():
    model, tokens_BL = sharp_model(SPEC), jnp.zeros((2, LENGTH), jnp.int32)

    def kept_numbers(loop, remat):
        hardware = HardwareSpec(layers=loop, remat=remat)
        backward = jax.eval_shape(lambda m: jax.vjp(lambda m: hidden(m, tokens_BL, SPEC, hardware), m)[1], model)
        return sum(x.size for x in jax.tree.leaves(backward))

    for loop in LayerLoop:
        none, dots, full = (kept_numbers(loop, remat) for remat in (Remat.NONE, Remat.DOTS, Remat.FULL))
        assert none > dots > full


def test_rope_turns_pairs_by_position():
    """Each pair is a complex number (first half real, second half imaginary), turned by position times frequency."""
    x_BLHK = np.asarray(normal((2, 9, 3, 8)))
    frequency_k = ROPE_BASE ** -(np.arange(4) / 4)
    turn_Lk = np.exp(1j * np.arange(9)[:, None] * frequency_k)
    pairs = (x_BLHK[..., :4] + 1j * x_BLHK[..., 4:]) * turn_Lk[None, :, None]
    expected_BLHK = np.concatenate([pairs.real, pairs.imag], -1)
    np.testing.assert_allclose(rope(jnp.asarray(x_BLHK)), expected_BLHK, atol=1e-5)


def test_rope_scores_depend_on_the_distance_alone():
    q_K, k_K = np.asarray(normal((2, 8)))
    q_LK, k_LK = (np.asarray(rope(jnp.broadcast_to(x, (1, 12, 1, 8))))[0, :, 0] for x in (q_K, k_K))
    score_LL = q_LK @ k_LK.T
    np.testing.assert_allclose(score_LL[1:, 1:], score_LL[:-1, :-1], atol=1e-4)
    assert np.ptp(score_LL[0]) > 0.5  # and it does depend on it


def test_rms_norm():
    x_BLD, gain_D = np.asarray(5 * normal((2, 3, 16))), np.asarray(normal((16,), 1))
    expected_BLD = x_BLD / np.sqrt((x_BLD**2).mean(-1, keepdims=True) + NORM_EPS) * gain_D
    np.testing.assert_allclose(rms_norm(jnp.asarray(x_BLD), jnp.asarray(gain_D)), expected_BLD, rtol=1e-5)
    large_BLD = jnp.full((1, 1, 16), 1e4, jnp.float16)  # its square overflows float16
    np.testing.assert_allclose(rms_norm(large_BLD, jnp.ones(16)), 1, rtol=1e-3)


@BOTH
def test_bfloat16_is_close_to_float32(attention):
    exact = dataclasses.replace(SPEC, attention=attention)
    rough = dataclasses.replace(exact, compute_dtype=ComputeDtype.BFLOAT16)
    model, tokens_BL = Transformer(exact, jax.random.key(0)), jnp.asarray(tokens((2, LENGTH), SPEC.vocab_size))
    run = jax.jit(lambda spec: hidden(model, tokens_BL, spec, HardwareSpec()), static_argnums=0)
    h32_BLD, h16_BLD = run(exact), run(rough)
    assert h16_BLD.dtype == jnp.bfloat16
    error = np.linalg.norm(np.float32(h16_BLD) - h32_BLD) / np.linalg.norm(h32_BLD)
    assert 1e-4 < error < 2e-2  # 2^-9 a rounding, some tens of roundings


def test_initial_standard_deviations():
    spec = ModelSpec(n_layers=4, d_model=64, n_heads=4, d_ffn=256, vocab_size=300)
    model = jax.jit(lambda: Transformer(spec, jax.random.key(0)))()
    sd, sd_out = np.sqrt(2 / (5 * 64)), 1 / (np.sqrt(64) * 4)
    blocks = model.blocks
    drawn = {"embed": (model.embed, sd), "head": (model.head, sd), "qkv": (blocks.qkv, sd), "gate": (blocks.gate, sd)}
    drawn |= {"up": (blocks.up, sd), "out": (blocks.out, sd_out), "down": (blocks.down, sd_out)}
    for name, (weight, expected) in drawn.items():
        w = np.asarray(weight[...])
        assert abs(w.mean()) < 4 * expected / np.sqrt(w.size), name
        assert w.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * w.size)), name
    layers = np.asarray(blocks.qkv[...]).reshape(4, -1)
    assert np.abs(np.corrcoef(layers) - np.eye(4)).max() < 4 / np.sqrt(layers.shape[1])
    for gain in (model.norm_final, blocks.norm_attention, blocks.norm_mlp):
        assert (np.asarray(gain[...]) == 1).all()


def test_padding_the_vocabulary_changes_no_weight():
    plain, padded = (Transformer(SPEC, jax.random.key(0), mesh_model) for mesh_model in (1, 8))
    assert padded.head.shape == (16, 16)
    assert (np.asarray(padded.head[...])[:, 11:] == 0).all()
    padded.head = nnx.Param(padded.head[...][:, :11])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, padded))


@pytest.mark.parametrize("name", SMDM)
def test_parameter_count_of_every_published_size(name):
    spec = SMDM[name].model(ModelSpec(vocab_size=257))
    weights = jax.eval_shape(lambda: Transformer(spec, jax.random.key(0)))
    count = count_parameters(spec)
    assert sum(w.size for w in jax.tree.leaves(weights)) == count.total
    assert (weights.embed.size, weights.head.size) == (count.embedding, count.head)
