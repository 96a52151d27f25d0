"""Hidden states of rows that are partly MASK, with or without guidance.

Unsupervised classifier-free guidance (SMDM, Nie et al. 2024, arXiv 2410.18514) replaces the logits by
`u + (w + 1) (c - u)`, where u comes from the row with MASK in place of every given token. The head is linear, so the
guided logits are the head's product with `(w + 1) h_c - w h_u`, which is computed here in float32.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.sample.canvas import Canvas
from mdm_jax.spec import HardwareSpec, ModelSpec


def read(
    params: Transformer, ids_BL: Int[Array, "B L"], given_BL: Bool[Array, "B L"], canvas: Canvas, model: ModelSpec
) -> Float[Array, "B L D"]:
    """The hidden states of rows in which V is MASK; `given_BL` says which tokens guidance hides."""
    length_B = jnp.asarray(canvas.length_B)
    h_BLD = hidden(params, ids_BL, model, HardwareSpec(), length_B)
    if canvas.guidance_B is None:
        return h_BLD
    w_B11 = jnp.asarray(canvas.guidance_B)[:, None, None]
    hidden_BL = jnp.where(given_BL, model.vocab_size, ids_BL)
    without_BLD = hidden(params, hidden_BL, model, HardwareSpec(), length_B).astype(jnp.float32)
    return (w_B11 + 1) * h_BLD.astype(jnp.float32) - w_B11 * without_BLD
