"""IsoFLOP curves: loss as a function of one log abscissa. Each is a linear smoother of the losses.

That linearity is what the bootstrap rests on: parameters of a perturbed data set are `smoother @ losses`, so thousands
of refits are one matrix product.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quadratic:
    """c0 + c1 u + c2 u^2 (Hoffmann et al. 2022, approach 2; SMDM)."""

    name: str = "quadratic"
    parameters: int = 3
    min_sizes: int = 4
    """Three points lie on a parabola whatever they are, so a fourth is the first that can speak against it."""

    def basis(self, u: np.ndarray) -> np.ndarray:
        """Design matrix [..., 3] at u."""
        return np.stack([np.ones_like(u), u, u * u], axis=-1)

    def curvature(self, coefficients: np.ndarray) -> np.ndarray:
        """c2, [...]; a minimum needs it positive."""
        return np.asarray(coefficients[..., 2])

    def vertex(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Abscissa and loss of the minimum, [...] each; nan where the curve has none."""
        c0, c1, c2 = np.moveaxis(np.asarray(coefficients, np.float64), -1, 0)
        safe = np.where(c2 > 0, c2, np.nan)
        u = np.asarray(-c1 / (2 * safe))
        return u, np.asarray(c0 + c1 * u / 2)

    def vertex_gradient(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of (abscissa, loss) of the minimum by the coefficients, [3] each, for the delta method.

        The loss is stationary in u at the vertex, so its gradient is the basis there.
        """
        _, c1, c2 = coefficients
        u = -c1 / (2 * c2)
        return np.array([0.0, -1 / (2 * c2), c1 / (2 * c2**2)]), self.basis(np.asarray(u))


CURVES = {"quadratic": Quadratic()}


def smoother(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted least-squares matrix [k, m] that maps m observations to k coefficients."""
    root = np.sqrt(weights / weights.max())
    return np.linalg.pinv(design * root[:, None]) * root[None, :]
