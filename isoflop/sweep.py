"""SweepSpec: the curves of an IsoFLOP sweep, and the `sweep` section of an experiment file that describes it.

A curve is one family at one budget over a written-out list of sizes. `curve` writes one curve. `product` writes a curve
for every family and budget, over the same sizes.

A curve may override the sweep's FLOP convention, recipe, learning-rate multipliers, seeds and training loss. So one
sweep can be an ablation: curves that belong together carry the same `group`. It is recorded with each run, and the
analysis reads one group at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_collections

from isoflop.ladder import Size
from mdm_jax.spec import MOST_BUDGET, Family, FlopConvention, ObjectiveSpec
from mdm_jax.spec.validation import require, to_dict

FEWEST_SIZES = 7
"""Sizes that a quadratic fit needs if its optimum is known beforehand only to a factor of about two."""
BUDGET_FIELDS = ("budgets", "mdm_budgets", "arm_budgets", "holdout_budgets")
"""Fields of `PlacementSpec` that hold FLOPs."""


def _check_budgets(name: str, budgets: Sequence[float]) -> None:
    in_bounds = all(0 < budget <= MOST_BUDGET for budget in budgets)
    require(in_bounds, name, list(budgets), f"above 0 FLOPs and at most {MOST_BUDGET:g}")
    require(len(set(budgets)) == len(budgets), name, list(budgets), "different from one another")


@dataclass(frozen=True)
class CurveSpec:
    """One family at one budget over the sizes of these names. An empty field takes the sweep's value."""

    family: Family = Family.MDM
    budget: float = 1e11
    """FLOPs under the curve's convention."""
    sizes: tuple[str, ...] = ()
    group: str = ""
    """Label of a comparison. Curves of different groups are never fitted together."""
    convention: FlopConvention | None = None
    recipe: str = ""
    lr_multipliers: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    objective: ObjectiveSpec | None = None
    """Training loss in place of the template's. It belongs to the curve's family."""

    def __post_init__(self) -> None:
        in_bounds = 0 < self.budget <= MOST_BUDGET
        require(in_bounds, "budget", self.budget, f"above 0 FLOPs and at most {MOST_BUDGET:g}")
        require(bool(self.sizes), f"sizes of {self.family.value} at {self.budget:g}", list(self.sizes), "one or more")
        _check_multipliers("lr_multipliers of a curve", self.lr_multipliers)
        loss = self.objective
        fits = loss is None or loss.family is self.family
        require(fits, "objective of a curve", loss and loss.variant.value, f"a loss of its family, {self.family.value}")


@dataclass(frozen=True)
class PlacementSpec:
    """Budgets for which `isoflop.place` chooses the sizes. Without budgets the sweep has only its written-out curves.

    A gap is read at equal loss, and at equal compute the MDM's loss is far above the ARM's. So equal budgets give too
    few common losses. `overlap` derives the other family's budgets from equal expected losses.
    """

    families: tuple[Family, ...] = (Family.MDM, Family.ARM)
    budgets: tuple[float, ...] = ()
    """FLOPs of every family's curves, or only of the family `overlap` if that is given."""
    overlap: Family | None = None
    """The family of `budgets`. The other family's budgets are those expected to reach the same losses."""
    mdm_budgets: tuple[float, ...] = ()
    """FLOPs of the MDM's curves, in place of `budgets`."""
    arm_budgets: tuple[float, ...] = ()
    """FLOPs of the ARM's curves, in place of `budgets`."""
    holdout_budgets: tuple[float, ...] = ()
    """FLOPs of curves above the grid, on which the laws are tested; if `overlap` is given, only of that family."""
    sizes: tuple[str, ...] = ()
    """Sizes to choose from. Empty takes `own_sizes`; without these, the tiny ladder and SMDM's, with gaps filled."""
    window: float = 4.0
    """Sizes lie within this factor of the expected optimum."""
    sizes_per_curve: int = FEWEST_SIZES
    """0 takes every size within the window."""
    holdout_sizes: int = 5
    """Sizes of a held-out curve, the nearest to its expected optimum."""
    prior: str = "smdm"
    """The source of the expected optimum and loss: `smdm`, `tiny`, or the path of an earlier report's fits.json."""
    replicate_seeds: tuple[int, ...] = ()
    """Further seeds of the cell next to the expected optimum. They measure the noise from run to run."""
    replicate_curves: int = 1
    """The number of each family's curves that get further seeds, the cheapest first; 0 takes all."""

    def __post_init__(self) -> None:
        for name in BUDGET_FIELDS:
            _check_budgets(f"sweep.placement.{name}", getattr(self, name))
        names = [family.value for family in self.families]
        all_different = 0 < len(set(names)) == len(names)
        require(all_different, "sweep.placement.families", names, "one or more, each once")
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
        family_budgets = self.mdm_budgets or self.arm_budgets
        require(not family_budgets, name, self.overlap.value, "left out where mdm_budgets or arm_budgets are given")

    @property
    def has_budgets(self) -> bool:
        """Whether there are curves to place."""
        return bool(self.budgets or self.mdm_budgets or self.arm_budgets)

    def given_budgets(self, family: Family) -> tuple[float, ...]:
        """The budgets that are written for a family's grid, before `overlap` derives any."""
        own = self.mdm_budgets if family is Family.MDM else self.arm_budgets
        return own or self.budgets


@dataclass(frozen=True)
class SweepSpec:
    """The curves of a sweep, and how their runs differ from the template in the `run` section."""

    curves: tuple[CurveSpec, ...] = ()
    placement: PlacementSpec = field(default=PlacementSpec())
    """Budgets for which a rule chooses the sizes. The placed curves follow the written-out ones."""
    own_sizes: tuple[Size, ...] = ()
    convention: FlopConvention = FlopConvention.SMDM_6ND
    recipe: str = "tiny"
    lr_multipliers: tuple[float, ...] = (1.0,)
    """Factors of the recipe's peak learning rate. Each cell is run once with each; the analysis keeps the best."""
    global_batch: int = 0
    """Sequences; 0 takes the recipe's."""
    max_epochs: float = 0.0
    """Passes over the corpus that a cell may take. 0 sets no bound: repeated text is only warned of."""
    min_tokens_per_parameter: float = 0.0
    max_tokens_per_parameter: float = 0.0
    """Bounds of D / N, with N without embedding and head. 0 sets no bound."""
    seeds: tuple[int, ...] = (0,)
    """Each cell is run once with each seed."""
    cooldown_fraction: float = 0.2
    """Share of a run's steps over which a WSD schedule decays (see `isoflop.trunks`). A cosine schedule ignores it."""
    trunk_warmup_budget: float = 0.0
    """A trunk takes the recipe's warm-up at its smallest budget that is at least this."""

    def __post_init__(self) -> None:
        require(bool(self.lr_multipliers), "sweep.lr_multipliers", [], "one or more, such as [0.5, 1, 2]")
        _check_multipliers("sweep.lr_multipliers", self.lr_multipliers)
        require(self.global_batch >= 0, "sweep.global_batch", self.global_batch, "0 (the recipe's) or a batch")
        for name in ("max_epochs", "min_tokens_per_parameter", "max_tokens_per_parameter"):
            require(getattr(self, name) >= 0, f"sweep.{name}", getattr(self, name), "above 0, or 0 for no bound")
        least, most = self.min_tokens_per_parameter, self.max_tokens_per_parameter
        require(
            not most or least <= most, "sweep.min_tokens_per_parameter", least, f"at most the other bound, {most:g}"
        )
        require(bool(self.seeds), "sweep.seeds", list(self.seeds), "one or more")
        share = self.cooldown_fraction
        require(0 <= share < 1, "sweep.cooldown_fraction", share, "at least 0 and below 1, such as 0.2")
        least = self.trunk_warmup_budget
        require(least >= 0, "sweep.trunk_warmup_budget", least, "0 (a trunk's smallest budget) or a budget in FLOPs")
        names = [size.name for size in self.own_sizes]
        require(len(set(names)) == len(names), "sweep.own_sizes", names, "of different names")


def _check_multipliers(name: str, values: Sequence[float]) -> None:
    fine = all(value > 0 for value in values) and len(set(values)) == len(values)
    require(fine, name, list(values), "above 0 and all different, such as [0.5, 1, 2]")


def default_sweep() -> ml_collections.ConfigDict:
    """Every field of SweepSpec with its default. It is locked, so that setting a misspelt key raises an error."""
    return ml_collections.ConfigDict(to_dict(SweepSpec())).lock()


def curve(family: str, budget: float, sizes: str | Iterable[str], **own: Any) -> dict[str, Any]:
    """One entry of `sweep.curves`; `sizes` may be a string of names between spaces.

    Args:
        own: fields that the curve overrides: group, convention, recipe, lr_multipliers, seeds, objective.
    """
    names = sizes.split() if isinstance(sizes, str) else list(sizes)
    return {"family": family, "budget": budget, "sizes": names, **own}


def recast(
    curves: Iterable[Mapping[str, Any]], families: Iterable[str], budgets: Sequence[float], sizes: Sequence[str]
) -> list[dict[str, Any]]:
    """Entries of `sweep.curves`: an experiment's curves at other budgets and sizes.

    What a curve overrides (group, convention, recipe, …) stays. Each distinct set of a family's overrides gets every
    budget. A family without curves in the experiment gets curves without overrides.
    """
    overrides: dict[str, list[dict[str, Any]]] = {family: [] for family in families}
    for entry in curves:
        own = {key: value for key, value in entry.items() if key not in ("family", "budget", "sizes")}
        known = overrides.get(entry.get("family", Family.MDM.value), [own])
        if own not in known:
            known.append(own)
    pairs = ((family, own) for family, known in overrides.items() for own in known or [{}])
    return [entry for family, own in pairs for entry in product([family], budgets, sizes, **own)]


def product(
    families: Iterable[str], budgets: Iterable[float], sizes: str | Iterable[str], **own: Any
) -> list[dict[str, Any]]:
    """Entries of `sweep.curves` for every family at every budget over the same sizes; `own` as in `curve`."""
    budgets, sizes = tuple(budgets), sizes if isinstance(sizes, str) else tuple(sizes)
    return [curve(family, budget, sizes, **own) for family in families for budget in budgets]
