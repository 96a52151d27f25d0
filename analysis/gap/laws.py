"""Both families' power laws, with or without a floor, for every draw of a bootstrap at once."""

import math
import weakref
from dataclasses import dataclass

import numpy as np

from analysis.laws.floor_solver import fit_floors
from analysis.laws.saturating import floor_at_bound, floor_interval, reaches_bound
from analysis.minima.bootstrap import Bootstrap, lines
from analysis.runs.columns import ROLES

Draws = tuple[np.ndarray, np.ndarray]
"""(log FLOPs, log loss), [n, B] each."""
NOTHING = (math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Laws:
    """One family's n laws: log (loss - floor) = level + slope * log C."""

    floor: np.ndarray | None
    """[n], nats per token; None for laws without one."""
    level: np.ndarray
    """[n]."""
    slope: np.ndarray
    """[n]; nan where the loss does not fall."""

    def log_loss(self, log_c: np.ndarray) -> np.ndarray:
        """Log loss [n, G] at log FLOPs [G]."""
        above = self.level[:, None] + self.slope[:, None] * log_c
        return above if self.floor is None else np.log(self.floor[:, None] + np.exp(above))

    def log_flops(self, log_l: np.ndarray) -> np.ndarray:
        """Log FLOPs [n, G] at log losses [G], or [n, G]; nan at or below the floor."""
        above = log_l
        if self.floor is not None:
            rest = np.exp(log_l) - self.floor[:, None]
            above = np.log(np.where(rest > 0, rest, np.nan))
        return (above - self.level[:, None]) / self.slope[:, None]


def family_laws(pairs: dict[str, Draws], law: str, given: float | None = None) -> dict[str, Laws]:
    """The ARM's and the MDM's laws.

    Args:
        pairs: each family's draws of its minima.
        law: power_law, shared_floor, own_floors or given_floor.
        given: the floor of given_floor, nats per token.
    """
    if law == "power_law":
        return {role: _laws(None, *lines(*pairs[role])) for role in ROLES}
    if law == "own_floors":
        fits = {role: fit_floors([pairs[role][0]], [pairs[role][1]]) for role in ROLES}
        return {role: _laws(fit.floor, fit.level[:, 0], fit.slope[:, 0]) for role, fit in fits.items()}
    log_c, log_l = ([pairs[role][i] for role in ROLES] for i in (0, 1))
    fit = fit_floors(log_c, log_l, None if given is None else np.full(len(log_c[0]), given))
    return {role: _laws(fit.floor, fit.level[:, i], fit.slope[:, i]) for i, role in enumerate(ROLES)}


def _laws(floor: np.ndarray | None, level: np.ndarray, slope: np.ndarray) -> Laws:
    return Laws(floor, level, np.where(slope < 0, slope, np.nan))


_DRAWN: "weakref.WeakKeyDictionary[Bootstrap, dict[tuple[object, ...], dict[str, Laws]]]" = weakref.WeakKeyDictionary()


def drawn_laws(
    draws: Bootstrap, families: tuple[str, str], convention: str, law: str, given: float | None
) -> dict[str, Laws]:
    """`family_laws` of two families' draws, fitted once: a report reads them at several losses and FLOPs."""
    known = _DRAWN.setdefault(draws, {})
    key = families, convention, law, given
    if key not in known:
        pairs = {role: draws.frontier(family, convention) for role, family in zip(ROLES, families, strict=True)}
        known[key] = family_laws(pairs, law, given)
    return known[key]


@dataclass(frozen=True)
class Floors:
    """What is known of the ARM's and of the MDM's floor, nats per token; nan for laws without one."""

    floors: tuple[float, float] = NOTHING
    intervals: tuple[tuple[float, float], tuple[float, float]] = (NOTHING, NOTHING)
    at_bound: bool = False
    undetermined: bool = False


def floors_known(pairs: dict[str, Draws], law: str, laws: dict[str, Laws] | None) -> Floors:
    """The floors of the laws through the minima themselves, with the intervals that the minima's scatter gives.

    Args:
        pairs: each family's minima, [1, B].
        law: whether the floor is fitted, and for both families together.
        laws: from `family_laws` of these; None for a gap that assumes no law.
    """
    found = [] if laws is None else [side.floor for side in laws.values() if side.floor is not None]
    if not found:
        return Floors()
    own = float(found[0][0]), float(found[1][0])
    if law == "given_floor":
        return Floors(own)
    together = [[*ROLES]] if law == "shared_floor" else [[role] for role in ROLES]
    fitted = [([pairs[role][0] for role in roles], [pairs[role][1] for role in roles]) for roles in together]
    lows = [min(float(np.exp(log_l.min())) for log_l in losses) for _, losses in fitted]
    profiled = [floor_interval(*side, best=fit_floors(*side)) for side in fitted]
    intervals, lowest = (profiled[0], profiled[-1]), (lows[0], lows[-1])
    bound = any(map(floor_at_bound, own, lowest))
    return Floors(own, intervals, bound, any(map(reaches_bound, intervals, own, lowest)))
