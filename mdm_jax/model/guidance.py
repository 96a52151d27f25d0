"""Hidden states of rows that are partly MASK, with or without guidance.

Unsupervised classifier-free guidance (SMDM, Nie et al. 2024, arXiv 2410.18514) replaces the logits by
`u + (w + 1) (c - u)`, where u comes from the row with MASK in place of every given token. The head is linear, so the
guided logits are the head's product with `(w + 1) h_c - w h_u`, which is computed here in float32.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.spec import HardwareSpec, ModelSpec


def guided_hidden(
    model: Transformer,
    tokens_BL: Int[Array, "B L"],
    given_BL: Bool[Array, "B L"],
    length_B: Int[Array, "B"],
    spec: ModelSpec,
    guidance: Float[Array, ""] | Float[Array, "B"] | None,
) -> Float[Array, "B L D"]:
    """Normalised output of the trunk, in float32 with guidance and in the compute dtype without.

    Args:
        model: the MDM's weights.
        tokens_BL: V stands for MASK.
        given_BL: the tokens that guidance hides; they may include padding.
        length_B: tokens of each row.
        spec: shape of the model.
        guidance: w, one for all rows or one for each; None reads each row once.
    """
    h_BLD = hidden(model, tokens_BL, spec, HardwareSpec(), length_B)
    if guidance is None:
        return h_BLD
    hidden_BL = jnp.where(given_BL, spec.vocab_size, tokens_BL)
    return guided(h_BLD, hidden(model, hidden_BL, spec, HardwareSpec(), length_B), guidance)


def guided(
    with_BLD: Float[Array, "B L D"],
    without_BLD: Float[Array, "B L D"],
    guidance: Float[Array, ""] | Float[Array, "B"],
) -> Float[Array, "B L D"]:
    """Hidden states that lead away from those without the given tokens, float32; `guidance` is w."""
    w_B11 = jnp.asarray(guidance)[..., None, None]
    return (w_B11 + 1) * with_BLD.astype(jnp.float32) - w_B11 * without_BLD.astype(jnp.float32)
