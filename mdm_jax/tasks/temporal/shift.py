"""How much, and how fast, a loss grows after the training's end, with intervals over clusters of texts and over seeds.

A cluster is a group of texts that depend on each other, such as the changelog of one package over all years. The
bootstrap draws clusters with replacement, the same ones for every model, so that differences between models are paired.
It also draws training seeds, for each setting by itself. Deviations of seeds from their mean are enlarged by
sqrt(n/(n-1)), so that the variance from few seeds is not underestimated (Davison and Hinkley 1997, Bootstrap Methods
and their Application, section 2.4).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float64, Int64

from analysis.sampling import DRAWS, LEVEL, SEED, check_sampling


class Statistic(StrEnum):
    """What is estimated for each setting, and subtracted between two of them.

    Losses are in nats per byte. "Relative" means in percent of the loss at distance 0. The rise is the later loss less
    that at distance 0: the logarithm of the ratio of two perplexities.
    """

    BASE = "loss at distance 0"
    LATER = "later loss"
    RISE = "rise"
    RISE_RELATIVE = "rise %"
    SLOPE = "slope"
    SLOPE_RELATIVE = "slope %"
    WITHIN_RELATIVE = "slope within groups %"
    BEFORE_RELATIVE = "slope before the end %"


@dataclass(frozen=True)
class Cells:
    """The bytes of each cluster in each slice, and the slices' places in time.

    Attributes:
        bytes_GS: 0 for a cluster that has no text in a slice.
        years_S: years from the training's end to each slice, negative before the end.
        later_S: whether a slice is after the end; all others are held out of the training period.
        base_years: the held-out slices of so many years before the end are the distance 0.
    """

    bytes_GS: Int64[np.ndarray, "G S"]
    years_S: Float64[np.ndarray, "S"]
    later_S: Bool[np.ndarray, "S"]
    base_years: float

    @property
    def base_S(self) -> Bool[np.ndarray, "S"]:
        """Whether a slice is part of the distance 0."""
        return ~self.later_S & (self.years_S >= -self.base_years)


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95% interval; all are NaN if the value cannot be estimated."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sampled:
    """A value of the texts and seeds at hand, and its values under each draw of the bootstrap."""

    value: float
    values_B: Float64[np.ndarray, "B"]

    def minus(self, other: "Sampled") -> "Sampled":
        """The difference, draw by draw."""
        return Sampled(self.value - other.value, self.values_B - other.values_B)

    @property
    def estimate(self) -> Estimate:
        """The value and its percentile interval. Draws without a value, such as an empty slice, are left out."""
        known = self.values_B[np.isfinite(self.values_B)]
        if not math.isfinite(self.value) or len(known) < len(self.values_B) / 2:
            return Estimate(self.value if math.isfinite(self.value) else math.nan, math.nan, math.nan)
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(self.value, float(low), float(high))


class Resampling:
    """Draws of clusters, which all settings share, and for each setting draws of its seeds."""

    def __init__(self, cells: Cells, draws: int = DRAWS, seed: int = SEED) -> None:
        """Draws the clusters.

        Args:
            cells: what the clusters have in each slice.
            draws: bootstrap draws.
            seed: seed of all draws.

        Raises:
            ValueError: draws or seed out of range.
        """
        check_sampling(draws, seed)
        clusters = len(cells.bytes_GS)
        draw = np.random.default_rng([seed, 0])
        drawn = draw.multinomial(clusters, np.full(clusters, 1 / clusters), draws).astype(float)
        self.cells, self.seed = cells, seed
        self.counts_BG = np.concatenate([np.ones((1, clusters)), drawn])
        """How often each draw takes each cluster. The first row is the texts at hand."""
        self.bytes_BS = self.counts_BG @ cells.bytes_GS

    def statistics(self, nats_NGS: Float64[np.ndarray, "N G S"], setting: int) -> dict[Statistic, Sampled]:
        """The statistics of a setting.

        Args:
            nats_NGS: nats of each cluster in each slice under the model of each of N seeds.
            setting: number of the setting, so that each has its own draws of seeds.
        """
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw may have no text of a slice: NaN, left out later
            values = [_statistics(nats_GS, self.cells, self.counts_BG, self.bytes_BS) for nats_GS in nats_NGS]
        return {name: self._over_seeds(np.stack([v[name] for v in values]), setting) for name in Statistic}

    def slice_losses(
        self, nats_NGS: Float64[np.ndarray, "N G S"], setting: int, relative: bool = False
    ) -> list[Sampled]:
        """The loss on each slice in nats per byte, for a setting as in `statistics`.

        If `relative`, each model's loss is divided by its own loss at distance 0, also in each draw.
        """
        bytes_BS, base_S = self.bytes_BS, self.cells.base_S
        with np.errstate(invalid="ignore", divide="ignore"):
            nats_NBS = self.counts_BG @ nats_NGS
            loss_NBS = nats_NBS / bytes_BS
            if relative:
                loss_NBS /= (nats_NBS[..., base_S].sum(2) / bytes_BS[:, base_S].sum(1))[..., None]
        return [self._over_seeds(loss_NB, setting) for loss_NB in np.moveaxis(loss_NBS, 2, 0)]

    def _over_seeds(self, values_NB: Float64[np.ndarray, "N B"], setting: int) -> Sampled:
        """The mean over seeds. In each draw but the first, also the seeds are drawn."""
        seeds, columns = values_NB.shape
        mean_B = values_NB.mean(0)
        if seeds > 1:
            draw = np.random.default_rng([self.seed, 1, setting])
            shares_BN = draw.multinomial(seeds, np.full(seeds, 1 / seeds), columns - 1) / seeds
            enlarged = math.sqrt(seeds / (seeds - 1))
            drawn_B = (shares_BN.T * values_NB[:, 1:]).sum(0)
            mean_B = np.append(mean_B[:1], mean_B[1:] + enlarged * (drawn_B - mean_B[1:]))
        return Sampled(float(mean_B[0]), mean_B[1:])


def _statistics(
    nats_GS: np.ndarray, cells: Cells, counts_BG: np.ndarray, bytes_BS: np.ndarray
) -> dict[Statistic, np.ndarray]:
    """The statistics of one model in each draw `[B]`."""
    base_S, later_S = cells.base_S, cells.later_S
    nats_BS = counts_BG @ nats_GS
    base_B = nats_BS[:, base_S].sum(1) / bytes_BS[:, base_S].sum(1)
    later_B = nats_BS[:, later_S].sum(1) / bytes_BS[:, later_S].sum(1)
    slope_B = slope(nats_BS[:, later_S], bytes_BS[:, later_S], cells.years_S[later_S])
    before_B = slope(nats_BS[:, ~later_S], bytes_BS[:, ~later_S], cells.years_S[~later_S])
    parts = nats_GS[:, later_S], cells.bytes_GS[:, later_S].astype(float), cells.years_S[later_S]
    within_B = slope_within(*parts, counts_BG)
    return {
        Statistic.BASE: base_B,
        Statistic.LATER: later_B,
        Statistic.RISE: later_B - base_B,
        Statistic.RISE_RELATIVE: 100 * (later_B / base_B - 1),
        Statistic.SLOPE: slope_B,
        Statistic.SLOPE_RELATIVE: 100 * slope_B / base_B,
        Statistic.WITHIN_RELATIVE: 100 * within_B / base_B,
        Statistic.BEFORE_RELATIVE: 100 * before_B / base_B,
    }


def slope(
    nats_BS: Float64[np.ndarray, "B S"], bytes_BS: Float64[np.ndarray, "B S"], years_S: Float64[np.ndarray, "S"]
) -> Float64[np.ndarray, "B"]:
    """The slope of the loss over years, in nats per byte and year: least squares, in which each byte has one weight.

    It is NaN for texts of fewer than two slices.
    """
    centre_B = bytes_BS @ years_S / bytes_BS.sum(1)
    away_BS = years_S - centre_B[:, None]
    spread_B = (bytes_BS * away_BS**2).sum(1)
    return (away_BS * nats_BS).sum(1) / np.where(spread_B > 0, spread_B, np.nan)


def slope_within(
    nats_GS: Float64[np.ndarray, "G S"],
    bytes_GS: Float64[np.ndarray, "G S"],
    years_S: Float64[np.ndarray, "S"],
    counts_BG: Float64[np.ndarray, "B G"],
) -> Float64[np.ndarray, "B"]:
    """The slope with a level of its own for each cluster, so that the mix of clusters in a slice does not matter.

    It is NaN if no cluster has texts in two slices.
    """
    sums_G = bytes_GS.sum(1)
    centre_G = np.where(sums_G > 0, bytes_GS @ years_S / np.where(sums_G > 0, sums_G, 1), 0)
    away_GS = years_S - centre_G[:, None]
    spread_B = counts_BG @ (bytes_GS * away_GS**2).sum(1)
    return counts_BG @ (away_GS * nats_GS).sum(1) / np.where(spread_B > 0, spread_B, np.nan)
