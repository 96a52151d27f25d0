"""Laws whose intervals exclude each other at a loss that both families measured: at least one is wrong there."""

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from analysis.checks.finding import Finding, Severity
from analysis.gap.curve import INTERPOLATED, GapCurve
from analysis.minima.choices import CURVES
from analysis.wording import CONVENTIONS, LAWS, with_interval


def law_rows(gaps: Iterable[GapCurve]) -> list[dict[str, Any]]:
    """Rows for `disagreements`, one a place of each gap."""
    return [vars(point) | {"at": gap.grid_of} for gap in gaps for point in gap.points()]


def disagreements(rows: Sequence[Mapping[str, Any]], at: str = "loss") -> list[Finding]:
    """A finding for each FLOP convention under which two laws' intervals are disjoint where both families measured.

    Args:
        rows: of `gap_sensitivity`, all read at one place, or from `law_rows`, which say where they are read.
        at: what rows of `gap_sensitivity` were read at, "loss" or "flops".
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["support"] == INTERPOLATED and math.isfinite(row["lower"]):
            place = "flops_arm" if row.get("at", at) == "flops" else "loss"
            groups.setdefault((row["convention"], f"{row[place]:.6g}"), []).append(row)
    return [found for (convention, _), laws in groups.items() for found in _furthest_apart(convention, laws)]


def _furthest_apart(convention: str, laws: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The two laws furthest apart, if their intervals exclude each other."""
    low, high = min(laws, key=itemgetter("upper")), max(laws, key=itemgetter("lower"))
    if not low["upper"] < high["lower"]:
        return []
    said = " and ".join(
        f"{_law_and_curve(row)} {with_interval(row['ratio'], row['lower'], row['upper'])}" for row in (low, high)
    )
    message = (
        f"laws exclude each other at a loss of {high['loss']:.4g}, which both families measured "
        f"({CONVENTIONS[convention]}): {said}"
    )
    remedy = "trust the interpolated gap there, and no law that excludes it beyond the measured losses"
    apart = float(np.log(high["lower"] / low["upper"]))
    return [Finding(Severity.WARNING, "laws_disagree", message, apart, remedy)]


def _law_and_curve(row: Mapping[str, Any]) -> str:
    """The law, with the curve of its minima where the row tells it."""
    curve = row.get("curve", "")
    return LAWS[row["law"]] + (f" ({curve})" if curve in CURVES else "")
