"""A bend of a family's curve, told apart from scatter between budgets.

Both put minima off the smooth law of `analysis.minima.scatter`. Scatter moves each minimum on its own. A bend moves
neighbours together: they lie off the law, and still near the line through their own neighbours. So two questions are
asked of what the smooth law leaves over, r [B].

1. Neighbouring minima disagree by d_i = r_i - (the line through r_(i-1) and r_(i+1)). If all of r were scatter, would
   they agree as well as they do by chance? If that is improbable, the curve bends.
2. If it bends, how large is the scatter beside the bend? It is the variance that makes the weighted squares of d as
   large as expected (Gasser, Sroka and Jennen-Steinmetz 1986, Biometrika 73, 625).

The weighted squares of d are compared with chi-squared, scaled to the same mean and variance (Satterthwaite 1946). Both
moments know that the law was fitted, by its linearisation.

Simulated, 100 to 150 families each, minima with errors of .0017 nats and budgets a factor 4 apart. A bend is a step
-h tanh(x / .35) in the scaled log C of `analysis.minima.scatter`; "law" and "beside" are the rms of the scatter
off the smooth law, and of that beside a bend:

| budgets | true scatter | h | called a bend | law | beside |
|---|---|---|---|---|---|
| 8 | 0 | 0 | 3% | .0008 | .0008 |
| 8 | .01 | 0 | 0 | .0104 | .0104 |
| 8 | 0 | .1 | 1% | .0275 | .0108 |
| 10 | .01 | 0 | 0 | .0104 | .0101 |
| 10 | 0 | .01 | 18% | .0025 | .0009 |
| 10 | 0 | .03 | 94% | .0076 | .0020 |
| 10 | 0 | .1 | 100% | .0256 | .0067 |
| 10 | .01 | .1 | 61% | .0278 | .0122 |
| 12 | 0 | .03 | 100% | .0072 | .0013 |
| 12 | .01 | .1 | 85% | .0265 | .0109 |

Eight budgets tell few bends, because a smooth law leaves over little that neighbours share. Seven or fewer told none.
"""

from dataclasses import dataclass

import numpy as np

from analysis.minima.noise import paule_mandel

FEWEST = 8
"""Budgets of a family that can tell a bend from scatter."""
IMPROBABLE = 0.05
"""Below this probability, neighbours agree too well for scatter."""
STRAIGHT = 1e-4
"""|s| at which the law's derivatives are taken where it is a straight line."""


@dataclass(frozen=True)
class Neighbours:
    """How far neighbouring minima disagree."""

    p: float
    """Probability that they disagree so little, if all that lies off the smooth law is scatter."""
    sd: float
    """The scatter that their disagreement shows beyond the minima's errors, nats per token."""
    dof: float
    """Effective degrees of freedom of `sd`."""

    @property
    def follow_a_bend(self) -> bool:
        """Whether what lies off the smooth law is a bend of the curve."""
        return self.p < IMPROBABLE


def compare_neighbours(x: np.ndarray, loss: np.ndarray, errors: np.ndarray, s: float, law_sd: float) -> Neighbours:
    """Compares each inner minimum with the line through its neighbours.

    Args:
        x: log C, scaled to run from -1 to 1, rising, [B].
        loss: nats per token, [B].
        errors: standard errors of the losses, [B], positive.
        s: of the smooth law a + b (e^(s x) - 1) / s that fits best.
        law_sd: the scatter off that law, nats per token, positive.
    """
    from scipy.special import chdtr  # .2 s that importing analysis does not cost

    differences = _differences(x)
    off_law = differences @ _residual_maker(x, s, 1 / (errors**2 + law_sd**2))

    def compared(extra_sd: float) -> tuple[float, float, float]:
        """Weighted squares of the disagreements, their expectation, and effective degrees of freedom."""
        variance = errors**2 + extra_sd**2
        weights = 1 / (differences**2 @ variance)
        covariance = (off_law * variance) @ off_law.T * np.sqrt(np.outer(weights, weights))
        expected = float(np.trace(covariance))
        return float(weights @ (off_law @ loss) ** 2), expected, expected**2 / float((covariance**2).sum())

    squares, expected, dof = compared(law_sd)
    p = float(chdtr(dof, dof * squares / expected))
    sd = 0.0
    if compared(0.0)[0] > compared(0.0)[1]:
        low, high = 1e-3 * float(errors.min()), 4 * float(np.ptp(loss))
        sd = paule_mandel(lambda extra: compared(extra)[0] / compared(extra)[1], 1, low, high)
    return Neighbours(p, sd, compared(sd)[2])


def _differences(x: np.ndarray) -> np.ndarray:
    """[B - 2, B]: takes from each inner value the line through its two neighbours."""
    out = np.zeros((len(x) - 2, len(x)))
    for i in range(1, len(x) - 1):
        right = (x[i] - x[i - 1]) / (x[i + 1] - x[i - 1])
        out[i - 1, i - 1 : i + 2] = right - 1, 1, -right
    return out


def _residual_maker(x: np.ndarray, s: float, weights: np.ndarray) -> np.ndarray:
    """[B, B]: takes from losses the smooth law that fits them best, linear in its parameters near s."""
    s = s if abs(s) > STRAIGHT else STRAIGHT
    f = np.expm1(s * x) / s
    design, root = np.stack([np.ones_like(x), f, (x * np.exp(s * x) - f) / s], axis=1), np.sqrt(weights)
    return np.eye(len(x)) - design @ (np.linalg.pinv(design * root[:, None]) * root)
