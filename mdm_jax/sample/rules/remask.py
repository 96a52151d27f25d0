"""Remasking (ReMDM, Wang et al. 2025, arXiv 2503.00307): ancestral sampling that also takes tokens back.

Each step from t to s makes a generated token MASK again with the probability sigma. MASK is revealed with the
probability that keeps the masked share as it is without remasking: `(alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t)`.
The greatest possible sigma is `min(1, (1 - alpha_s) / alpha_t)`, and the rule's number eta, from 0 to 1, sets sigma:

| rule | sigma |
|---|---|
| cap | the smaller of eta and the greatest possible one |
| rescale | eta times the greatest possible one |
| confidence | the same, times the softmax over the generated tokens of minus their probability when they were drawn |

With eta = 0 all three are ancestral sampling. The last step reveals every MASK and takes nothing back. More steps than
tokens are useful here, because a token can be drawn again.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdm_jax.sample.rules.rule import Change, Rule, View


def _by(sigma: Callable[[View, Array], Array]) -> Rule:
    """The rule whose sigma, at each position or in all, follows from the view and the greatest possible sigma."""

    def choose(view: View, key: Key[Array, ""]) -> Change:
        made, left = view.step.astype(jnp.float32), jnp.maximum(view.steps - view.step, 1)
        most = jnp.minimum((left - 1) / jnp.maximum(made, 1), 1.0)
        sigma_L = jnp.broadcast_to(sigma(view, most), view.masked_L.shape)
        uniform_L = jax.random.uniform(key, view.masked_L.shape)
        # alpha_t is made / steps, and alpha_s is (made + 1) / steps.
        reveal_L = view.masked_L & (uniform_L * left < 1 + sigma_L * made)
        return Change(reveal_L, view.shown_L & (uniform_L < sigma_L))

    return Rule(choose, sees=False, timed=True)


def _confidence(view: View, most: Array) -> Array:
    doubt_L = jnp.where(view.shown_L, -jnp.exp(-view.nats_L), -jnp.inf)
    share_L = jnp.where(view.shown_L.any(), jax.nn.softmax(doubt_L), 0.0)
    return view.bound * most * share_L


REMASK_CAP = _by(lambda view, most: jnp.minimum(view.bound, most))
REMASK_RESCALE = _by(lambda view, most: view.bound * most)
REMASK_CONFIDENCE = _by(_confidence)
