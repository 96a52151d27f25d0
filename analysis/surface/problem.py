"""What a surface is fitted to: the runs of one family, and the loss of a residual."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.surface.solver import Huber, Points

SPACES = ("log", "linear")
LOSSES = ("huber", "asymmetric_mae", "squares")
NO_BEND = 1e6
"""Huber's delta, nats, beyond any residual: least squares."""
FEWEST_RUNS = 6
FEWEST_VALUES = 3


@dataclass(frozen=True, eq=False)
class SurfaceRuns:
    """m runs of one family; numbers become float64.

    Raises:
        ValueError: arrays of different lengths, values that are not finite and positive, fewer than six runs, or fewer
            than three different N or D.
    """

    n: np.ndarray = field(repr=False)
    """Parameters, [m]."""
    d: np.ndarray = field(repr=False)
    """Training tokens, [m]."""
    losses: np.ndarray = field(repr=False)
    """nats per token, [m]."""
    family: str = ""
    weights: np.ndarray = field(default_factory=lambda: np.array(1.0), repr=False)
    """Relative weight of each run, [m]. A fit replaces them where there are Monte Carlo errors."""
    budgets: np.ndarray = field(default_factory=lambda: np.array(math.nan), repr=False)
    """FLOPs budget of each run, [m]; nan where the runs name none."""
    se_mc: np.ndarray = field(default_factory=lambda: np.array(0.0), repr=False)
    """Monte Carlo error of each loss, nats per token, [m]; 0 where there is none."""
    flops: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    """FLOPs of each run, [m], by convention; empty where only N and D are known."""

    def __post_init__(self) -> None:
        for name in ("n", "d", "losses"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        for name in ("weights", "budgets", "se_mc"):
            value = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, value if value.ndim else np.full(self.n.shape, value))
        arrays = {name: getattr(self, name) for name in ("n", "d", "losses", "weights")}
        lengths = {name: values.shape for name, values in arrays.items()}
        if len(set(lengths.values())) > 1 or self.n.ndim != 1:
            raise ValueError(f"n, d, losses and weights: must be lists of one length, are {lengths}")
        for name, values in arrays.items():
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if len(bad):
                raise ValueError(f"{name}: run {bad[0]} has {values[bad[0]]}; it must be finite and positive")
        if len(self) < FEWEST_RUNS:
            raise ValueError(f"{len(self)} runs: a surface has five parameters, so it needs {FEWEST_RUNS} or more")
        for name in ("n", "d"):
            different = len(np.unique(arrays[name]))
            if different < FEWEST_VALUES:
                few = f"{different} different values cannot show a curve"
                raise ValueError(f"{name}: {few}; have {FEWEST_VALUES} or more")

    def __len__(self) -> int:
        return len(self.n)

    def only(self, keep: np.ndarray) -> "SurfaceRuns":
        """Some of the runs, `keep` [m] of booleans.

        Raises:
            ValueError: fewer than six runs, or fewer than three different N or D.
        """
        names = ("n", "d", "losses", "weights", "budgets", "se_mc")
        flops = {convention: values[keep] for convention, values in self.flops.items()}
        return replace(self, flops=flops, **{name: getattr(self, name)[keep] for name in names})


@dataclass(frozen=True)
class Criterion:
    """What a fit minimises over the runs' residuals; the default is that of Hoffmann et al. 2022.

    Raises:
        ValueError: an unknown option, or a number that is not finite and positive.
    """

    space: str = "log"
    """Residuals of "log" loss or of the loss itself ("linear")."""
    loss: str = "huber"
    """Loss of a residual: "huber"; "asymmetric_mae", absolute errors with weight `over` where the prediction lies above
    the measured loss; or "squares"."""
    delta: float = 1e-3
    """The residual from which Huber's loss is linear."""
    over: float = 10.0
    """See `loss`; for other losses without effect."""

    def __post_init__(self) -> None:
        for name, value, known in (("space", self.space, SPACES), ("loss", self.loss, LOSSES)):
            if value not in known:
                raise ValueError(f"{name} = {value!r}: must be one of {', '.join(known)}")
        for name, value in (("delta", self.delta), ("over", self.over)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value}: must be finite and positive")

    @property
    def huber(self) -> Huber:
        """The criterion in the form that the solver takes."""
        log = self.space == "log"
        if self.loss == "asymmetric_mae":
            return Huber(log, 0.0, self.over)
        return Huber(log, self.delta if self.loss == "huber" else NO_BEND)


HOFFMANN = Criterion()
"""The objective of Hoffmann et al. 2022."""


def centred(runs: SurfaceRuns, log: bool) -> tuple[Points, np.ndarray]:
    """The runs as the solver takes them, with log loss or loss, and the means of log N and log D, [2]."""
    u, v = np.log(runs.n), np.log(runs.d)
    means = np.array([u.mean(), v.mean()])
    return Points(u - means[0], v - means[1], np.log(runs.losses) if log else runs.losses), means


def natural(theta: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, ...]:
    """E, A, B, alpha and beta, [...] each, of the solver's parameters [..., 5]."""
    e, a, b, alpha, beta = np.moveaxis(theta, -1, 0)
    with np.errstate(over="ignore"):  # an exponent that ran away is reported, not warned about
        values = np.exp(e), np.exp(a + alpha * means[0]), np.exp(b + beta * means[1]), alpha, beta
    return tuple(np.asarray(value) for value in values)
