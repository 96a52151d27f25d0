"""The NELBO of a row from a group of draws, with a control variate: less variance for the same forward passes.

The count form of the NELBO is the mean over K = 1 .. L of f(K), the mean nats of K tokens that are masked at random.
Three things lower the variance of its estimate, and none of them costs a forward pass:

- Strata. A group has an even number of draws of one row. A pair of draws masks K and L+1-K tokens, and each pair has a
  stratum of K to itself. The strata are narrow where few tokens are masked, because f varies most there.
- Independent rows. Each row has its own strata and masks. So the rows' errors are independent, and the differences
  between two independent groups of the same row give a standard error with as many degrees of freedom as rows.
- A control variate. A token that costs many nats under one mask costs many under others. Let c_i be how far token i
  lies above the mean of its row, predicted from the group's other draws. A draw with the masked set M gets

      mean of nats_i over M  +  mean of c_i over the row  -  mean of c_i over M.

  The prediction for a draw does not use the draw itself. Given the counts, the masks of a group's draws are
  independent, and M is uniform among the sets of its size. So the two means of c have the same expectation, and the
  estimate is exactly unbiased, however good or bad the prediction is.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdm_jax.devices.sharding import BATCH, BATCH_L, flat_rows, over_shards
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.masking import count_masks, gather_paired, paired_positions
from mdm_jax.objectives.vocab_loss import token_nats

NARROWING = 2.0
"""Power of the strata's edges: 1 gives equal strata. The variance of a mean over K tokens is in proportion to 1/K, for
which 2 is optimal (Neyman 1934): the density of the draws is then in proportion to the standard deviation."""
PRIOR_DRAWS = 0.5
"""The prediction of a token counts this many draws at the row's mean. It is the ratio of the variance of a token's
nats over masks to the variance over tokens, about .3 to .5 in trained models."""


def stratum_edges(pairs: int, narrowing: float = NARROWING) -> Float[np.ndarray, "E"]:
    """Edges of the strata of u in [0, 1/2], `pairs + 1` of them. A pair of draws masks K = floor(u L) + 1 tokens."""
    return 0.5 * np.linspace(0, 1, pairs + 1) ** narrowing


def draw_weights(draws: int, narrowing: float = NARROWING) -> Float[np.ndarray, "R"]:
    """The weight of each draw of a group. The mean is 1: a draw counts in proportion to the width of its stratum."""
    return np.repeat(draws * np.diff(stratum_edges(draws // 2, narrowing)), 2)


def group_counts(
    key: Key[Array, ""], rows: int, draws: int, seq_len: int, narrowing: float = NARROWING
) -> Int[Array, "S R"]:
    """Masked tokens of each draw, in 1..L. Draws 2j and 2j+1 sum to L+1, and lie in stratum j."""
    edge_E = stratum_edges(draws // 2, narrowing)
    u_SJ = edge_E[:-1] + np.diff(edge_E) * jax.random.uniform(key, (rows, draws // 2))
    count_SJ = jnp.minimum((u_SJ * seq_len).astype(jnp.int32), (seq_len + 1) // 2 - 1) + 1
    return jnp.stack([count_SJ, seq_len + 1 - count_SJ], 2).reshape(rows, draws)


def predictions(nats_SRL: Float[Array, "S R L"], mask_SRL: Bool[Array, "S R L"]) -> Float[Array, "S R L"]:
    """How far each token's nats lie above its row's mean, predicted for each draw from the row's other draws.

    Args:
        nats_SRL: nats of the masked tokens; the others are ignored.
        mask_SRL: the masked tokens, at least one in each draw.
    """
    mean_SR1 = jnp.where(mask_SRL, nats_SRL, 0).sum(-1, keepdims=True) / mask_SRL.sum(-1, keepdims=True)
    above_SRL = jnp.where(mask_SRL, nats_SRL - mean_SR1, 0)
    others_SRL = above_SRL.sum(1, keepdims=True) - above_SRL
    seen_SRL = mask_SRL.sum(1, keepdims=True) - mask_SRL.astype(jnp.int32)
    return others_SRL / (seen_SRL + PRIOR_DRAWS)


def controlled_losses(
    nats_SRL: Float[Array, "S R L"], mask_SRL: Bool[Array, "S R L"], narrowing: float = NARROWING
) -> Float[Array, "S R"]:
    """The loss of each draw in nats per token; a row's mean over the draws of a group estimates its NELBO."""
    control_SRL = predictions(nats_SRL, mask_SRL)
    inside_SRL = jnp.where(mask_SRL, nats_SRL - control_SRL, 0)
    loss_SR = inside_SRL.sum(-1) / mask_SRL.sum(-1) + control_SRL.mean(-1)
    return loss_SR * jnp.asarray(draw_weights(mask_SRL.shape[1], narrowing), jnp.float32)


def group_draw(key: Key[Array, ""], tokens_SL: Int[Array, "S L"], vocab_size: int, draws: int) -> Draw:
    """A group of draws of each row, as `[S R, L]`. It has no weights; `group_losses` weighs the draws.

    Args:
        tokens_SL: clean tokens in 0..V-1; every device holds whole rows.
        vocab_size: V, which is also the id of MASK.
        draws: R, an even number of at least 4.
    """
    rows, length = tokens_SL.shape
    key_count, key_mask = jax.random.split(key)
    mask_BL = count_masks(key_mask, group_counts(key_count, rows, draws, length).reshape(-1), length)
    tokens_BL = over_shards(functools.partial(jnp.repeat, repeats=draws, axis=0), BATCH_L, BATCH_L)(tokens_SL)
    inputs_BL = jnp.where(mask_BL, vocab_size, tokens_BL)
    return Draw(inputs_BL, tokens_BL, None, position_PM=paired_positions(mask_BL))


def group_losses(
    drawn: Draw,
    hidden: Callable[[Array, Array], Array],
    head_DV: Float[Array, "D V"],
    vocab_size: int,
    draws: int,
) -> Float[Array, "B"]:
    """The losses of one group of draws of each row, row by row; see `controlled_losses`.

    Args:
        drawn: see `group_draw`.
        hidden: the model, from tokens `[S R, L]` and positions `[P, M]` of each pair of rows to states `[P, M, D]`.
        vocab_size: V.
        draws: R.
    """
    length, position_PM, mask_BL = drawn.inputs_BL.shape[1], drawn.position_PM, drawn.inputs_BL == vocab_size
    h_ND = flat_rows(hidden(drawn.inputs_BL, position_PM))
    target_N = gather_paired(drawn.targets_BL, position_PM)
    nats_PM = token_nats(h_ND, target_N, head_DV, vocab_size).reshape(position_PM.shape, out_sharding=BATCH_L)

    def local(nats_pM: Array, position_pM: Array, mask_bL: Array) -> Array:
        empty_pL = jnp.zeros((position_pM.shape[0], 2 * length))
        nats_pL = jax.vmap(lambda row, at, nats: row.at[at].set(nats))(empty_pL, position_pM, nats_pM)
        grouped = (-1, draws, length)
        return controlled_losses(nats_pL.reshape(grouped), mask_bL.reshape(grouped)).reshape(-1)

    return over_shards(local, (BATCH_L, BATCH_L, BATCH_L), BATCH)(nats_PM, position_PM, mask_BL)
