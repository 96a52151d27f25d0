"""SweepSpec: the curves of an IsoFLOP sweep, and the `sweep` section of an experiment file that describes it.

A curve is one family at one budget over a list of sizes, written out, so that a reader of the experiment sees every
cell. `curve` writes one; `product` writes all of families x budgets over the same sizes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ml_collections

from isoflop.ladder import Size
from mdm_jax.spec import Family, FlopConvention
from mdm_jax.tree import require, to_dict


@dataclass(frozen=True)
class CurveSpec:
    """One family at one budget, in FLOPs under the sweep's convention, over the sizes of these names."""

    family: Family = Family.MDM
    budget: float = 1e11
    sizes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.budget > 0, "budget", self.budget, "above 0 FLOPs")
        require(bool(self.sizes), f"sizes of {self.family.value} at {self.budget:g}", list(self.sizes), "one or more")


@dataclass(frozen=True)
class SweepSpec:
    """Which runs a sweep has, beside the template in the `run` section."""

    curves: tuple[CurveSpec, ...] = ()
    own_sizes: tuple[Size, ...] = ()
    convention: FlopConvention = FlopConvention.SMDM_6ND
    recipe: str = "tiny"
    lr_multiplier: float = 1.0
    """Scales the recipe's peak learning rate."""
    global_batch: int = 0
    """Sequences; 0 takes the recipe's."""
    seeds: tuple[int, ...] = (0,)
    """Each cell is run once a seed."""

    def __post_init__(self) -> None:
        require(self.lr_multiplier > 0, "sweep.lr_multiplier", self.lr_multiplier, "above 0")
        require(self.global_batch >= 0, "sweep.global_batch", self.global_batch, "0 (the recipe's) or a batch")
        require(bool(self.seeds), "sweep.seeds", list(self.seeds), "one or more")
        names = [size.name for size in self.own_sizes]
        require(len(set(names)) == len(names), "sweep.own_sizes", names, "of different names")


def default_sweep() -> ml_collections.ConfigDict:
    """Every field of SweepSpec with its default, locked: a misspelt key raises where it is written."""
    return ml_collections.ConfigDict(to_dict(SweepSpec())).lock()


def curve(family: str, budget: float, sizes: str | Iterable[str]) -> dict[str, Any]:
    """One entry of `sweep.curves`; `sizes` may be a string of names between spaces."""
    names = sizes.split() if isinstance(sizes, str) else list(sizes)
    return {"family": family, "budget": budget, "sizes": names}


def product(families: Iterable[str], budgets: Iterable[float], sizes: str | Iterable[str]) -> list[dict[str, Any]]:
    """Entries of `sweep.curves` for every family at every budget over the same sizes."""
    budgets, sizes = tuple(budgets), sizes if isinstance(sizes, str) else tuple(sizes)
    return [curve(family, budget, sizes) for family in families for budget in budgets]
