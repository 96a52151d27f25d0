"""Estimates that are weighted sums of the nats of masked tokens, for any sets of masked tokens of a target.

The sets of an estimate come in pairs, which together mask at most n + 1 of the target's n tokens. The two rows of a
pair are neighbours, so the head is applied to at most L + 1 positions of two rows of L tokens.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64

from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import BATCH, BATCH_L, replicate, split_over_data
from mdm_jax.evaluate.likelihood.buckets import Batches, results
from mdm_jax.evaluate.likelihood.reading import Rows, read
from mdm_jax.evaluate.likelihood.requests import Requests
from mdm_jax.model.transformer import Transformer
from mdm_jax.objectives.masking import gather_paired, paired_positions
from mdm_jax.objectives.vocab_loss import token_nats
from mdm_jax.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class MaskSets:
    """Sets of masked tokens of one target: the estimate is `sum_m weight_m * (nats of the tokens in set m)`.

    Attributes:
        pair: index of the pair.
        mask_Mn: the sets, an even number. Sets 2i and 2i+1 have at most n + 1 tokens together.
        weight_M: the weights.
    """

    pair: int
    mask_Mn: Bool[np.ndarray, "M n"]
    weight_M: Float64[np.ndarray, "M"]


@functools.partial(jax.jit, static_argnames="model")
def masked_nats(
    params: Transformer,
    rows: Rows,
    mask_BL: Bool[Array, "B L"],
    model: ModelSpec,
    guidance: Array | None = None,
) -> Float[Array, "B"]:
    """The sum of the nats of each row's masked tokens, under an MDM that sees the row's other tokens.

    Args:
        params: the MDM's weights.
        rows: the rows, an even number on each device.
        mask_BL: the masked tokens; rows 2i and 2i+1 have at most L + 1 of them together.
        model: shape of the model.
        guidance: w, or None for the model itself.
    """
    rows, mask_BL = split_over_data((rows, mask_BL))
    ids_BL = jnp.asarray(rows.ids_BL)
    batch, length = ids_BL.shape
    with product_precision(model):
        h_BLD = read(params, jnp.where(mask_BL, model.vocab_size, ids_BL), rows, model, guidance)
        position_PM = paired_positions(mask_BL)
        h_ND, target_N = gather_paired(h_BLD, position_PM), gather_paired(ids_BL, position_PM)
        nats_N = token_nats(h_ND, target_N, params.head[...], model.vocab_size)
    nats_PM = jax.lax.reshape(nats_N, position_PM.shape, out_sharding=BATCH_L)
    masked_P1 = jax.lax.reshape(mask_BL, (batch // 2, 2 * length), out_sharding=BATCH_L).sum(-1, keepdims=True)
    nats_PM = jnp.where(jnp.arange(length + 1) < masked_P1, nats_PM, 0.0)  # the places after them are fillers
    first_P = jnp.where(position_PM < length, nats_PM, 0.0).sum(-1)
    second_P = jnp.where(position_PM < length, 0.0, nats_PM).sum(-1)
    return replicate(jax.lax.reshape(jnp.stack([first_P, second_P], 1), (batch,), out_sharding=BATCH))


def estimates(requests: Requests, sets: Sequence[MaskSets], batches: Batches) -> list[Float64[np.ndarray, "J"]]:
    """The estimate of each of the given collections of sets in nats, as its summands: one for sets 2j and 2j+1."""
    places = [(e, row) for e, of_one in enumerate(sets) for row in range(0, len(of_one.weight_M), 2)]
    place_I2 = np.array(places, np.int64).reshape(-1, 2)
    pair_I = np.array([of_one.pair for of_one in sets], np.int64)[place_I2[:, 0]]
    nats_I2 = np.empty((len(place_I2), 2))

    def dispatched() -> Iterator[tuple[np.ndarray, Array]]:
        for length, items in batches.cut(requests.length_P[pair_I]):
            rows = requests.rows(pair_I[items].repeat(2), length)
            mask_BL = np.zeros((2 * len(items), length), bool)
            for i, (e, first) in enumerate(place_I2[items]):
                start = len(requests.pairs[sets[e].pair].prompt)
                two_2n = sets[e].mask_Mn[first : first + 2]
                mask_BL[2 * i : 2 * i + 2, start : start + two_2n.shape[1]] = two_2n
            yield items, masked_nats(requests.params, rows, mask_BL, requests.model, requests.guidance)

    for items, nats_B in results(dispatched()):
        nats_I2[items] = nats_B.reshape(-1, 2)
    weight_I2 = np.array([sets[e].weight_M[row : row + 2] for e, row in place_I2]).reshape(-1, 2)
    ends_E = np.cumsum([len(of_one.weight_M) // 2 for of_one in sets])
    return np.split((weight_I2 * nats_I2).sum(1), ends_E[:-1])
