"""Time conditioning: the share of masked tokens scales and shifts the normalised input of each sub-layer (adaLN).

MDLM (Sahoo et al. 2024) makes its models depend on time in this way (after Peebles and Xie 2022, arXiv 2212.09748), and
finds that a model that ignores time does no worse. Scale and shift come from an MLP of sinusoids of the share. Their
last weights are zero at first, so training starts as without conditioning.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdm_jax.devices.sharding import BATCH, BATCH_LD, reshard, rows_spec
from mdm_jax.model.layers import project

SCALE = 1000.0
BASE = 1e4


def masked_share(
    tokens_BL: Int[Array, "B L"], mask_id: int, length_B: Int[Array, "B"] | None = None
) -> Float[Array, "B"]:
    """The share of MASK among each row's tokens, 0 to 1. Positions from `length_B` on do not count."""
    masked_BL = tokens_BL == mask_id
    if length_B is None:
        return masked_BL.mean(1, dtype=jnp.float32)
    kept_B = reshard(length_B, BATCH)
    inside_BL = jnp.arange(tokens_BL.shape[1]) < kept_B[:, None]
    return (masked_BL & inside_BL).sum(1) / kept_B.astype(jnp.float32)


def condition(
    level_B: Float[Array, "B"], time_in_CC: Float[Array, "C C"], time_out_CC: Float[Array, "C C"]
) -> Float[Array, "B 1 C"]:
    """What the layers know of each row's share of masked tokens, float32."""
    half = time_in_CC.shape[0] // 2
    frequency_c = np.exp(-np.log(BASE) * np.arange(half) / half).astype(np.float32)
    angle_Bc = SCALE * reshard(level_B, BATCH)[:, None] * frequency_c
    wave_B1C = jnp.concatenate([jnp.cos(angle_Bc), jnp.sin(angle_Bc)], -1)[:, None]
    inner_B1C = jax.nn.silu(project(wave_B1C, time_in_CC, "tc,ce->te", BATCH_LD))
    return jax.nn.silu(project(inner_B1C, time_out_CC, "tc,ce->te", BATCH_LD))


def modulations(condition_B1C: Float[Array, "B 1 C"], weight_C4D: Float[Array, "C 4 D"]) -> Float[Array, "B 1 4 D"]:
    """Scale and shift of the attention's input, and of the MLP's."""
    return project(condition_B1C, weight_C4D, "tc,cmd->tmd", rows_spec(4))


def modulate(h_BLD: Float[Array, "B L D"], scale_B1D: Array, shift_B1D: Array) -> Float[Array, "B L D"]:
    """`h (1 + scale) + shift`, computed in float32 and returned in the dtype of `h`."""
    return (h_BLD.astype(jnp.float32) * (1 + scale_B1D) + shift_B1D).astype(h_BLD.dtype)
