"""Forecast: a prior, read under the FLOP convention of a sweep for the models that the sweep would train.

Where the two conventions agree the prior's laws are read as they are. Where they differ the conversion is known and
said: a budget C buys, for a model of N parameters, the compute `C / ratio(N)` under the prior's convention, with the
ratio of the two counts of one step; the optimum is the size at which this agrees with N*. That the curve of equal cost
itself bends differently under another convention is left out; a window of a factor of four covers it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.ladder import Size
from isoflop.place.prior import BUILT_IN, FamilyPrior, Prior, covered
from mdm_jax.counting import count_parameters, step_flops
from mdm_jax.spec import Family, FlopConvention, RunSpec, pair
from mdm_jax.spec.validation import require

FARTHEST = 100.0
"""Nothing is expected beyond the prior's points by more than this factor in compute."""
ROUNDS = 60
"""The halved steps towards the size at which both counts agree; each at least halves the distance."""


@dataclass(frozen=True)
class Expected:
    """The optimum of one family at one budget."""

    n_opt: float
    """Non-embedding parameters."""
    tokens: float
    loss: float
    """Nats per token."""
    beyond: float
    """Factor in compute by which it lies outside the prior's points; 1 inside."""


@dataclass(frozen=True)
class Forecast:
    """What a prior expects of a template's models, at budgets under `convention`."""

    prior: Prior
    template: RunSpec
    convention: FlopConvention
    sizes: Sequence[Size]

    @property
    def converted(self) -> bool:
        """Whether the prior counts FLOPs in another way than the sweep."""
        return self.prior.convention is not self.convention

    def at(self, family: Family, budget: float) -> Expected:
        """The optimum expected at a budget.

        Raises:
            ValueError: the prior lacks the family.
        """
        law = self._law(family)
        flops, n_opt = budget, law.n_opt(budget)
        for _ in range(ROUNDS if self.converted else 0):
            flops = budget / self._ratio(family, n_opt, self.prior.convention)
            n_opt = math.sqrt(n_opt * law.n_opt(flops))
        n_opt = law.n_opt(flops)
        flops_6nd = budget / self._ratio(family, n_opt, FlopConvention.SMDM_6ND)
        return Expected(n_opt, flops_6nd / (6 * n_opt), law.loss(flops), _beyond(law, flops))

    def budget_for(self, family: Family, loss: float) -> float:
        """The budget at which a family is expected to reach a loss.

        Raises:
            ValueError: the prior lacks the family.
        """
        law = self._law(family)
        flops = law.loss.inverse(loss)
        return flops * self._ratio(family, law.n_opt(flops), self.prior.convention)

    def _law(self, family: Family) -> FamilyPrior:
        known = self.prior.families
        has = f"a prior with this family; {self.prior.source} has {covered(self.prior)} FLOPs"
        require(family in known, "family", family.value, has)
        return known[family]

    def _ratio(self, family: Family, n: float, other: FlopConvention) -> float:
        """FLOPs of a step of `n` parameters here over those under another convention, between sizes in log-log."""
        if other is self.convention:
            return 1.0
        known = _step_ratios(self.template, family, tuple(self.sizes), self.convention, other)
        n = min(max(n, known[0][0]), known[-1][0])
        for (n_low, low), (n_high, high) in itertools.pairwise(known):
            if n <= n_high:
                share = math.log(n / n_low) / math.log(n_high / n_low)
                return low * (high / low) ** share
        return known[-1][1]


def rough_optimum(forecast: Forecast, family: Family, budget: float) -> float:
    """Non-embedding parameters of the optimum at any budget, to a factor of about three.

    The built-in priors all have a say, in proportion to how near their points are on a log scale: within the points of
    one prior its law alone counts. It is good enough to tell that all sizes of a curve are too large or too small.
    """
    expected = [dataclasses.replace(forecast, prior=prior).at(family, budget) for prior in BUILT_IN.values()]
    weights = [1 / max(math.log(one.beyond), 1e-9) for one in expected]
    logs = (weight * math.log(one.n_opt) for weight, one in zip(weights, expected, strict=True))
    return math.exp(sum(logs) / sum(weights))


@functools.cache
def _step_ratios(
    template: RunSpec, family: Family, sizes: tuple[Size, ...], convention: FlopConvention, other: FlopConvention
) -> tuple[tuple[int, float], ...]:
    """Non-embedding parameters, rising, with the FLOPs of one step under `convention` over those under `other`."""
    ratios = {}
    for size in sizes:
        shaped = dataclasses.replace(template, model=size.model(template.model))
        run = shaped if shaped.family is family else pair(shaped, family)
        ratios[count_parameters(run.model).non_embedding] = step_flops(run, convention) / step_flops(run, other)
    return tuple(sorted(ratios.items()))


def _beyond(law: FamilyPrior, flops: float) -> float:
    low, high = law.flops
    return max(low / flops, flops / high, 1.0)
