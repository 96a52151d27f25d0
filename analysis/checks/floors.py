"""Doubts about the floor of a law: losses that lie near it, and floors that the minima do not determine."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from analysis.checks.finding import Finding, Severity
from analysis.gap.curve import GapCurve
from analysis.gap.sensitivity import UNDETERMINED
from analysis.runs.columns import ROLES
from analysis.wording import CONVENTIONS, LAWS, family_name, floors_text, significant

NEAR_FLOOR = 0.1
"""A loss less than this share of itself above a fitted floor is near it."""


def floor_findings(gaps: Iterable[GapCurve]) -> list[Finding]:
    """Losses where a floor's error decides the ratio, and for each law the floors that the data do not determine."""
    out: list[Finding] = []
    loose: dict[str, dict[str, list[str]]] = {}
    least: dict[str, float] = {}
    for gap in gaps:
        out += _near(gap)
        if gap.floor_undetermined:
            low = min(interval[0] for interval in gap.floor_intervals)
            high = max(interval[1] for interval in gap.floor_intervals)
            known = "" if np.isnan(low) else f" (95% interval {significant(low)} to {significant(high)})"
            said = f"{floors_text(gap.floors, False)} nats{known}"
            loose.setdefault(gap.law, {}).setdefault(said, []).append(CONVENTIONS[gap.convention])
            least[gap.law] = min(*gap.floors, least.get(gap.law, math.inf))
    for law, under in loose.items():
        said = "; ".join(f"{floor} under {', '.join(names)}" for floor, names in under.items())
        out.append(_undetermined(law, said, least[law]))
    return out


def _near(gap: GapCurve) -> list[Finding]:
    """Losses near the floor of a family."""
    out = []
    for role, floor in zip(ROLES, gap.floors, strict=True):
        above = np.asarray(gap.loss - floor)
        near = np.isfinite(above) & (above < NEAR_FLOOR * gap.loss)
        if near.any():
            least = float(above[near].min())
            loss = float(gap.loss[near][above[near].argmin()])
            message = (
                f"a loss of {loss:.4g} is {'below' if least <= 0 else f'only {least:.2g} nats above'} "
                f"the {family_name(role)}'s floor of {floor:.4g} ({LAWS[gap.law]}, {CONVENTIONS[gap.convention]})"
            )
            remedy = "compare at a higher loss: so near a floor, its error decides the ratio"
            out.append(Finding(Severity.WARNING, "near_floor", message, least, remedy))
    return out


def undetermined_floors(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Findings about the floors in rows of `gap_sensitivity`: one for each law and its floors."""
    loose = [row for row in rows if row["floor_status"] == UNDETERMINED]
    pairs = [(row["law"], (row["floor_arm"], row["floor_mdm"])) for row in loose]
    found = {(law, f"{floors_text(floors, False)} nats"): min(floors) for law, floors in pairs}
    return [_undetermined(law, said, least) for (law, said), least in found.items()]


def _undetermined(law: str, said: str, least: float) -> Finding:
    message = (
        f"{LAWS[law]}: the minima do not determine the floor, {said}: losses that fall to 0, or hardly further, fit "
        "them as well, and the ratio rests on the floor"
    )
    remedy = "read the power law beside it, or add budgets a factor 10 further"
    return Finding(Severity.WARNING, "floor_undetermined", message, float(least), remedy)
