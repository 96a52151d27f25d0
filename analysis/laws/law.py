"""What all laws have in common: the loss that a family reaches at a compute, and the compute that reaches a loss."""

import math
from abc import ABC, abstractmethod

import numpy as np


class Law(ABC):
    """One family's law, or n draws of it: `log_loss` and `log_flops` are each other's inverse.

    Both take an array [G], and of draws also [n, G]. They give [n, G] for draws, else the shape that they got.
    """

    @abstractmethod
    def log_loss(self, log_flops: np.ndarray) -> np.ndarray:
        """Log of the loss (nats per token) at log FLOPs."""

    @abstractmethod
    def log_flops(self, log_loss: np.ndarray) -> np.ndarray:
        """Log of the FLOPs that reach a log loss; nan where none do."""

    @property
    def support(self) -> tuple[float, float]:
        """The lowest and the highest log loss at which the law may be read; a law with a formula has no limits."""
        return -math.inf, math.inf

    def predict(self, c: np.ndarray | float) -> np.ndarray:
        """The law's value at compute c (FLOPs)."""
        return np.asarray(np.exp(self.log_loss(np.asarray(np.log(c)))))

    def invert(self, y: np.ndarray | float) -> np.ndarray:
        """Compute (FLOPs) at which the law gives y; nan at or below a floor."""
        return np.asarray(np.exp(self.log_flops(np.asarray(np.log(y)))))
