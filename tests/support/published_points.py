"""Points that the papers publish, read from the reference data."""

import csv
from pathlib import Path

import numpy as np


def published(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "scaling" / name).open() as file:
        return list(csv.DictReader(file))


def points(folder: Path, family: str, figure: str = "scale_loss") -> tuple[np.ndarray, np.ndarray]:
    rows = [
        r for r in published(folder, "smdm_digitised_points.csv") if r["family"] == family and r["figure"] == figure
    ]
    return np.array([float(r["flops"]) for r in rows]), np.array([float(r["value"]) for r in rows])


def porian(folder: Path) -> list[tuple[dict[str, str], dict[str, list]]]:
    """Fifteen experiments: the published row, and the runs' columns."""
    with (folder / "scaling" / "porian_isoflop_15exp.csv").open() as file:
        runs = list(csv.DictReader(file))
    keys = ("file", "dataset", "hparams", "warmup", "decay", "param_count")
    out = []
    for row in published(folder, "porian_published_exponents.csv"):
        own = [r for r in runs if all(r[k] == row[k] for k in keys) and r["split"] == row["val"]]
        names = {"params_non_embedding": "params", "budget": "flops", "tokens": "tokens", "loss": "loss"}
        columns = {ours: [float(r[theirs]) for r in own] for ours, theirs in names.items()}
        out.append((row, {"family": ["arm"] * len(own), **columns}))
    return out
