"""Forecast: a prior, converted to the FLOP convention of a sweep, for the models that the sweep would train.

If the prior has the sweep's convention, its laws are used as they are. If not, budgets are converted. Let `ratio(N)` be
the FLOPs of one step under the sweep's convention over those under the prior's. A budget C then buys a model of N
parameters the compute `C / ratio(N)` under the prior's convention. The optimum is the size N that equals N* at this
compute. The curve of equal cost also changes its shape with the convention. That is neglected: a window of a factor of
four covers it.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.ladder import Size
from isoflop.place.prior import BUILT_IN, FamilyPrior, Prior, flops_range
from mdm_jax.spec import Family, FlopConvention, RunSpec, pair
from mdm_jax.spec.counting import count_parameters, step_flops
from mdm_jax.spec.validation import require

FARTHEST = 100.0
"""Factor in compute. Farther beyond the prior's points, nothing is expected."""
ROUNDS = 60
"""Iterations towards the size at which both counts agree. Each at least halves the distance in log N."""


@dataclass(frozen=True)
class Expected:
    """The expected optimum of one family at one budget."""

    n_opt: float
    """Non-embedding parameters."""
    tokens: float
    loss: float
    """Nats per token."""
    beyond: float
    """Factor in compute by which the budget lies outside the prior's points; 1 inside."""


@dataclass(frozen=True)
class Forecast:
    """What a prior expects of a template's models, at budgets under `convention`."""

    prior: Prior
    template: RunSpec
    convention: FlopConvention
    sizes: Sequence[Size]

    @property
    def converted(self) -> bool:
        """Whether the prior has another FLOP convention than the sweep."""
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
        bound = f"a prior with this family; {self.prior.source} has {flops_range(self.prior)} FLOPs"
        require(family in known, "family", family.value, bound)
        return known[family]

    def _ratio(self, family: Family, n: float, other: FlopConvention) -> float:
        """FLOPs of a step here over those under `other`, at `n` parameters, interpolated in log-log between sizes."""
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

    It is the mean of the built-in priors' log N*. A prior's weight is the inverse log distance from the budget to the
    prior's points, so within the points of one prior its law alone counts. The guess is good enough to tell whether all
    sizes of a curve are too large or too small.
    """
    expected = [dataclasses.replace(forecast, prior=prior).at(family, budget) for prior in BUILT_IN.values()]
    weights = [1 / max(math.log(optimum.beyond), 1e-9) for optimum in expected]
    logs = (weight * math.log(optimum.n_opt) for weight, optimum in zip(weights, expected, strict=True))
    return math.exp(sum(logs) / sum(weights))


@functools.cache
def _step_ratios(
    template: RunSpec, family: Family, sizes: tuple[Size, ...], convention: FlopConvention, other: FlopConvention
) -> tuple[tuple[int, float], ...]:
    """(non-embedding parameters, FLOPs of a step under `convention` over those under `other`) of each size, rising."""
    ratios = {}
    for size in sizes:
        shaped = dataclasses.replace(template, model=size.model(template.model))
        run = shaped if shaped.family is family else pair(shaped, family)
        ratios[count_parameters(run.model).non_embedding] = step_flops(run, convention) / step_flops(run, other)
    return tuple(sorted(ratios.items()))


def _beyond(law: FamilyPrior, flops: float) -> float:
    low, high = law.flops
    return max(low / flops, flops / high, 1.0)
