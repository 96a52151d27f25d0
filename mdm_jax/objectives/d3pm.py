"""The D3PM form of the MDM's loss (MDLM, Sahoo et al. 2024, Eq. 9): MASK may be predicted, and tokens are not copied.

The model's prediction x(z) is a distribution over V tokens and MASK. At step t, with s = t - 1/T, alpha = 1 - m and
r = (m_t - m_s) / m_t, a masked token has the divergence of the true posterior of z_s from the predicted one,

    r (-log x[x_0]) + g,    g = log(1 + (alpha_t / m_t) x[MASK]) - (1 - r) log(1 + (alpha_s / m_s) x[MASK]),

with 1 - r = m_s / m_t. An unmasked token has divergence 0, whatever is predicted there. The sum over the T steps is T
times the mean. Without carry-over the reconstruction term -log x(x_0)[x_0] of the clean tokens is added.

With zero masking x[MASK] = 0, so g = 0 and the divergence is that of the T-step NELBO (Eq. 8).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdm_jax.objectives.vocab_loss import token_nats, vocab_loss

FIRST_STEP = 1 - 2**-20
"""The first step has r = 1 up to rounding. All later ones have r <= 1 - 2^-4 (the polynomial t^4 at i = 2)."""


def extra_nats(nats_N: Float[Array, "N"], m_N: Float[Array, "N"], jump_N: Float[Array, "N"]) -> Float[Array, "N"]:
    """`g / r`, which is added to the nats of a masked token, from the nats of MASK, `-log x[MASK]`.

    The two logarithms of g nearly cancel for large T. So they are computed from
    `log1p(-r x / u) + r log(u / m_s)`, where u = m_s + (1 - m_s) x.
    """
    x_N = jnp.exp(-nats_N)
    first_N = jump_N > FIRST_STEP
    r_N = jnp.where(first_N, 0.5, jump_N)
    before_N = m_N * (1 - r_N)
    u_N = before_N + (1 - before_N) * x_N
    later_N = jnp.log1p(-r_N * x_N / u_N) / r_N + jnp.log1p((1 - before_N) / before_N * x_N)
    return jnp.where(first_N, jnp.log1p((1 - m_N).clip(0) / m_N * x_N), later_N)


def mask_nats(
    h_ND: Float[Array, "N D"], m_N: Float[Array, "N"], jump_N: Float[Array, "N"], head_DV: Array, columns: int
) -> Float[Array, "N"]:
    """`extra_nats` of positions with hidden states `h`. The head's column `columns - 1` is MASK. It has no gradient."""
    return extra_nats(_nats_of_mask(h_ND, head_DV, columns), m_N, jump_N)


def mask_loss(
    h_ND: Float[Array, "N D"],
    weight_N: Float[Array, "N"],
    m_N: Float[Array, "N"],
    jump_N: Float[Array, "N"],
    head_DV: Array,
    columns: int,
) -> Float[Array, ""]:
    """`sum weight * extra_nats`, with the gradient for `h` and `head`.

    The gradient is that of the nats of MASK, each times the slope of `extra_nats`. The fused vocabulary loss takes the
    slopes as weights, so no logits are kept.
    """
    nats_N = _nats_of_mask(jax.lax.stop_gradient(h_ND), jax.lax.stop_gradient(head_DV), columns)
    extra_N, slope_N = jax.jvp(lambda n: extra_nats(n, m_N, jump_N), (nats_N,), (jnp.ones_like(nats_N),))
    tangent = vocab_loss(h_ND, _mask_ids(nats_N, columns), weight_N * slope_N, head_DV, columns)
    return tangent + (weight_N * extra_N).sum() - jax.lax.stop_gradient(tangent)


def _nats_of_mask(h_ND: Array, head_DV: Array, columns: int) -> Float[Array, "N"]:
    return token_nats(h_ND, _mask_ids(h_ND[:, 0], columns), head_DV, columns)


def _mask_ids(like_N: Array, columns: int) -> Array:
    return jnp.full_like(like_N, columns - 1, dtype=jnp.int32)
