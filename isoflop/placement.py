"""Placement: which budgets and sizes a sweep needs, so that its minima are interior and its families' losses overlap.

A quadratic needs sizes on both sides of its minimum, and the optimum is known beforehand only to a factor of two or
so: hence at least seven sizes within a factor of four of where it is expected, spread evenly in log N and centred for
each family by itself. A gap between families is read at equal loss: hence at least three budgets of each family whose
expected loss lies inside the other's range. Equal budgets do not give that, because at equal compute the MDM is the
worse one by far; `overlap` derives the other family's budgets from equal losses.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdm_jax.spec import MOST_BUDGET, Family
from mdm_jax.spec.validation import require

FEWEST_SIZES = 7
FEWEST_BUDGETS = 3
FEWEST_ON_A_SIDE = 2
"""Sizes below and above the expected optimum, without which its minimum may turn out to lie at the edge."""


@dataclass(frozen=True)
class PlacementSpec:
    """What the rule places. Without budgets there is none, and the curves are those that are written out."""

    families: tuple[Family, ...] = (Family.MDM, Family.ARM)
    budgets: tuple[float, ...] = ()
    """FLOPs of every family's curves, or, with `overlap`, of that family's."""
    overlap: Family | None = None
    """The family whose budgets are given; the other's are those at which it is expected to reach the same losses."""
    mdm_budgets: tuple[float, ...] = ()
    """The MDM's own, in place of `budgets`."""
    arm_budgets: tuple[float, ...] = ()
    """The ARM's own, in place of `budgets`."""
    holdout_budgets: tuple[float, ...] = ()
    """Above the grid, to predict and then to test; with `overlap` of that family, as `budgets` are."""
    sizes: tuple[str, ...] = ()
    """What to choose from; empty takes the sweep's own sizes, else the tiny ladder and SMDM's, filled by rule."""
    window: float = 4.0
    """Sizes lie within this factor of the expected optimum."""
    sizes_per_curve: int = FEWEST_SIZES
    """0 takes every size within the window."""
    holdout_sizes: int = 5
    """The number of sizes of a held-out curve: those next to its expected optimum."""
    prior: str = "smdm"
    """The source of the expected optimum and loss: `smdm`, or the path of an earlier report's fits.json."""
    replicate_seeds: tuple[int, ...] = ()
    """Further seeds of the cell next to the optimum, for the noise from run to run."""
    replicate_curves: int = 1
    """The number of each family's curves that get further seeds, the cheapest first; 0 takes all."""

    def __post_init__(self) -> None:
        for name in ("budgets", "mdm_budgets", "arm_budgets", "holdout_budgets"):
            _check_budgets(f"sweep.placement.{name}", getattr(self, name))
        names = [family.value for family in self.families]
        different = 0 < len(set(names)) == len(names)
        require(different, "sweep.placement.families", names, "one or more, each once")
        require(self.window > 1, "sweep.placement.window", self.window, "a factor above 1, such as 4")
        for name, least in (("sizes_per_curve", 3), ("holdout_sizes", 3)):
            count = getattr(self, name)
            require(count == 0 or count >= least, f"sweep.placement.{name}", count, f"0 (all) or at least {least}")
        require(
            self.replicate_curves >= 0, "sweep.placement.replicate_curves", self.replicate_curves, "0 (all) or more"
        )
        self._check_overlap()

    def _check_overlap(self) -> None:
        if self.overlap is None:
            return
        name = "sweep.placement.overlap"
        require(len(self.families) > 1, name, self.overlap.value, "left out where there is one family")
        own = bool(self.mdm_budgets or self.arm_budgets)
        require(not own, name, self.overlap.value, "left out where mdm_budgets or arm_budgets are given")

    @property
    def asked(self) -> bool:
        """Whether there is anything to place."""
        return bool(self.budgets or self.mdm_budgets or self.arm_budgets)

    def given_budgets(self, family: Family) -> tuple[float, ...]:
        """Budgets of a family's grid as they are given, before any is derived."""
        own = self.mdm_budgets if family is Family.MDM else self.arm_budgets
        return own or self.budgets


def _check_budgets(name: str, budgets: Sequence[float]) -> None:
    spent = all(0 < budget <= MOST_BUDGET for budget in budgets)
    require(spent, name, list(budgets), f"above 0 FLOPs and at most {MOST_BUDGET:g}")
    require(len(set(budgets)) == len(budgets), name, list(budgets), "different from one another")


def choose_sizes(params: Mapping[str, int], n_opt: float, window: float, count: int) -> tuple[str, ...]:
    """Names of `count` sizes, smallest first, that lie most evenly in log N over `n_opt / window` to `n_opt * window`.

    Where the window holds fewer than `count`, all of these and the nearest beyond it.

    Args:
        params: non-embedding parameters by name.
        n_opt: the expected optimum, in parameters.
        window: a factor above 1.
        count: how many; 0 takes every size in the window.
    """
    offset = {name: math.log(n / n_opt) for name, n in sorted(params.items(), key=lambda item: item[1])}
    nearest = sorted(offset, key=lambda name: abs(offset[name]))
    inside = [name for name in nearest if abs(offset[name]) <= math.log(window)]
    wanted = count or max(len(inside), FEWEST_SIZES)
    if len(inside) <= wanted:
        chosen = set(nearest[:wanted])
        return tuple(name for name in offset if name in chosen)
    candidates = [name for name in offset if name in set(inside)]
    return tuple(candidates[i] for i in _spread([offset[name] for name in candidates], math.log(window), count))


def _spread(places: Sequence[float], half: float, count: int) -> tuple[int, ...]:
    """Indices of `count` of the sorted places, in order, nearest in squares to even steps from -half to half."""
    targets = [half * (2 * i / (count - 1) - 1) for i in range(count)]
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())] * (len(places) + 1)
    for i, target in enumerate(targets):
        row: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())] * (len(places) + 1)
        for j in range(i, len(places)):
            cost, chosen = best[j]
            row[j + 1] = min(row[j], (cost + (places[j] - target) ** 2, (*chosen, j)), key=lambda entry: entry[0])
        best = row
    return best[-1][1]


def rounded(flops: float) -> float:
    """A derived budget, to two digits: nobody should have to type more."""
    return float(f"{flops:.2g}")


def inside_count(losses: Sequence[float], others: Sequence[float]) -> int:
    """How many of a family's expected losses lie strictly inside the range of the other's."""
    return sum(min(others) < loss < max(others) for loss in losses) if others else 0
