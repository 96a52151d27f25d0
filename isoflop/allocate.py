"""Allocation: what a budget C buys. Tokens D for a model, and the whole steps that spend it.

`steps = int(C / FLOPs of a step)`, which under `smdm_6nd` is SMDM's `int(C / (6 N B L))`; what the truncation leaves
unspent must be within 1% of the budget, or a curve would not be at one budget.
"""

import dataclasses

from mdm_jax.counting import step_flops
from mdm_jax.spec import FlopConvention, RunSpec

MOST_UNSPENT = 0.01


def tokens_for(spec: RunSpec, budget: float, convention: FlopConvention) -> float:
    """Training tokens D that `budget` FLOPs buy for the model, before rounding to whole steps."""
    pair = dataclasses.replace(spec.optim, global_batch=2)
    single = dataclasses.replace(spec.hardware, mesh_data=1, microbatches=1)
    smallest = dataclasses.replace(spec, optim=pair, hardware=single)
    return budget / step_flops(smallest, convention) * 2 * spec.data.seq_len


def steps_for(spec: RunSpec, budget: float, convention: FlopConvention) -> int:
    """Optimiser steps that `budget` FLOPs buy for the model, batch and row length of `spec`.

    Raises:
        ValueError: not even one step, or more than 1% of the budget would stay unspent; the batch that fits is named.
    """
    one = step_flops(spec, convention)
    steps = int(budget) // one
    if steps < 1:
        raise ValueError(
            f"too small for one step of {one:.3g} FLOPs under {convention.value}: {_fix(spec, budget, one)}"
        )
    unspent = 1 - steps * one / budget
    if unspent > MOST_UNSPENT:
        spent = f"{steps} whole steps leave {unspent:.1%} of the budget unspent, more than {MOST_UNSPENT:.0%}"
        raise ValueError(f"{spent}: {_fix(spec, budget, one)}")
    return steps


def _fix(spec: RunSpec, budget: float, one: int) -> str:
    """What to change: the largest even batch with steps of 1% of the budget, where there is one."""
    batch = int(MOST_UNSPENT * budget * spec.optim.global_batch / one) // 2 * 2
    smaller = f"a batch of at most {batch} (sweep.global_batch)" if batch >= 2 else "shorter rows (run.data.seq_len)"
    return f"take a larger budget, a smaller size or {smaller}"
