"""First hitting (Zheng et al. 2024, arXiv 2409.02908): events in a random order, each at a uniformly random position.

In continuous time the reverse process reveals one token at a time, and every MASK is equally likely to be next. So the
times need not be simulated for a model that does not read them, and one token an event is exact: the text has the
distribution of the average over all orders. With fewer steps than tokens an event reveals several tokens at once.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdm_jax.sample.rules.counts import tokens_now
from mdm_jax.sample.rules.rule import Change, Rule, View, only_reveal


def _choose(view: View, key: Key[Array, ""]) -> Change:
    shuffled_L = jax.random.permutation(key, len(view.masked_L))
    order_L = jnp.argsort(jnp.where(view.masked_L, shuffled_L, len(shuffled_L)))
    rank_L = jnp.argsort(order_L)
    return only_reveal(view.masked_L & (rank_L < tokens_now(view)))


FIRST_HITTING = Rule(_choose, sees=False)
