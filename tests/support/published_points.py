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
