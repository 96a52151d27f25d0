"""Recipes: peak learning rate, batch and warm-up of a run, named and cited, one function each.

A recipe decides these three and nothing else. Betas, decay, clipping, the kind of schedule and its floor are the
experiment's `run` section, whose defaults are SMDM's. Where a recipe's source uses others, its docstring names them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from isoflop.wording import rounded
from mdm_jax.spec import ModelSpec

SMDM_LR, SMDM_BATCH_TOKENS = 2e-4, 256 * 2048
"""Learning rate, and tokens a batch, of SMDM's released code at every size. Recipes that scale start from these."""
BASE_WIDTH = 1024
"""The width at which the width-scaled recipes have SMDM's rate: the middle of SMDM's ladder (sizes 268 to 336)."""
MOST_SEQUENCES = 1 << 17


@dataclass(frozen=True)
class RecipeInput:
    """What a recipe depends on: the model, the row length, and the training tokens D that the budget buys."""

    model: ModelSpec
    seq_len: int
    tokens: float


@dataclass(frozen=True)
class Choice:
    """What a recipe decides. `global_batch` is in sequences; `warmup` maps steps to warm-up steps."""

    lr_peak: float
    global_batch: int
    warmup: Callable[[int], int]


def smdm_code(given: RecipeInput) -> Choice:
    """SMDM as released (ML-GSAI/SMDM, `pretrain/`): 2e-4 for every size and both families, batch 256."""
    return Choice(lr_peak=2e-4, global_batch=256, warmup=long_warmup)


def smdm_paper(given: RecipeInput) -> Choice:
    """SMDM as in the paper (Nie et al. 2024, Appendix B): 4e-4, where the released code says 2e-4."""
    return Choice(lr_peak=4e-4, global_batch=256, warmup=long_warmup)


def mdlm(given: RecipeInput) -> Choice:
    """MDLM (Sahoo et al. 2024, Appendix C; configs of kuleshov-group/mdlm): 3e-4, batch 512, 2500 steps of warm-up.

    MDLM's rate stays constant after the warm-up. To follow MDLM in all else, an experiment also sets
    `run.schedule.kind = "wsd"` and `sweep.cooldown_fraction = 0` (constant to the end), `run.optim.b2 = 0.999`,
    `run.optim.weight_decay = 0`, `run.optim.ema_decay = 0.9999` and `run.model.dropout = 0.1`.
    """
    return Choice(lr_peak=3e-4, global_batch=512, warmup=lambda steps: min(2500, steps))


def smdm_width(given: RecipeInput) -> Choice:
    """SMDM's rate at width 1024, and inversely proportional to the width; batch and warm-up are SMDM's.

    Adam's rate for matrix-like weights transfers between widths in this way (Yang et al. 2022, Tensor Programs V,
    Table 3). The rest of that parametrisation is left out: one rate serves all weights, and initialisation and head
    stay SMDM's.
    """
    rate = SMDM_LR * BASE_WIDTH / given.model.d_model
    return Choice(lr_peak=rounded(rate, 4), global_batch=256, warmup=long_warmup)


def gidd(given: RecipeInput) -> Choice:
    """Batch and rate from D (von Ruette et al. 2025, Scaling Behavior of Discrete Diffusion Language Models).

    batch* = 10^-2.4 D^.8225 tokens, the fit through all noise types in the paper's released notebooks
    (dvruette/gidd-easydel, critical_batch_size2), rounded to a power of two of sequences. rate* grows with the batch to
    the power .34. The paper's own rates belong to another optimiser and to CompleteP, which makes them hold at any
    width. Here the rate is SMDM's 2e-4 at a batch of 256 rows of 2048 (which the rule gives to D = 7.4e9 tokens) and
    width 1024. It changes with the width as in `smdm_width`.
    """
    sequences = 10**-2.4 * given.tokens**0.8225 / given.seq_len
    batch = min(max(_power_of_two(sequences), 2), MOST_SEQUENCES)
    rate = SMDM_LR * (batch * given.seq_len / SMDM_BATCH_TOKENS) ** 0.34 * BASE_WIDTH / given.model.d_model
    return Choice(lr_peak=rounded(min(rate, 6e-3), 4), global_batch=batch, warmup=long_warmup)


def tiny(given: RecipeInput) -> Choice:
    """Models of width 16 to 160 on short rows: fitted here, on the default corpus, for experiments/quickstart.py.

    The batch grows with the square root of D (the published exponents of batch* in D run from .5 to .82), so that the
    smallest budget still takes hundreds of steps. It is a power of two, so that runs of one size at neighbouring
    budgets share a compiled program. The rate grows with the square root of the batch and falls with the width: at
    width 64 and batch 4, an MDM of 1e12 FLOPs ends at 2.63 nats with 1.4e-3 or 2.8e-3, and at 3.00 with 4.2e-3.
    """
    batch = min(max(_power_of_two(given.tokens**0.5 / given.seq_len / 3.5), 2), 64)
    rate = 5e-3 * (32 / given.model.d_model) * (batch / 8) ** 0.5
    return Choice(lr_peak=round(min(rate, 6e-3), 6), global_batch=batch, warmup=short_warmup)


def tiny_trunk(given: RecipeInput) -> Choice:
    """The choice for WSD trunks of tiny models: `tiny`'s rate at batch 4, whatever the budget.

    The runs of a trunk share their batch and rate, so neither may depend on D.
    """
    rate = 5e-3 * (32 / given.model.d_model) * 0.5**0.5
    return Choice(lr_peak=round(min(rate, 6e-3), 6), global_batch=4, warmup=short_warmup)


def long_warmup(steps: int) -> int:
    """Warm-up steps of SMDM: 1% of the steps, at least 100, at most all."""
    return min(max(steps // 100, 100), steps)


def short_warmup(steps: int) -> int:
    """Warm-up steps of runs of hundreds of steps: a tenth of them, at most 200; 1% where that is more."""
    return max(steps // 100, min(200, steps // 10))


def _power_of_two(value: float) -> int:
    """The nearest power of two in the logarithm, at least 1. Meshes divide it, and neighbouring budgets share it."""
    return 2 ** max(0, round(math.log2(value)))


RECIPES: dict[str, Callable[[RecipeInput], Choice]] = {
    f.__name__: f for f in (smdm_code, smdm_paper, mdlm, smdm_width, gidd, tiny, tiny_trunk)
}


def find_recipe(name: str) -> Callable[[RecipeInput], Choice]:
    """The recipe of that name.

    Raises:
        ValueError: no such recipe; the known ones are listed.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: must be one of {', '.join(RECIPES)}")
    return RECIPES[name]
