"""The trunk of SMDM: pre-norm RMSNorm, SwiGLU, RoPE, multi-head attention, no biases, untied head.

The nnx modules hold only weights. The weights of all layers are stacked on a leading axis, so that `lax.scan` compiles
one layer for any depth. The forward pass is the pure function `hidden`.

The residual stream is the array that the layers add to. It has the compute dtype, or float32 if
`spec.float32_residual`. What products and attention read and return has the compute dtype in both cases.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, UInt

from mdm_jax.devices.sharding import BATCH_LCHK, BATCH_LD, BATCH_LF, from_pairs
from mdm_jax.model.attention import attend
from mdm_jax.model.conditioning import condition, masked_share, modulate, modulations
from mdm_jax.model.dropout import dropout
from mdm_jax.model.layers import look_up, project, rms_norm, rope
from mdm_jax.model.remat import rematerialised, scan_part
from mdm_jax.spec import HardwareSpec, LayerLoop, ModelSpec

MASK_STREAM, TIME_STREAM = 1, 2
"""Keys of weights that only some models have, so that all models share the other initial weights."""


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
        if spec.time_conditioning:
            self.modulation = nnx.Param(jnp.zeros((spec.d_time, 4, d)))


class Transformer(nnx.Module):
    """All weights. `embed` has V+1 rows: row V is MASK for the MDM and the start token for the ARM.

    `head` has V columns, and one more for MASK if `spec.mask_column`.
    """

    def __init__(self, spec: ModelSpec, key: Key[Array, ""], mesh_model: int = 1):
        """Initial weights. Zero columns pad the head to a multiple of `mesh_model`; the other weights ignore it."""
        d, vocab = spec.d_model, spec.vocab_size
        key_embed, key_head, key_blocks = jax.random.split(key, 3)
        sd = (2 / (5 * d)) ** 0.5
        self.embed = _normal(key_embed, (vocab + 1, d), sd)
        head_DV = sd * jax.random.normal(key_head, (d, vocab))
        if spec.mask_column:
            mask_D1 = sd * jax.random.normal(jax.random.fold_in(key_head, MASK_STREAM), (d, 1))
            head_DV = jnp.concatenate([head_DV, mask_D1], 1)
        self.head = nnx.Param(jnp.pad(head_DV, ((0, 0), (0, -head_DV.shape[1] % mesh_model))))
        self.norm_final = nnx.Param(jnp.ones(d))
        self.blocks = jax.vmap(lambda k: Block(spec, k))(jax.random.split(key_blocks, spec.n_layers))
        if spec.time_conditioning:
            key_in, key_out = jax.random.split(jax.random.fold_in(key, TIME_STREAM))
            square, sd_time = (spec.d_time, spec.d_time), spec.d_time**-0.5
            self.time_in, self.time_out = _normal(key_in, square, sd_time), _normal(key_out, square, sd_time)


def hidden(
    model: Transformer,
    tokens_BL: Int[Array, "B L"],
    spec: ModelSpec,
    hardware: HardwareSpec,
    length_B: Int[Array, "B"] | None = None,
    level_B: Float[Array, "B"] | None = None,
    seed_B: UInt[Array, "B"] | None = None,
    x_BLD: Float[Array, "B L D"] | None = None,
    position_PM: Int[Array, "P M"] | None = None,
) -> Float[Array, "B L D"] | Float[Array, "P M D"]:
    """Normalised output of the trunk for tokens in 0..V, in the compute dtype.

    Args:
        model: the weights.
        tokens_BL: V stands for MASK (MDM) or start (ARM).
        spec: shape of the model.
        hardware: its `layers` and its three fields of `remat` change the program, but not the result.
        length_B: tokens of each row, from 1 to L; no token sees the padding after them. All rows are whole by default.
        level_B: each row's probability of MASK, for a time-conditioned model; by default the share of MASK in the row.
        seed_B: each row's seed of its dropout, uint32. There is no dropout by default.
        x_BLD: `embedded` of the tokens, where the caller has it.
        position_PM: positions of each pair of rows, as `from_pairs` takes them, if the output of no other position is
            needed. Unrolled layers then leave the others out from the last layer's SwiGLU on.
    """
    condition_B1C = None
    if spec.time_conditioning:
        if level_B is None:
            level_B = masked_share(tokens_BL, spec.vocab_size, length_B)
        condition_B1C = condition(level_B, model.time_in[...], model.time_out[...])
    context = _Context(spec, length_B, condition_B1C, seed_B if spec.dropout else None)
    x_BLD = context.drop(embedded(model, tokens_BL, spec) if x_BLD is None else x_BLD, 0)
    early_PM = position_PM if context.can_leave_out(hardware) else None
    h = normalised(model, _through_layers(model.blocks, x_BLD, hardware, context, early_PM), spec)
    return h if position_PM is None or early_PM is not None else from_pairs(h, position_PM)


def compute_dtype(spec: ModelSpec) -> jnp.dtype:
    """The dtype of products and attention."""
    return jnp.dtype(spec.compute_dtype.value)


def embedded(model: Transformer, tokens_BL: Int[Array, "B L"], spec: ModelSpec) -> Float[Array, "B L D"]:
    """The residual stream before the first layer: the tokens' rows, rounded to the compute dtype in any case."""
    x_BLD = look_up(model.embed[...], tokens_BL, compute_dtype(spec))
    return x_BLD.astype(jnp.float32) if spec.float32_residual else x_BLD


def normalised(model: Transformer, x_BLD: Float[Array, "B L D"], spec: ModelSpec) -> Float[Array, "B L D"]:
    """The trunk's output from the residual stream after the last layer, in the compute dtype."""
    return rms_norm(x_BLD, model.norm_final[...], compute_dtype(spec))


class _Context(NamedTuple):
    """What every layer knows besides its weights and its input."""

    spec: ModelSpec
    length_B: Array | None
    condition_B1C: Array | None
    seed_B: Array | None

    def drop(self, x_BLD: Array, place: int | Array) -> Array:
        """Dropout at a numbered place of the model; `x` itself without seeds."""
        return x_BLD if self.seed_B is None else dropout(x_BLD, self.spec.dropout, self.seed_B, place)

    def can_leave_out(self, hardware: HardwareSpec) -> bool:
        """Whether the last layer can leave positions out. Dropout and time conditioning need whole rows."""
        return hardware.layers is LayerLoop.UNROLL and self.seed_B is None and self.condition_B1C is None


def _through_layers(
    blocks: Block,
    x_BLD: Float[Array, "B L D"],
    hardware: HardwareSpec,
    context: _Context,
    position_PM: Int[Array, "P M"] | None = None,
) -> Array:
    """The residual stream after the last layer, at the given positions of unrolled layers, or at all."""
    n_layers = context.spec.n_layers
    numbers_N = None if context.seed_B is None else jnp.arange(n_layers)
    policies = hardware.layer_policies(n_layers)

    def layer(x_BLD: Array, block: tuple[Block, Array | None], position_PM: Array | None = None) -> tuple[Array, None]:
        return _layer(block[0], block[1], x_BLD, context, position_PM), None

    if hardware.layers is LayerLoop.SCAN and len(policies) == 1:
        return jax.lax.scan(rematerialised(layer, policies[0][0], LayerLoop.SCAN), x_BLD, (blocks, numbers_N))[0]
    first = 0
    for remat, count in policies:
        places = range(first, first + count)
        first += count
        if hardware.layers is LayerLoop.SCAN:
            x_BLD = scan_part(layer, x_BLD, blocks, numbers_N, places, remat)
            continue
        for i in places:
            own = functools.partial(layer, position_PM=position_PM) if i == n_layers - 1 else layer
            kept = rematerialised(own, remat, LayerLoop.UNROLL)
            x_BLD, _ = kept(x_BLD, jax.tree.map(lambda w, i=i: w[i], (blocks, numbers_N)))
    return x_BLD


def _layer(
    block: Block,
    number: Array | None,
    x_BLD: Float[Array, "B L D"],
    context: _Context,
    position_PM: Int[Array, "P M"] | None = None,
) -> Array:
    """`x + attention(norm(x))`, then `x + swiglu(norm(x))`; `number` is the layer's, for its dropout.

    The second sum is computed at the given positions alone, by default at all.

    The sums have the dtype of the residual stream `x`: a branch in the compute dtype is converted to it.
    """
    first = 0 if number is None else 1 + 2 * number
    modulated = None
    if context.condition_B1C is not None:
        modulated = modulations(context.condition_B1C, block.modulation[...])
    q_BLHK, k_BLHK, v_BLHK = queries_keys_values(block, x_BLD, compute_dtype(context.spec), modulated)
    o_BLHK = attend(rope(q_BLHK), rope(k_BLHK), v_BLHK, context.spec.attention, context.length_B)
    x_BLD = x_BLD + context.drop(_project_heads(block, o_BLHK), first)
    if position_PM is not None:
        x_BLD = from_pairs(x_BLD, position_PM)
    return x_BLD + context.drop(_swiglu(block, x_BLD, o_BLHK.dtype, modulated), first + 1)


def queries_keys_values(
    block: Block,
    x_BLD: Float[Array, "B L D"],
    dtype: DTypeLike,
    modulated_B14D: Float[Array, "B 1 4 D"] | None = None,
) -> tuple[Float[Array, "B L H K"], Float[Array, "B L H K"], Float[Array, "B L H K"]]:
    """Queries, keys and values of a layer in `dtype`, before rotary positions; `x` is the residual stream."""
    h_BLD = _normed(x_BLD, block.norm_attention[...], dtype, modulated_B14D, 0)
    qkv_BLCHK = project(h_BLD, block.qkv[...], "td,dchk->tchk", BATCH_LCHK)
    q_BL1HK, k_BL1HK, v_BL1HK = jax.lax.split(qkv_BLCHK, (1, 1, 1), axis=2)  # the gradient is a concatenation
    return q_BL1HK[:, :, 0], k_BL1HK[:, :, 0], v_BL1HK[:, :, 0]


def after_attention(
    block: Block,
    x_BLD: Float[Array, "B L D"],
    o_BLHK: Float[Array, "B L H K"],
    modulated_B14D: Float[Array, "B 1 4 D"] | None = None,
) -> Float[Array, "B L D"]:
    """A layer's output from its input and the result of its attention, without dropout.

    The output has the dtype of the input `x`. The branches have that of `o`.
    """
    x_BLD = x_BLD + _project_heads(block, o_BLHK)
    return x_BLD + _swiglu(block, x_BLD, o_BLHK.dtype, modulated_B14D)


def _project_heads(block: Block, o_BLHK: Array) -> Array:
    batch, length, heads, width = o_BLHK.shape
    d = heads * width
    return project(o_BLHK.reshape(batch, length, d), block.out[...].reshape(d, d), "tf,fd->td", BATCH_LD)


def _swiglu(block: Block, x_BLD: Array, dtype: DTypeLike, modulated_B14D: Array | None) -> Array:
    h_BLD = _normed(x_BLD, block.norm_mlp[...], dtype, modulated_B14D, 2)
    gate_BLF = project(h_BLD, block.gate[...], "td,df->tf", BATCH_LF)
    up_BLF = project(h_BLD, block.up[...], "td,df->tf", BATCH_LF)
    return project(jax.nn.silu(gate_BLF) * up_BLF, block.down[...], "tf,fd->td", BATCH_LD)


def _normed(x_BLD: Array, gain_D: Array, dtype: DTypeLike, modulated_B14D: Array | None, place: int) -> Array:
    """`rms_norm` in `dtype`, with scale and shift at `place` and `place + 1` if the model is conditioned on time."""
    h_BLD = rms_norm(x_BLD, gain_D, dtype)
    if modulated_B14D is None:
        return h_BLD
    return modulate(h_BLD, modulated_B14D[:, :, place], modulated_B14D[:, :, place + 1])
