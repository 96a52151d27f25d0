"""The trunk of SMDM: pre-norm RMSNorm, SwiGLU, RoPE, multi-head attention, no biases, untied head.

The nnx modules hold only weights. The weights of all layers are stacked on a leading axis, so that `lax.scan` compiles
one layer for any depth. The forward pass is the pure function `hidden`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mdm_jax.devices.sharding import BATCH_LCHK, BATCH_LD, BATCH_LF
from mdm_jax.model.attention import attend
from mdm_jax.model.layers import look_up, project, rms_norm, rope
from mdm_jax.spec import HardwareSpec, LayerLoop, ModelSpec, Remat


def _normal(key: Key[Array, ""], shape: tuple[int, ...], sd: float) -> nnx.Param:
    return nnx.Param(sd * jax.random.normal(key, shape))


class Block(nnx.Module):
    """One layer's weights, float32: N(0, 1 / (d n_layers^2)) for `out` and `down`, N(0, 2 / 5d) for the others."""

    def __init__(self, spec: ModelSpec, key: Key[Array, ""]):
        d, heads, width, ffn = spec.d_model, spec.n_heads, spec.d_head, spec.d_ffn
        keys = jax.random.split(key, 5)
        sd, sd_out = (2 / (5 * d)) ** 0.5, d**-0.5 / spec.n_layers
        self.norm_attention = nnx.Param(jnp.ones(d))
        self.qkv = _normal(keys[0], (d, 3, heads, width), sd)
        self.out = _normal(keys[1], (heads, width, d), sd_out)
        self.norm_mlp = nnx.Param(jnp.ones(d))
        self.gate = _normal(keys[2], (d, ffn), sd)
        self.up = _normal(keys[3], (d, ffn), sd)
        self.down = _normal(keys[4], (ffn, d), sd_out)


class Transformer(nnx.Module):
    """All weights. `embed` has V+1 rows: row V is MASK for the MDM and the start token for the ARM."""

    def __init__(self, spec: ModelSpec, key: Key[Array, ""], mesh_model: int = 1):
        """Initial weights. Zero columns pad the head to a multiple of `mesh_model`; the other weights ignore it."""
        d, vocab = spec.d_model, spec.vocab_size
        key_embed, key_head, key_blocks = jax.random.split(key, 3)
        sd = (2 / (5 * d)) ** 0.5
        self.embed = _normal(key_embed, (vocab + 1, d), sd)
        head_DV = sd * jax.random.normal(key_head, (d, vocab))
        self.head = nnx.Param(jnp.pad(head_DV, ((0, 0), (0, -vocab % mesh_model))))
        self.norm_final = nnx.Param(jnp.ones(d))
        self.blocks = jax.vmap(lambda k: Block(spec, k))(jax.random.split(key_blocks, spec.n_layers))


def hidden(
    model: Transformer,
    tokens_BL: Int[Array, "B L"],
    spec: ModelSpec,
    hardware: HardwareSpec,
    length_B: Int[Array, "B"] | None = None,
) -> Float[Array, "B L D"]:
    """Normalised output of the trunk for tokens in 0..V, in the compute dtype.

    Args:
        model: the weights.
        tokens_BL: V stands for MASK (MDM) or start (ARM).
        spec: shape of the model.
        hardware: its `layers` and `remat` change the program, but not the result.
        length_B: tokens of each row, from 1 to L; no token sees the padding after them. All rows are whole by default.
    """
    dtype = jnp.dtype(spec.compute_dtype.value)
    x_BLD = look_up(model.embed[...], tokens_BL, dtype)
    x_BLD = _through_layers(model.blocks, x_BLD, spec, hardware, length_B)
    return rms_norm(x_BLD, model.norm_final[...])


def _through_layers(
    blocks: Block, x_BLD: Float[Array, "B L D"], spec: ModelSpec, hardware: HardwareSpec, length_B: Array | None
) -> Array:
    layer = _rematerialised(lambda x, block: (_layer(block, x, spec, length_B), None), hardware)
    if hardware.layers is LayerLoop.SCAN:
        return jax.lax.scan(layer, x_BLD, blocks)[0]
    for i in range(spec.n_layers):
        x_BLD, _ = layer(x_BLD, jax.tree.map(lambda w, i=i: w[i], blocks))
    return x_BLD


def _rematerialised(layer: Callable, hardware: HardwareSpec) -> Callable:
    if hardware.remat is Remat.NONE:
        return layer
    policies = jax.checkpoint_policies
    full = hardware.remat is Remat.FULL
    policy = policies.nothing_saveable if full else policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(layer, policy=policy, prevent_cse=hardware.layers is not LayerLoop.SCAN)


def _layer(
    block: Block, x_BLD: Float[Array, "B L D"], spec: ModelSpec, length_B: Array | None
) -> Float[Array, "B L D"]:
    """`x + attention(norm(x))`, then `x + swiglu(norm(x))`."""
    batch, length, d = x_BLD.shape
    h_BLD = rms_norm(x_BLD, block.norm_attention[...])
    qkv_BLCHK = project(h_BLD, block.qkv[...], "td,dchk->tchk", BATCH_LCHK)
    q_BLHK, k_BLHK, v_BLHK = (qkv_BLCHK[:, :, i] for i in range(3))
    o_BLHK = attend(rope(q_BLHK), rope(k_BLHK), v_BLHK, spec.attention, length_B)
    o_BLD = o_BLHK.reshape(batch, length, d)
    x_BLD = x_BLD + project(o_BLD, block.out[...].reshape(d, d), "tf,fd->td", BATCH_LD)
    h_BLD = rms_norm(x_BLD, block.norm_mlp[...])
    gate_BLF = project(h_BLD, block.gate[...], "td,df->tf", BATCH_LF)
    up_BLF = project(h_BLD, block.up[...], "td,df->tf", BATCH_LF)
    return x_BLD + project(jax.nn.silu(gate_BLF) * up_BLF, block.down[...], "tf,fd->td", BATCH_LD)
