"""A family's compute-optimal points: the loss at the best size of each budget, against the compute spent there."""

from dataclasses import dataclass

import numpy as np

from mdm_jax.spec import FlopConvention


@dataclass(frozen=True, eq=False)
class Frontier:
    """Loss (nats per token) against training compute (FLOPs), sorted by compute; one point a budget."""

    family: str
    flops: np.ndarray
    loss: np.ndarray
    convention: str = FlopConvention.SMDM_6ND.value

    def __post_init__(self) -> None:
        flops, loss = np.asarray(self.flops, np.float64), np.asarray(self.loss, np.float64)
        if flops.ndim != 1 or flops.shape != loss.shape:
            raise ValueError(f"{self.family}: flops {flops.shape} and loss {loss.shape} must be two equal lists")
        for name, values in (("flops", flops), ("loss", loss)):
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError(f"{self.family}: {name} must be finite and positive, is {values.tolist()}")
        order = np.argsort(flops, kind="stable")
        object.__setattr__(self, "flops", flops[order])
        object.__setattr__(self, "loss", loss[order])

    @property
    def logs(self) -> tuple[np.ndarray, np.ndarray]:
        """Log FLOPs and log losses as one draw, [1, n] each."""
        return np.log(self.flops)[None], np.log(self.loss)[None]

    @property
    def beaten(self) -> np.ndarray:
        """Whether a cheaper point reaches the same loss or a lower one, [n]; no interpolation uses such points."""
        cheaper = np.minimum.accumulate(np.append(np.inf, self.loss))[:-1]
        return self.loss >= cheaper

    @property
    def loss_range(self) -> tuple[float, float]:
        """The lowest and the highest loss between which the frontier is measured; (nan, nan) without points.

        The highest is the cheapest point's: more compute that reached less says nothing about the frontier.
        """
        if not len(self.loss):
            return (float("nan"), float("nan"))
        return (float(self.loss.min()), float(self.loss[0]))


def overlap(arm: Frontier, mdm: Frontier) -> tuple[float, float] | None:
    """The losses (low, high) that both families' measured ranges cover, or None where they share none."""
    low = max(arm.loss_range[0], mdm.loss_range[0])
    high = min(arm.loss_range[1], mdm.loss_range[1])
    return (low, high) if low < high else None
