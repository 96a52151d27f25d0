"""The final loss on fixed validation tokens, the same for every size and both families, with standard errors.

The MDM's NELBO is always estimated in its count form, whatever form it was trained with: one canonical bound for
everything that is compared. Every draw pairs the rows by a fresh permutation: levels tied to rows bias a fixed set.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from mdm_jax.counting import step_flops
from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import replicate, split_rows, stack_batches
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives.loss import draw, row_losses
from mdm_jax.spec import Family, FlopConvention, ObjectiveSpec, RunSpec
from mdm_jax.spec.validation import require

DRAW_SEED = 20_241_018
"""One stream of evaluation draws for all runs: common random numbers make differences between runs sharper."""
DISPATCH_FLOPS = 30_000_000_000
"""Work that one device gets at a time; a laptop does 14 to 60 GFLOP/s on the smallest models."""


@dataclass(frozen=True)
class Evaluation:
    """A loss in nats per token, with two standard errors.

    `se_mc` is the error of the Monte Carlo draws on these tokens (0 for the ARM), the only one that differs between
    runs. `se_data` is the error from the choice of the tokens, over rows; all runs share it.
    """

    loss: float
    se_mc: float
    se_data: float
    tokens: int
    mc_samples: int


def usable_rows(spec: RunSpec, rows: int) -> int:
    """The number of rows, cut to whole batches, that an evaluation reads.

    Raises:
        ValueError: they do not fill one batch.
    """
    whole = rows // spec.evaluation.batch * spec.evaluation.batch
    length = spec.data.seq_len
    bound = f"at least one batch: evaluation.batch * data.seq_len = {spec.evaluation.batch * length}"
    require(whole > 0, "evaluation.eval_tokens", rows * length, bound)
    return whole


def evaluate(
    params: Transformer,
    spec: RunSpec,
    rows_SL: Int[np.ndarray, "S L"],
    mesh: Mesh,
    known: np.ndarray | None = None,
    finished: Callable[[np.ndarray], None] = lambda losses: None,
) -> Evaluation:
    """The mean loss of the rows: the ARM's likelihood in one pass, the MDM's NELBO over `mc_samples` draws.

    The device gets a few batches at a time, so that a long evaluation can be interrupted; a batch's losses do not
    depend on how many others go with it.

    Args:
        rows_SL: int32 tokens; rows past the last whole batch are left out.
        mesh: the ambient mesh.
        known: float32 `[K B]`, the losses that `finished` got in an earlier attempt; none by default.
        finished: called after each dispatch with the losses of all batches so far, float32 `[K B]`, and may raise.
    """
    count, size = usable_rows(spec, len(rows_SL)), spec.evaluation.batch
    draws, batches = 1 if spec.family is Family.ARM else spec.evaluation.mc_samples, count // size
    losses_TB = np.empty((draws * batches, size), np.float32)
    done = 0 if known is None else len(known) // size
    if known is not None:
        losses_TB[:done] = known.reshape(-1, size)
    for first, piece in _dispatched_ahead(_dispatched(params, spec, rows_SL[:count], mesh, done)):
        piece_KB = np.asarray(piece)[: min(len(piece), batches - first % batches)]
        losses_TB[first : first + len(piece_KB)] = piece_KB
        finished(losses_TB[: first + len(piece_KB)].reshape(-1))
    return _summary(losses_TB.reshape(draws, count), rows_SL.shape[1])


def _summary(losses_RS: np.ndarray, length: int) -> Evaluation:
    """The mean and its errors, from every draw's losses in the order in which it took the rows."""
    draws, count = losses_RS.shape
    loss_RS = np.empty((draws, count))
    for r in range(draws):
        loss_RS[r, _order(r, count)] = losses_RS[r]
    mean_R, mean_S = loss_RS.mean(1), loss_RS.mean(0)
    se_mc = 0.0 if draws == 1 else float(mean_R.std(ddof=1) / draws**0.5)
    se_data = float(mean_S.std(ddof=1) / count**0.5)
    return Evaluation(float(mean_R.mean()), se_mc, se_data, count * length, draws)


def _order(r: int, count: int) -> np.ndarray:
    """The order in which draw r takes the rows."""
    return np.random.default_rng([DRAW_SEED, r]).permutation(count)


def batches_a_dispatch(spec: RunSpec, devices: int) -> int:
    """How many batches the device gets at a time: a second or two of a laptop's work, the same on every process."""
    batch_flops = step_flops(spec, FlopConvention.EXACT) * spec.evaluation.batch // (3 * spec.optim.global_batch)
    return max(1, DISPATCH_FLOPS * devices // max(1, batch_flops))


def _dispatched(
    params: Transformer, spec: RunSpec, rows_SL: np.ndarray, mesh: Mesh, done: int
) -> Iterator[tuple[int, Array]]:
    """The number of the first batch dispatched, and the `[K, B]` losses of it and the next, from batch `done` on."""
    objective = spec.objective if spec.family is Family.ARM else ObjectiveSpec()
    draws = 1 if spec.family is Family.ARM else spec.evaluation.mc_samples
    batches = len(rows_SL) // spec.evaluation.batch
    most = min(batches, batches_a_dispatch(spec, mesh.size))
    for r in range(done // batches, draws):
        tokens_NBL = rows_SL[_order(r, len(rows_SL))].reshape(batches, spec.evaluation.batch, -1)
        stacked_NBL = stack_batches(mesh, tokens_NBL)
        key = jax.random.fold_in(jax.random.key(DRAW_SEED), r)
        for n in range(max(0, done - r * batches), batches, most):
            stop = min(n + most, batches)
            yield r * batches + n, _losses(params, stacked_NBL, key, np.int32(n), np.int32(stop), most, spec, objective)


def _dispatched_ahead(dispatched: Iterator[tuple[int, Array]]) -> Iterator[tuple[int, Array]]:
    """The same, one behind: the device has its next work before the host waits for a result."""
    before = next(dispatched, None)
    while before is not None:
        after = next(dispatched, None)
        yield before
        before = after


@functools.partial(jax.jit, static_argnames=("most", "spec", "objective"))
def _losses(
    params: Transformer,
    tokens_NBL: Array,
    key: Array,
    start: Array,
    stop: Array,
    most: int,
    spec: RunSpec,
    objective: ObjectiveSpec,
) -> Array:
    """`[most, B]`: every row's loss in batches `start` to `stop` of one draw, zeros past them.

    The bounds are arguments, so that one program serves every piece and its bits do not depend on the pieces.
    """
    vocab_size = spec.model.vocab_size

    def forward(inputs_BL: Array) -> Array:
        return hidden(params, inputs_BL, spec.model, spec.hardware)

    def one(index: Array, losses_KB: Array) -> Array:
        tokens_BL = jax.lax.dynamic_index_in_dim(tokens_NBL, index, keepdims=False)
        drawn = draw(jax.random.fold_in(key, index), tokens_BL, objective, vocab_size)
        losses_B = row_losses(drawn, forward, params.head[...], objective, vocab_size)
        return jax.lax.dynamic_update_index_in_dim(losses_KB, losses_B, index - start, 0)

    none_KB = split_rows(jax.numpy.zeros((most, tokens_NBL.shape[1])))
    with product_precision(spec.model):
        return replicate(jax.lax.fori_loop(start, stop, one, none_KB))
