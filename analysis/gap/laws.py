"""The laws that a gap is read by: how each is fitted to both families' minima, and to every draw of them.

`interpolated` goes through both families' minima by a monotone cubic (`laws/interpolate.py`) and exists only where both
were measured: it assumes no law. `piecewise_linear` is the same with straight segments in log-log, for comparison
with readings made by ruler. `power_law` is the published way (SMDM): two straight lines in log-log, right where there
is no floor and silent about it where there is. `shared_floor` lets both laws saturate at one fitted floor, `own_floors`
each at its own, `given_floor` both at a stated one. `gap/surfaces.py` adds the surfaces through all runs.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from analysis.laws.floor_solver import fit_floors
from analysis.laws.floors import Floor, fitted_floor
from analysis.laws.frontier import Frontier, overlap
from analysis.laws.interpolate import CUBIC, LINEAR, Interpolation
from analysis.laws.law import Law
from analysis.laws.names import LawName
from analysis.laws.power_law import lines
from analysis.laws.saturating import DrawnLaws
from analysis.minima.bootstrap import Bootstrap, check_draws

Minima = tuple[np.ndarray, np.ndarray]  # draws of a family's log FLOPs and log losses, [n, B] each
Sides = tuple[Frontier, Frontier]  # the ARM's and the MDM's measured minima
Laws = tuple[Law, Law]  # the ARM's and the MDM's


@dataclass(frozen=True, eq=False)
class LawPair:
    """Both families under one law: through their minima, and of every draw of a bootstrap."""

    name: LawName
    sides: Sides
    laws: Laws
    drawn: Laws | None = None
    floors: tuple[Floor, Floor] = (Floor(), Floor())

    def __post_init__(self) -> None:
        arm, mdm = self.sides
        if arm.convention != mdm.convention:
            raise ValueError(f"convention: arm counts {arm.convention}, mdm {mdm.convention}; they must be the same")
        if arm.family == "mdm" or mdm.family == "arm":
            names = f"arm = the {arm.family}'s minima, mdm = the {mdm.family}'s"
            raise ValueError(f"{names}: must be the ARM's and the MDM's")

    @property
    def support(self) -> tuple[float, float]:
        """The lowest and the highest log loss at which both laws may be read."""
        return max(law.support[0] for law in self.laws), min(law.support[1] for law in self.laws)


@dataclass(frozen=True)
class GapLaw:
    """How a law is fitted to minima, or to draws of them, and what it needs."""

    name: LawName
    fit: Callable[[Sequence[Minima], float | None], list[Law]]
    """Gets each family's minima, and the floor where one is given."""
    floor_groups: tuple[slice, ...] = ()
    """The families whose minima determine each fitted floor, as slices of (ARM, MDM)."""
    fewest: tuple[int, int] = (2, 4)
    """Minima of each family, and in all."""
    needs: str = ""
    """The error message where there are fewer."""
    takes_floor: bool = False

    def check(self, sides: Sides, floor: float | None) -> None:
        """Refuses too few minima, no overlap to interpolate in, and a floor that lacks or does not belong."""
        counts = [len(side.loss) for side in sides]
        for side, count in zip(sides, counts, strict=True):
            if count < 2:
                raise ValueError(f"{side.family}: {count} usable minima, a gap needs two; add budgets or sizes")
        if min(counts) < self.fewest[0] or sum(counts) < self.fewest[1]:
            raise ValueError(f"law = {self.name.value!r}: {self.needs}")
        if self.takes_floor != (floor is not None):
            asked = f"must be given with law='given_floor', and only with it (law is {self.name.value!r})"
            raise ValueError(f"floor = {floor}: {asked}")
        if floor is not None:
            check_floor(sides, floor)
        if self.name.interpolates and overlap(*sides) is None:
            spans = "arm {:.4g} to {:.4g}, mdm {:.4g} to {:.4g}".format(*sides[0].loss_range, *sides[1].loss_range)
            raise ValueError(
                f"the loss ranges do not overlap ({spans}): nothing can be interpolated; "
                "add larger MDM or smaller ARM budgets, or read an extrapolation with law='power_law'"
            )

    def floors(self, minima: Sequence[Minima], given: float | None) -> tuple[Floor, Floor]:
        """The ARM's and the MDM's floor, with the intervals that the minima's scatter gives."""
        if given is not None:
            return Floor(given, given=True), Floor(given, given=True)
        found = []
        for group in self.floor_groups:
            log_c, log_l = ([side[i] for side in minima[group]] for i in (0, 1))
            found.append(fitted_floor(log_c, log_l, fit_floors(log_c, log_l)))
        return (found[0], found[-1]) if found else (Floor(), Floor())


def check_floor(sides: Sides, floor: float) -> None:
    """Raises a ValueError for a floor that is negative, or not below the lowest minimum."""
    lowest = min(float(side.loss.min()) for side in sides)
    if not 0 <= floor < lowest:
        raise ValueError(f"floor = {floor:g}: must be from 0 to below the lowest loss, {lowest:.4g}")


def _interpolations(kind: str, minima: Sequence[Minima], _: float | None) -> list[Law]:
    return [Interpolation(*side, kind) for side in minima]


def _power_laws(minima: Sequence[Minima], _: float | None) -> list[Law]:
    return [DrawnLaws(*lines(*side), np.zeros(len(side[0]))) for side in minima]


def _one_floor(minima: Sequence[Minima], floor: float | None) -> list[Law]:
    log_c, log_l = ([side[i] for side in minima] for i in (0, 1))
    fit = fit_floors(log_c, log_l, None if floor is None else np.full(len(log_c[0]), floor))
    return [DrawnLaws(fit.level[:, i], fit.slope[:, i], fit.floor) for i in range(len(minima))]


def _own_floors(minima: Sequence[Minima], _: float | None) -> list[Law]:
    return [law for side in minima for law in _one_floor([side], None)]


ARM, MDM, BOTH = slice(0, 1), slice(1, 2), slice(0, 2)
FIVE = "has five parameters, so it needs five minima in all"
THREE = "has three parameters a family, so it needs three minima of each"
_LAWS = (
    GapLaw(LawName.INTERPOLATED, partial(_interpolations, CUBIC)),
    GapLaw(LawName.PIECEWISE_LINEAR, partial(_interpolations, LINEAR)),
    GapLaw(LawName.POWER_LAW, _power_laws),
    GapLaw(LawName.SHARED_FLOOR, _one_floor, (BOTH,), (2, 5), FIVE),
    GapLaw(LawName.OWN_FLOORS, _own_floors, (ARM, MDM), (3, 6), THREE),
    GapLaw(LawName.GIVEN_FLOOR, _one_floor, takes_floor=True),
)
GAP_LAWS: dict[str, GapLaw] = {law.name: law for law in _LAWS}
"""The laws through minima, by name."""


def usable_laws(sides: Sides, laws: Sequence[str]) -> list[str]:
    """Those of the laws that these minima, two each or more, can be read by, and leave a degree of freedom to."""
    count = sum(len(side.loss) for side in sides)
    known = [GAP_LAWS[law] for law in laws if law in GAP_LAWS]
    readable = [law for law in known if overlap(*sides) is not None or not law.name.interpolates]
    return [law.name.value for law in readable if not law.floor_groups or count > law.fewest[1]]


def pair_of(sides: Sides, law: str, floor: float | None, draws: Bootstrap | None, level: float) -> LawPair:
    """Both families' laws through their minima and, with draws, through every draw; `compute_gap` lists the errors."""
    if law not in GAP_LAWS:
        raise ValueError(f"law = {law!r}: must be one of {', '.join(GAP_LAWS)}")
    kind = GAP_LAWS[law]
    kind.check(sides, floor)
    minima = [side.logs for side in sides]
    arm, mdm = kind.fit(minima, floor)
    pair = LawPair(kind.name, sides, (arm, mdm), None, kind.floors(minima, floor))
    if draws is None:
        return pair
    _check_draws(draws, sides, level)
    return replace(pair, drawn=_drawn_laws(draws, sides, kind, floor))


def _check_draws(draws: Bootstrap, sides: Sides, level: float) -> None:
    """Refuses too few draws, and draws of other minima."""
    check_draws(draws.n, level)
    for side in sides:
        drawn = draws.families.get(side.family)
        if drawn is None:
            continue
        own = np.exp(drawn.log_minimum["loss_opt"][drawn.by_compute(side.convention)])
        if own.shape != side.loss.shape or not np.allclose(own, side.loss, rtol=1e-9):
            said = " and ".join(", ".join(f"{loss:.4g}" for loss in losses) for losses in (own, side.loss))
            raise ValueError(f"draws: are of other {side.family} minima than these ({said}): bootstrap the same fit")


_DRAWN: "weakref.WeakKeyDictionary[Bootstrap, dict[tuple[object, ...], Laws]]" = weakref.WeakKeyDictionary()


def _drawn_laws(draws: Bootstrap, sides: Sides, kind: GapLaw, floor: float | None) -> Laws | None:
    """The laws of two families' draws, fitted once: a report reads them at several losses and FLOPs."""
    families = [side.family for side in sides]
    if any(family not in draws.families for family in families):
        return None
    known = _DRAWN.setdefault(draws, {})
    key = *families, sides[0].convention, kind.name, floor
    if key not in known:
        arm, mdm = kind.fit([draws.frontier(family, sides[0].convention) for family in families], floor)
        known[key] = arm, mdm
    return known[key]
