"""Training weightings: the weight of each noise level relative to the NELBO, which weights all levels equally.

A weighting is a function v(m) of the masked share m. At time t, a masked token's nats have the weight `v(m) m'/m`; the
NELBO's weight is `m'/m`. Every v has mean 1 over m uniform on (0, 1). So a model with equal loss at all levels has the
same training loss under every weighting, and learning rates and gradient clipping can be compared. The expectation
depends neither on the noise schedule nor on the form, as for the NELBO. With K masked tokens the count form uses
`v_K = E[v(m) | K]`, where m given K is Beta(K, L + 1 - K). The mean of v_K over K = 1 .. L is 1 too.

| name           | v(m)              | the loss                                                                      |
|----------------|-------------------|-------------------------------------------------------------------------------|
| `elbo`         | 1                 | the NELBO (MDLM, Sahoo et al. 2024, Eq. 10)                                   |
| `low_variance` | 2 m               | cross-entropy, every masked token alike: w(t) = 1 where the NELBO has 1/t     |
| `clipped`      | 12/11 min(1, 6 m) | 1/t clipped at 6                                                              |
| `bell`         | 6 m (1 - m)       | the NELBO's nats at times drawn from Beta(2, 2)                               |

- `low_variance` is the plain masked-LM loss over uniform times. Sahoo et al. 2026 (arXiv 2602.15014; `low_var` in their
  code) report 12% fewer FLOPs for the same NELBO. Quokka (Ni et al. 2025, arXiv 2510.03280) names the same loss after
  MaskGIT, and reports that training on the NELBO wins in the end. Their weight is half of ours, which makes no
  difference to AdamW. MaskGIT (Chang et al. 2022) also draws its masked share from a cosine; that is not done here.
- `clipped` is Min-SNR (Hang et al. 2023, gamma = 5) for masks: 1/t is 1 + SNR, with SNR = (1 - t) / t.
- `bell` follows Hong et al. 2026 (arXiv 2605.13026), who draw times from a bell-shaped density; Beta(2, 2) is our
  choice. Here the bell is a weight and not a density, because the counts K and L + 1 - K of a pair must keep their sum.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdm_jax.spec import Weighting

MAX_SNR = 5
CLIP = 1 / (1 + MAX_SNR)
"""The masked share below which `clipped` stops increasing a token's weight."""


def level_weight(weighting: Weighting, m_B: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """v(m) >= 0, the weight relative to the NELBO's, for masked shares m in (0, 1]; its mean over uniform m is 1."""
    if weighting is Weighting.LOW_VARIANCE:
        return 2 * m_B
    if weighting is Weighting.CLIPPED:
        return jnp.minimum(1, m_B / CLIP) / (1 - CLIP / 2)
    if weighting is Weighting.BELL:
        return 6 * m_B * (1 - m_B)
    return jnp.ones_like(m_B)


def count_weights(weighting: Weighting, seq_len: int) -> Float[np.ndarray, "L"]:
    """v_K for K = 1 .. L, the mean of v(m) over m ~ Beta(K, L + 1 - K), in float64; the mean over K is 1."""
    count_L = np.arange(1, seq_len + 1)
    if weighting is Weighting.LOW_VARIANCE:
        return 2 * count_L / (seq_len + 1)
    if weighting is Weighting.CLIPPED:
        below_L = _binomial_tail(seq_len, CLIP)[1:]
        share_below_L = count_L / (seq_len + 1) * _binomial_tail(seq_len + 1, CLIP)[2:]
        return (share_below_L / CLIP + 1 - below_L) / (1 - CLIP / 2)
    if weighting is Weighting.BELL:
        return 6 * count_L * (seq_len + 1 - count_L) / ((seq_len + 1) * (seq_len + 2))
    return np.ones(seq_len)


def _binomial_tail(trials: int, p: float) -> Float[np.ndarray, "n"]:
    """P(X >= k) for k = 0 .. trials and binomial X. It equals P(m < p) for m ~ Beta(k, trials + 1 - k)."""
    choose = [math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in range(trials + 1)]
    k = np.arange(trials + 1)
    mass = np.exp(np.array(choose) + k * math.log(p) + (trials - k) * math.log1p(-p))
    return mass[::-1].cumsum()[::-1]
