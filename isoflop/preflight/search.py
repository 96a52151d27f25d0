"""Which settings fit: the largest microbatch under each rematerialisation policy, with few compilations.

Memory falls with more microbatches and with more recomputation, so a policy's limit is found by halving, and a policy
that recomputes more is worth trying only with larger microbatches than the one before it.
"""

from collections.abc import Callable, Iterable

from isoflop.preflight.compile import Compiled, Setting
from mdm_jax.spec import Remat, RunSpec

CHEAPEST_FIRST = (Remat.NONE, Remat.DOTS, Remat.FULL)


def microbatch_choices(run: RunSpec) -> tuple[int, ...]:
    """Powers of two that the run's batch and mesh allow, 1 first."""
    most = run.optim.global_batch // (2 * run.hardware.mesh_data)
    return tuple(m for m in (2**i for i in range(21)) if most % m == 0)


def search(run: RunSpec, compiled: Callable[[Setting], Compiled], limit_bytes: float) -> list[Compiled]:
    """The settings that fit with the fewest microbatches, one a policy, cheapest policy first; none where none fits.

    Args:
        compiled: the compiler's answer for a setting; asked once for each.
    """
    found: list[Compiled] = []
    choices = microbatch_choices(run)
    for remat in CHEAPEST_FIRST:
        best = _fewest(choices, remat, compiled, limit_bytes)
        if best is not None:
            found.append(best)
            choices = choices[: choices.index(best.setting.microbatches)]
        if not choices:
            break
    return found


def _fewest(
    choices: tuple[int, ...], remat: Remat, compiled: Callable[[Setting], Compiled], limit_bytes: float
) -> Compiled | None:
    """The fitting setting with the fewest microbatches under a policy, by halving; None where none fits."""
    low, high, best = 0, len(choices), None
    while low < high:
        middle = (low + high) // 2
        answer = compiled(Setting(remat, choices[middle]))
        if answer.fits(limit_bytes):
            best, high = answer, middle
        else:
            low = middle + 1
    return best


def nearest(planned: Setting, fitting: Iterable[Compiled]) -> Compiled | None:
    """The setting that fits and changes least: fewest steps of policy and doublings of microbatches."""

    def steps(answer: Compiled) -> int:
        apart = CHEAPEST_FIRST.index(answer.setting.remat) - CHEAPEST_FIRST.index(planned.remat)
        doublings = answer.setting.microbatches.bit_length() - planned.microbatches.bit_length()
        return abs(apart) + abs(doublings)

    return min(fitting, key=steps, default=None)
