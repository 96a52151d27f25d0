"""The final loss on fixed validation tokens, the same for every size and both families, with standard errors.

The MDM's NELBO is always estimated in its count form, whatever form it was trained with: one canonical bound for
everything that is compared. Every draw pairs the rows by a fresh permutation: levels tied to rows bias a fixed set.
"""

import functools
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from mdm_jax.model.transformer import Transformer, hidden
from mdm_jax.objectives.loss import draw, row_losses
from mdm_jax.products import product_precision
from mdm_jax.sharding import replicate, stack_batches
from mdm_jax.spec import Family, ObjectiveSpec, RunSpec
from mdm_jax.tree import require

DRAW_SEED = 20_241_018
"""One stream of evaluation draws for all runs: common random numbers make differences between runs sharper."""


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


def evaluate(params: Transformer, spec: RunSpec, rows_SL: Int[np.ndarray, "S L"], mesh: Mesh) -> Evaluation:
    """The mean loss of the rows: the ARM's likelihood in one pass, the MDM's NELBO over `mc_samples` draws.

    Args:
        rows_SL: int32 tokens; rows past the last whole batch are left out.
        mesh: the ambient mesh.
    """
    count = usable_rows(spec, len(rows_SL))
    objective = spec.objective if spec.family is Family.ARM else ObjectiveSpec()
    draws = 1 if spec.family is Family.ARM else spec.evaluation.mc_samples
    loss_RS = np.empty((draws, count))
    for r in range(draws):
        order_S = np.random.default_rng([DRAW_SEED, r]).permutation(count)
        tokens_NBL = rows_SL[order_S].reshape(-1, spec.evaluation.batch, rows_SL.shape[1])
        key = jax.random.fold_in(jax.random.key(DRAW_SEED), r)
        drawn_NB = _draw_losses(params, stack_batches(mesh, tokens_NBL), key, spec, objective)
        loss_RS[r, order_S] = np.asarray(drawn_NB).reshape(-1)
    mean_R, mean_S = loss_RS.mean(1), loss_RS.mean(0)
    se_mc = 0.0 if draws == 1 else float(mean_R.std(ddof=1) / draws**0.5)
    se_data = float(mean_S.std(ddof=1) / count**0.5)
    return Evaluation(float(mean_R.mean()), se_mc, se_data, count * rows_SL.shape[1], draws)


@functools.partial(jax.jit, static_argnames=("spec", "objective"))
def _draw_losses(params: Transformer, tokens_NBL: Array, key: Array, spec: RunSpec, objective: ObjectiveSpec) -> Array:
    """`[N, B]`: every row's loss in one draw, batch by batch."""
    vocab_size = spec.model.vocab_size

    def forward(inputs_BL: Array) -> Array:
        return hidden(params, inputs_BL, spec.model, spec.hardware)

    def one(batch: tuple[Array, Array]) -> Array:
        index, tokens_BL = batch
        drawn = draw(jax.random.fold_in(key, index), tokens_BL, objective, vocab_size)
        return row_losses(drawn, forward, params.head[...], objective, vocab_size)

    index_N = jax.numpy.arange(tokens_NBL.shape[0])
    with product_precision(spec.model):
        return replicate(jax.lax.map(one, (index_N, tokens_NBL)))
