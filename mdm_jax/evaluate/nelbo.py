"""The final loss on fixed validation tokens, the same for every size and both families, with standard errors.

The MDM's NELBO is always estimated in its count form, whatever the training loss was, so that all runs are compared by
the same bound. An evaluation makes several passes over the rows. Every pass takes the rows in a new random order: with
one fixed order, each row would always get the same range of noise levels, which biases the mean over a fixed set of
rows. A pass makes one draw of each row, or one group of draws under the estimator `control_variate`.

With `max_se`, passes are added until the Monte Carlo error is small enough. Two passes are always made. Each further
number of passes is predicted from the error so far, so there are few looks at it. A look happens only between passes,
and every row has been read equally often by then.

Rows of pairs have scored tokens of different numbers. Their loss is the nats of all scored tokens by their number, so
that a row weighs as much as it has tokens; the error over rows is that of a ratio of two sums.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float64, Int

from mdm_jax.devices.precision import product_precision
from mdm_jax.devices.sharding import at_index, replicate, split_rows, stack_batches
from mdm_jax.evaluate.control_variate import group_draw, group_losses
from mdm_jax.evaluate.ratio import ratio
from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives.drawn import Draw
from mdm_jax.objectives.loss import draw, row_losses
from mdm_jax.objectives.pairs import scored_positions
from mdm_jax.spec import LEAST_GROUPS, Family, ObjectiveSpec, RowKind, RunSpec, evaluated_loss
from mdm_jax.spec.counting import forward_flops
from mdm_jax.spec.programs import evaluation_program
from mdm_jax.spec.validation import require

DRAW_SEED = 20_241_018
"""All runs use the same evaluation draws, because common random numbers reduce the noise of their differences."""
DISPATCH_FLOPS = 30_000_000_000
"""FLOPs that one device gets at a time; a laptop does 14 to 60 GFLOP/s on the smallest models."""


@dataclass(frozen=True)
class Evaluation:
    """A loss in nats per scored token, with two standard errors. `tokens` are the scored ones.

    `se_mc` is the error of the Monte Carlo draws on these tokens (0 for the ARM). `se_data` is the error from the
    choice of the tokens, estimated over rows; all runs share it, because they are evaluated on the same tokens.
    """

    loss: float
    se_mc: float
    se_data: float
    tokens: int
    mc_samples: int


def usable_rows(spec: RunSpec, rows: int) -> int:
    """The number of rows that an evaluation reads: `rows`, rounded down to whole batches.

    Raises:
        ValueError: the rows do not fill one batch.
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
    """The mean loss of the rows: the ARM's NLL in one pass, the MDM's NELBO over `mc_samples` draws or until `max_se`.

    The device gets a few batches at a time, so that a long evaluation can be interrupted. The losses of a batch do not
    depend on the number of batches that are dispatched together.

    Args:
        rows_SL: int32 tokens, or pairs as `objectives/pairs.py` says; rows after the last whole batch are left out.
        mesh: the ambient mesh.
        known: losses that `finished` received in an earlier attempt, float32 `[K B]`; none by default.
        finished: called after each dispatch with the losses of all batches so far, float32 `[K B]`. It may raise an
            exception, which ends the evaluation.
    """
    count, size = usable_rows(spec, len(rows_SL)), spec.evaluation.batch
    most, group = _passes(spec)
    batches = count * group // size
    losses_TB = np.empty((0, size), np.float32) if known is None else known.reshape(-1, size)
    done = len(losses_TB)
    passes = LEAST_GROUPS if spec.draws_until_error else most
    while True:
        room_TB = np.empty((max(0, passes * batches - len(losses_TB)), size), np.float32)
        losses_TB = np.concatenate([losses_TB, room_TB])
        for first, piece in _dispatched_ahead(_dispatch(params, spec, rows_SL[:count], mesh, done, passes)):
            piece_KB = np.asarray(piece)[: min(len(piece), batches - first % batches)]
            losses_TB[first : first + len(piece_KB)] = piece_KB
            finished(losses_TB[: first + len(piece_KB)].reshape(-1))
        done = max(done, passes * batches)
        losses_PSR = losses_TB[: passes * batches].reshape(passes, count, group)
        wanted = _passes_wanted(losses_PSR, spec, most)
        if wanted == passes:
            return _measured(losses_PSR, spec, rows_SL[:count])
        passes = wanted


def _passes(spec: RunSpec) -> tuple[int, int]:
    """The number of passes over the rows (the most, with `max_se`), and of draws that a pass makes of each row."""
    if spec.family is Family.ARM:
        return 1, 1
    group = spec.evaluation.group_draws
    return spec.evaluation.mc_samples // group, group


def _passes_wanted(losses_PSR: np.ndarray, spec: RunSpec, most: int) -> int:
    """The passes after which the error will probably be small enough; the present number if it is so now."""
    now = len(losses_PSR)
    if now == most:
        return now
    error, max_se = _summary(losses_PSR, spec.data.seq_len).se_mc, spec.evaluation.max_se
    if not error > max_se:  # NaN is not greater than anything
        return now
    return min(most, max(now + 1, math.ceil(now * min((error / max_se) ** 2, most))))


def _measured(losses_PSR: np.ndarray, spec: RunSpec, rows_SL: np.ndarray) -> Evaluation:
    if spec.data.rows is RowKind.TEXT:
        return _summary(losses_PSR, rows_SL.shape[1])
    scored_SL = scored_positions(rows_SL, spec.model.vocab_size, spec.data.rows)
    return _summary_of_pairs(in_row_order(losses_PSR[:, :, 0]), np.asarray(scored_SL).sum(1))


def _summary(losses_PSR: np.ndarray, length: int) -> Evaluation:
    """The mean and its errors. Each pass's losses are in the order in which the pass took the rows."""
    passes, count, group = losses_PSR.shape
    loss_PS = in_row_order(losses_PSR.mean(2, dtype=np.float64))
    mean_P, mean_S = loss_PS.mean(1), loss_PS.mean(0)
    if passes == 1:
        se_mc = 0.0
    elif group == 1:  # the levels are stratified over rows, so only the means of whole passes are independent
        se_mc = float(mean_P.std(ddof=1) / passes**0.5)
    else:  # every group of draws is independent of all others
        se_mc = float((loss_PS.var(0, ddof=1).sum() / passes) ** 0.5 / count)
    se_data = float(mean_S.std(ddof=1) / count**0.5)
    return Evaluation(float(mean_P.mean()), se_mc, se_data, count * length, passes * group)


def _summary_of_pairs(loss_PS: Float64[np.ndarray, "P S"], tokens_S: Int[np.ndarray, "S"]) -> Evaluation:
    """The mean over all scored tokens and its errors, from the loss of each pair and its number of scored tokens."""
    found, passes = ratio(loss_PS * tokens_S, tokens_S), len(loss_PS)
    return Evaluation(found.value, found.se_mc, found.se_data, int(tokens_S.sum()), passes)


def in_row_order(losses_RS: Float[np.ndarray, "R S"]) -> Float64[np.ndarray, "R S"]:
    """The losses in the order of the rows, from losses in the order in which each draw took the rows."""
    draws, count = losses_RS.shape
    loss_RS = np.empty((draws, count))
    for r in range(draws):
        loss_RS[r, _row_order(r, count)] = losses_RS[r]
    return loss_RS


def _row_order(r: int, count: int) -> np.ndarray:
    """The order in which pass r takes the rows."""
    return np.random.default_rng([DRAW_SEED, r]).permutation(count)


def batches_a_dispatch(spec: RunSpec, devices: int) -> int:
    """The number of batches that are dispatched together: one or two seconds of work for a laptop."""
    objective, batch = evaluated_loss(spec.family), spec.evaluation.batch
    batch_flops = forward_flops(spec.model, objective, batch, spec.data.seq_len)
    return max(1, DISPATCH_FLOPS * devices // max(1, batch_flops))


def _dispatch(
    params: Transformer, spec: RunSpec, rows_SL: np.ndarray, mesh: Mesh, done: int, passes: int
) -> Iterator[tuple[int, Array]]:
    """Dispatches the batches of `passes` passes, from number `done` on.

    Yields the number of the first batch of each dispatch, and the `[K, B]` losses.
    """
    objective, group, kind = evaluated_loss(spec.family), _passes(spec)[1], spec.data.rows
    batches = len(rows_SL) * group // spec.evaluation.batch
    most = min(batches, batches_a_dispatch(spec, mesh.size))
    program = evaluation_program(spec)
    for r in range(done // batches, passes):
        tokens_NBL = rows_SL[_row_order(r, len(rows_SL))].reshape(batches, spec.evaluation.batch // group, -1)
        key = jax.random.fold_in(jax.random.key(DRAW_SEED), r)
        for n in range(max(0, done - r * batches), batches, most):
            some_NBL = tokens_NBL[n : n + most]
            padded_KBL = np.concatenate([some_NBL, np.zeros((most - len(some_NBL), *some_NBL.shape[1:]), np.int32)])
            tokens_KBL = stack_batches(mesh, padded_KBL)
            drawn_K = _draws(tokens_KBL, key, np.int32(n), objective, spec.model.vocab_size, kind, group)
            count = np.int32(len(some_NBL))
            yield r * batches + n, _losses(params, drawn_K, tokens_KBL, count, program, objective)


def _dispatched_ahead(dispatched: Iterator[tuple[int, Array]]) -> Iterator[tuple[int, Array]]:
    """`dispatched`, one item late, so that the device has its next work before the host waits for a result."""
    before = next(dispatched, None)
    while before is not None:
        after = next(dispatched, None)
        yield before
        before = after


@functools.partial(jax.jit, static_argnames=("objective", "vocab_size", "kind", "group"))
def _draws(
    tokens_KBL: Array, key: Array, first: Array, objective: ObjectiveSpec, vocab_size: int, kind: RowKind, group: int
) -> Draw:
    """The draws of K batches of one pass, stacked. Models of all sizes share the program.

    Args:
        tokens_KBL: the rows of each batch, of which a group of draws makes several sequences each.
        key: the key of the pass.
        first: the number of the first batch within the pass.
        group: the draws that a pass makes of each row.
    """

    def one(tokens_BL: Array, batch: Array) -> Draw:
        own_key = jax.random.fold_in(key, batch)
        if group > 1:
            return group_draw(own_key, tokens_BL, vocab_size, group)
        return draw(own_key, tokens_BL, objective, vocab_size, kind)

    return jax.vmap(one)(tokens_KBL, first + jax.numpy.arange(len(tokens_KBL)))


@functools.partial(jax.jit, static_argnames=("spec", "objective"))
def _losses(
    params: Transformer, drawn_K: Draw, tokens_KBL: Array, count: Array, spec: RunSpec, objective: ObjectiveSpec
) -> Array:
    """The losses of the sequences in the first `count` of K batches, `[K, B]`, padded with zeros.

    `count` is an array, so that one compiled program computes every dispatch, with the same bits.

    Args:
        drawn_K: see `_draws`.
        tokens_KBL: the rows of each batch.
        spec: the run as `evaluation_program` gives it, so that runs of one model share the program.
    """
    vocab_size, group, kind = spec.model.vocab_size, _passes(spec)[1], spec.data.rows

    def one(index: Array, losses_KB: Array) -> Array:
        drawn, tokens_BL = at_index((drawn_K, tokens_KBL), index)

        def forward(inputs_BL: Array, position_PM: Array | None = None) -> Array:
            return hidden(params, inputs_BL, spec.model, spec.hardware, drawn.length_B, position_PM=position_PM)

        if group > 1:
            losses_B = group_losses(drawn, forward, params.head[...], vocab_size, group)
        else:
            losses_B = row_losses(drawn, forward, params.head[...], objective, vocab_size)
            if kind is not RowKind.TEXT:  # those are nats by the mean number of scored tokens, not by the row's own
                tokens_B = jax.numpy.asarray(scored_positions(tokens_BL, vocab_size, kind)).sum(-1)
                losses_B *= tokens_B.mean() / tokens_B
        return jax.lax.dynamic_update_index_in_dim(losses_KB, losses_B, index, 0)

    none_KB = split_rows(jax.numpy.zeros((len(tokens_KBL), spec.evaluation.batch)))
    with product_precision(spec.model):
        return replicate(jax.lax.fori_loop(0, count, one, none_KB))
