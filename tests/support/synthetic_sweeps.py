"""Sweeps whose truth is known: losses from L = E + A/N^alpha + B/D^beta, as the run table's rows."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import read_runs


@dataclass(frozen=True)
class Surface:
    """A loss surface in the form of Hoffmann et al. 2022, with its compute-optimal points in closed form."""

    A: float = 478.0
    B: float = 2143.0
    E: float = 1.82
    alpha: float = 0.348
    beta: float = 0.366

    def loss(self, n: np.ndarray | float, d: np.ndarray | float) -> Any:
        return self.E + self.A / n**self.alpha + self.B / d**self.beta

    @property
    def n_exponent(self) -> float:
        return self.beta / (self.alpha + self.beta)

    @property
    def loss_exponent(self) -> float:
        return -self.alpha * self.beta / (self.alpha + self.beta)

    def n_opt(self, c: np.ndarray | float) -> Any:
        """The best N at C = 6 N D."""
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return g * (c / 6) ** self.n_exponent

    def best_loss(self, c: np.ndarray | float) -> Any:
        n = self.n_opt(c)
        return self.loss(n, c / 6 / n)

    def compute(self, loss: float) -> float:
        """FLOPs at which the best size reaches the loss."""
        k = self.best_loss(1.0) - self.E
        return float(((loss - self.E) / k) ** (1 / self.loss_exponent))


ARM = Surface()
MDM = replace(ARM, A=ARM.A * 2.4, B=ARM.B * 2.75)
BUDGETS = {"arm": 1e18 * 4.0 ** np.arange(5), "mdm": 1e19 * 4.0 ** np.arange(5)}


def rows(
    family: str = "arm",
    surface: Surface = ARM,
    budgets: np.ndarray = BUDGETS["arm"],
    sizes: int = 7,
    span: float = 4.0,
    off: float = 0.0,
    sd: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One family's rows: sizes from N*/span to N*·span at each budget, moved by e^off, with noise of this sd."""
    rng = np.random.default_rng([seed, len(family), ord(family[0])])
    out = []
    for budget in budgets:
        for n in surface.n_opt(budget) * np.exp(off) * span ** np.linspace(-1, 1, sizes):
            d, head = budget / 6 / n, 40 * n**0.6
            predicted = head * (1 if family == "arm" else 0.5)
            out.append({
                "run_id": f"{family}-{n:.5g}-{budget:.4g}", "family": family, "params": n + 2 * head,
                "params_non_embedding": n, "tokens": d, "budget": budget, "flops_6nd": budget,
                "flops_with_head": 6 * (n + head) * d, "flops_exact": 6 * (n + predicted) * d,
                "loss": float(surface.loss(n, d) + sd * rng.standard_normal()), "loss_se_mc": 0.0,
                "loss_kind": "nll" if family == "arm" else "nelbo", "epochs": 0.5, "status": "ok", "seed": 0.0,
            })  # fmt: skip
    return out


def both(budgets: dict[str, np.ndarray] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Rows of both families."""
    budgets = budgets or BUDGETS
    surfaces = {"arm": ARM, "mdm": MDM}
    return [row for family in ("arm", "mdm") for row in rows(family, surfaces[family], budgets[family], **options)]


def table(of: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a run table."""
    return read_runs(pd.DataFrame(of))


def scattered(sd: float = 0.003) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and loss of 40 runs anywhere on the ARM's surface, with a multiplicative error."""
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(17, 22, 40)), np.exp(rng.uniform(20, 25, 40))
    return n, d, ARM.loss(n, d) * np.exp(sd * rng.standard_normal(40))


UNEQUAL = replace(ARM, alpha=0.30, beta=0.42)
EQUAL = replace(ARM, alpha=0.35, beta=0.35)


def vertex_bias(surface: Surface, span: float) -> float:
    """log of the parabola's N over the true N*, noise-free: the curve's shape around N* is the same at every budget."""
    v = np.log(span) * np.linspace(-1, 1, 7)
    shape = np.exp(-surface.alpha * v) / surface.alpha + np.exp(surface.beta * v) / surface.beta
    c2, c1, _ = np.polyfit(v, shape, 2)
    return float(-c1 / (2 * c2))
