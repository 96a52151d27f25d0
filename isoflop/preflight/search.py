"""The settings that fit: the fewest microbatches under each rematerialisation policy, found with few compilations.

More microbatches need less memory, and each policy needs less than the one before. So the fewest microbatches that fit
are found by bisection. A policy is tried only with fewer microbatches than the policy before it.
"""

import bisect
import functools
from collections.abc import Callable, Iterable

from isoflop.preflight.compile import Compiled, Setting
from mdm_jax.spec import Remat, RunSpec

CHEAPEST_FIRST = (Remat.NONE, Remat.DOTS, Remat.OFFLOAD, Remat.FULL)
"""Policies, each of which needs less of the device's memory than the one before."""


def microbatch_choices(run: RunSpec) -> tuple[int, ...]:
    """Powers of two that the run's batch and mesh allow, 1 first."""
    most = run.optim.global_batch // (2 * run.hardware.row_shards)
    return tuple(m for m in (2**i for i in range(21)) if most % m == 0)


def search(run: RunSpec, compiled: Callable[[Setting], Compiled], limit_bytes: float) -> list[Compiled]:
    """Each policy's setting with the fewest microbatches that fits, the cheapest policy first.

    Args:
        compiled: gives the compiler's answer for a setting; called once for each.
    """
    found: list[Compiled] = []
    ask, choices = functools.cache(compiled), microbatch_choices(run)
    for remat in CHEAPEST_FIRST:

        def fits(microbatches: int, remat: Remat = remat) -> bool:
            return ask(Setting(remat, microbatches)).fits(limit_bytes)

        fewest = bisect.bisect_left(choices, True, key=fits)
        found += [ask(Setting(remat, microbatches)) for microbatches in choices[fewest : fewest + 1]]
        choices = choices[:fewest]
    return found


def nearest(planned: Setting, fitting: Iterable[Compiled]) -> Compiled | None:
    """The fitting setting with the fewest changes: steps of policy, and doublings or halvings of microbatches."""

    def steps(answer: Compiled) -> int:
        apart = CHEAPEST_FIRST.index(answer.setting.remat) - CHEAPEST_FIRST.index(planned.remat)
        doublings = answer.setting.microbatches.bit_length() - planned.microbatches.bit_length()
        return abs(apart) + abs(doublings)

    return min(fitting, key=steps, default=None)
