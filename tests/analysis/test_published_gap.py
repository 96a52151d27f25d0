import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from published_points import points, published

from analysis import Frontier, compute_gap, overlap


def test_the_published_gap_and_what_a_floor_makes_of_it(reference_data: Path) -> None:
    """SMDM's digitised points: 15.5 at ARM 1e19; with a floor of 1.5, 17 at 1e19, 31 at 1e20 and 54 at 1e21."""
    arm, mdm = (Frontier(family.lower(), *points(reference_data, family)) for family in ("ARM", "MDM"))
    line = compute_gap(arm, mdm, law="power_law", at="flops", grid=np.array([1e19]))
    assert line.ratio[0] == pytest.approx(15.5, abs=0.1)
    assert overlap(arm, mdm) == pytest.approx((2.830, 2.846), abs=5e-4)
    straight, cubic = compute_gap(arm, mdm, law="piecewise_linear"), compute_gap(arm, mdm)
    assert (straight.ratio.min(), straight.ratio.max()) == pytest.approx((15.16, 15.36), abs=0.02)
    assert (cubic.ratio.min(), cubic.ratio.max()) == pytest.approx((15.15, 15.37), abs=0.02)
    shared = compute_gap(arm, mdm, law="shared_floor", at="flops", grid=np.array([1e19, 1e20, 1e21]))
    assert shared.floor == pytest.approx(1.48, abs=0.01)
    assert shared.ratio == pytest.approx([17, 30, 53], abs=0.5)


def test_another_groups_points_give_a_growing_gap(reference_data: Path) -> None:
    rows = published(reference_data, "sahoo2026_digitised_minima.csv")
    sides = []
    for theirs, ours in (("ARM", "arm"), ("MDLM_lowvar", "mdm")):
        own = [(float(r["flops"]), float(r["optimal_val_loss"])) for r in rows if r["family"] == theirs]
        sides.append(Frontier(ours, *np.array(own).T))
    gap = compute_gap(sides[0], sides[1], law="power_law", at="flops", grid=np.array([1e19, 1e20]))
    assert gap.ratio == pytest.approx([15.2, 18.7], abs=0.2)


def test_the_docs_quote_the_benchmarks_coverage() -> None:
    """docs/analysis.md holds a row for each cell of results/coverage.json, as `benchmarks.coverage` prints it."""
    root = Path(__file__).parents[2]
    docs = (root / "docs" / "analysis.md").read_text().splitlines()
    found = json.loads((root / "benchmarks" / "results" / "coverage.json").read_text())
    line = runpy.run_path(str(root / "benchmarks" / "coverage.py"))["line"]
    rows = [line(cell) for curve in ("quadratic", "cubic") for cell in found[curve]["cells"]]
    assert [row for row in rows if row not in docs] == []
    assert [row for row in docs if row.startswith("| ×") and row not in rows] == []
    for cell in (cell for curve in found.values() for cell in curve["cells"]):
        # where budgets scatter, two to ten degrees of freedom tell by how much
        least = 0.85 if "scatter" in cell["cell"] else 0.88
        assert min(float(cell[f"interpolated_{place}%"]) for place in (5, 25, 50, 75, 95)) >= least, cell["cell"]
