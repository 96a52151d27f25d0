"""The settings that fit: the fewest microbatches under each rematerialisation policy, found with few compilations.

Between two policies there are mixes: the first layers recompute more than the rest (`hardware.remat_layers`).

More microbatches need less memory, and each policy needs less than the one before. So the fewest microbatches that fit
are found by bisection. A policy is tried only with fewer microbatches than the policy before it.
"""

import bisect
import functools
import math
from collections.abc import Callable, Iterable

from isoflop.preflight.compile import Compiled, Setting
from mdm_jax.spec import Remat, RunSpec

CHEAPEST_FIRST = (Remat.NONE, Remat.DOTS, Remat.OFFLOAD, Remat.FULL)
"""Policies, each of which needs less of the device's memory than the one before."""
CHEAPER = {Remat.DOTS: Remat.NONE, Remat.FULL: Remat.DOTS}
"""Maps a policy to the one that it is mixed with."""
MOST_MIXES = 2
"""Mixes of two policies that are compiled at most."""


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


def mixes(
    run: RunSpec, compiled: Callable[[Setting], Compiled], limit_bytes: float, found: Iterable[Compiled]
) -> list[Compiled]:
    """Mixes of `dots` and `none`, or of `full` and `dots`, that fit and recompute less than the settings found.

    Args:
        compiled: gives the compiler's answer for a setting.
        found: what `search` found.
    """
    fitting = [_mix(run, compiled, limit_bytes, answer) for answer in found if answer.setting.remat in CHEAPER]
    return [mix for mix in fitting if mix is not None]


def _mix(run: RunSpec, compiled: Callable[[Setting], Compiled], limit_bytes: float, whole: Compiled) -> Compiled | None:
    """A mix of the setting `whole`, which fits, with the next cheaper policy; None if none was found.

    The memory is taken as linear in the number of layers. If the mix that should just fit does not, the line from it to
    `whole` gives a second one. There is no third, and none if the compiler does not say what does not fit needs.
    """
    remat, microbatches, n_layers, layers = whole.setting.remat, whole.setting.microbatches, run.model.n_layers, 0
    rest = CHEAPER[remat]
    needed = compiled(Setting(rest, microbatches)).hbm_bytes
    for _ in range(MOST_MIXES):
        if needed <= limit_bytes:
            return None
        share = (needed - limit_bytes) / (needed - whole.hbm_bytes)
        layers += math.ceil(share * (n_layers - layers))
        if layers >= n_layers:
            return None
        mix = compiled(Setting(remat, microbatches, layers, rest))
        if mix.fits(limit_bytes):
            return mix
        needed = mix.hbm_bytes
    return None


def depth(setting: Setting, n_layers: int) -> float:
    """How much a setting recomputes: the place of its policy in CHEAPEST_FIRST, or the mean of its layers' places."""
    first, rest = CHEAPEST_FIRST.index(setting.remat), CHEAPEST_FIRST.index(setting.remat_rest)
    share = (setting.remat_layers or n_layers) / n_layers
    return share * first + (1 - share) * rest


def nearest(planned: Setting, fitting: Iterable[Compiled], n_layers: int) -> Compiled | None:
    """The fitting setting with the fewest changes: steps of policy, and doublings or halvings of microbatches.

    A change of policy in a part of the layers is a part of a step.
    """

    def steps(answer: Compiled) -> float:
        apart = depth(answer.setting, n_layers) - depth(planned, n_layers)
        doublings = answer.setting.microbatches.bit_length() - planned.microbatches.bit_length()
        return abs(apart) + abs(doublings)

    return min(fitting, key=steps, default=None)
