"""Compute-optimal points of published sweeps, as read by us from the papers' figures.

* smdm_2024: Nie et al., arXiv 2410.18514, both scaling figures; loss to ±.0006 nats, N to ±.3%.
* sahoo_2026: arXiv 2602.15014, minima of the fitted parabolas; loss to ±.002 nats. Its `mdm` is the low-variance MDLM.
"""

import csv
from importlib import resources

import numpy as np

from analysis.laws.frontier import Frontier

SOURCES = ("smdm_2024", "sahoo_2026")


def published_points(source: str, family: str, quantity: str = "loss") -> tuple[np.ndarray, np.ndarray]:
    """(FLOPs as 6ND, values) of a source's minima: "loss" (nats per token) or "params_non_embedding".

    Raises:
        ValueError: an unknown source, or a family or quantity that it lacks.
    """
    if source not in SOURCES:
        raise ValueError(f"source = {source!r}: must be one of {', '.join(SOURCES)}")
    rows = list(csv.DictReader(resources.files(__name__).joinpath(f"{source}.csv").read_text().splitlines()))
    own = [row for row in rows if row["family"] == family and row["quantity"] == quantity]
    if not own:
        has = sorted({f"{row['family']}'s {row['quantity']}" for row in rows})
        raise ValueError(f"{source} has no {quantity} of {family!r}; it has {', '.join(has)}")
    return np.array([float(row["flops"]) for row in own]), np.array([float(row["value"]) for row in own])


def published_frontier(source: str, family: str) -> Frontier:
    """A source's loss against compute.

    Raises:
        ValueError: as `published_points`.
    """
    return Frontier(family, *published_points(source, family))
