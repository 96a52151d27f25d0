"""The exact likelihoods of rows of tokens, such as the validation rows of a run. A row has no prompt and no padding.

The device gets a part of the work at a time, so that a long evaluation can be interrupted.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Integer

from mdm_jax.devices.sharding import row_shards
from mdm_jax.evaluate.likelihood.confidence import nothing_revealed, reveal
from mdm_jax.evaluate.likelihood.left_to_right import add_prefix_nats, causal_nats
from mdm_jax.evaluate.likelihood.reading import whole_rows
from mdm_jax.evaluate.nelbo import DISPATCH_FLOPS
from mdm_jax.model.transformer import Transformer
from mdm_jax.spec import Attention, Likelihood, ModelSpec
from mdm_jax.spec.counting import count_parameters
from mdm_jax.spec.validation import require

MDM_METHODS = (Likelihood.LEFT_TO_RIGHT, Likelihood.CONFIDENCE)
ARM_METHODS = (Likelihood.LEFT_TO_RIGHT, Likelihood.NELBO)


def row_losses(
    params: Transformer,
    model: ModelSpec,
    rows_SL: Integer[np.ndarray, "S L"],
    method: Likelihood,
    mesh: Mesh,
    known: Float32[np.ndarray, "K"] | None = None,
    finished: Callable[[Float32[np.ndarray, "K"]], None] = lambda losses: None,
    batch: int = 64,
) -> Float32[np.ndarray, "S"]:
    """The loss of each row in nats per token, float32, without Monte Carlo error.

    Args:
        params: weights of an MDM, or of an ARM whose last embedding row is the start token.
        model: shape of the model; its attention is causal for an ARM.
        rows_SL: tokens in 0..V-1, at least one row.
        method: `left_to_right` or `confidence`. An ARM has only `left_to_right`, which is also its `nelbo`.
        mesh: the ambient mesh.
        known: losses that `finished` received in an earlier attempt; none by default.
        finished: called after each part of the work with the losses of all whole batches so far, which may be none. It
            may raise an exception, which ends the evaluation.
        batch: rows that the device reads together; a mesh rounds it up to a multiple of its devices along `data`. It
            does not change the losses beyond rounding.

    Raises:
        ValueError: the model's family does not have the method, or it has a Monte Carlo error; or there is no row, or
            the known losses are not those of whole batches.
    """
    check_method(method, ARM_METHODS if model.attention is Attention.CAUSAL else MDM_METHODS)
    require(rows_SL.size > 0, "rows_SL: shape", rows_SL.shape, "at least one row and one token")
    batch = -(-min(batch, len(rows_SL)) // row_shards(mesh)) * row_shards(mesh)
    losses_S, done = np.empty(len(rows_SL), np.float32), 0 if known is None else len(known)
    whole = done in (0, len(rows_SL)) or (done < len(rows_SL) and done % batch == 0)
    require(whole, "known losses", done, f"a multiple of the batch of {batch} rows, at most {len(rows_SL)}")
    losses_S[:done] = [] if known is None else known
    for first in range(done, len(rows_SL), batch):
        taken_B = np.arange(first, first + batch).clip(max=len(rows_SL) - 1)  # the last row fills the last batch
        nats_B = _batch_nats(params, model, rows_SL[taken_B], method, mesh, lambda n=first: finished(losses_S[:n]))
        losses_S[first : first + batch] = (nats_B / rows_SL.shape[1])[: len(rows_SL) - first]
        finished(losses_S[: first + batch])
    return losses_S


def check_method(method: Likelihood, allowed: tuple[Likelihood, ...]) -> None:
    """Raises ValueError if the method is not one of these; the message lists them."""
    require(method in allowed, "method", str(method), f"one of {', '.join(allowed)}, for rows of this family")


def _batch_nats(
    params: Transformer,
    model: ModelSpec,
    ids_BL: np.ndarray,
    method: Likelihood,
    mesh: Mesh,
    pause: Callable[[], None],
) -> np.ndarray:
    """The nats of each row of one batch, float32; `pause` is called between the parts of the work."""
    rows, length = whole_rows(ids_BL), ids_BL.shape[1]
    if model.attention is Attention.CAUSAL:
        return np.asarray(causal_nats(params, rows, model)[0]).astype(np.float64).sum(1)
    state, nats_B = nothing_revealed(rows), np.zeros(len(ids_BL), np.float32)
    most = _tokens_a_dispatch(model, ids_BL.size, mesh.size)
    for start in range(0, length, most):
        stop = min(start + most, length)
        if start:
            pause()
        if method is Likelihood.CONFIDENCE:
            state = jax.device_get(reveal(params, rows, state, np.int32(stop - start), model))
        else:
            nats_B = np.asarray(add_prefix_nats(params, rows, nats_B, np.int32(start), np.int32(stop), model))
    return np.asarray(state.nats_B if method is Likelihood.CONFIDENCE else nats_B)


def _tokens_a_dispatch(model: ModelSpec, batch_tokens: int, devices: int) -> int:
    """Target tokens of each row that are scored in one dispatch."""
    flops = 2 * (count_parameters(model).non_embedding + model.d_model * model.vocab_size) * batch_tokens
    return max(1, DISPATCH_FLOPS * devices // flops)
