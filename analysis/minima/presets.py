"""Published recipes, exactly as published, so that a number can be compared with the paper's."""

from dataclasses import dataclass

from analysis.laws.names import LawName
from analysis.minima.cells import Recipe


@dataclass(frozen=True)
class Preset:
    """How a paper gets from runs to a gap."""

    recipe: Recipe
    law: LawName


SMDM = Preset(
    Recipe(x="params_non_embedding", curve="quadratic", log_loss=False, window=None, weights="equal"),
    law=LawName.POWER_LAW,
)
"""Nie et al., Scaling up Masked Diffusion Models on Text, arXiv 2410.18514: quadratics in log N by least squares,
straight lines through the minima's log loss against log C = log 6ND by least squares."""
PRESETS = {"smdm": SMDM}
