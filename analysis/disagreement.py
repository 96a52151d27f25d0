"""Laws whose intervals exclude each other at a loss that both families measured: at least one is wrong there."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.curves import CURVES
from analysis.findings import Finding, Severity
from analysis.gap import INTERPOLATED, GapCurve
from analysis.wording import CONVENTIONS, LAWS, with_interval


def law_rows(gaps: Iterable[GapCurve]) -> list[dict[str, Any]]:
    """Rows for `disagreements`, one a place of each gap."""
    names = ("loss", "ratio", "lower", "upper", "support")
    return [
        {"law": gap.law, "convention": gap.convention, "at": gap.at} | {name: getattr(gap, name)[i] for name in names}
        for gap in gaps for i in range(len(gap.loss))
    ]  # fmt: skip


def disagreements(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """A finding for each FLOP convention under which two laws' intervals are disjoint where both families measured.

    Args:
        rows: of `gap_sensitivity`, all read at one place, or from `law_rows`.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["support"] == INTERPOLATED and math.isfinite(row["lower"]):
            where = "" if row.get("at") == "flops" else f"{row['loss']:.6g}"
            groups.setdefault((row["convention"], where), []).append(row)
    return [found for (convention, _), laws in groups.items() for found in _of_place(convention, laws)]


def _of_place(convention: str, laws: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The two laws furthest apart, if their intervals exclude each other."""
    low, high = (pick(laws, key=key) for pick, key in ((min, _upper), (max, _lower)))
    if not low["upper"] < high["lower"]:
        return []
    said = " and ".join(f"{_name(row)} {with_interval(row['ratio'], row['lower'], row['upper'])}"
                        for row in (low, high))  # fmt: skip
    message = (
        f"laws exclude each other at a loss of {high['loss']:.4g}, which both families measured "
        f"({CONVENTIONS[convention]}): {said}"
    )
    remedy = "trust the interpolated gap there, and no law that excludes it beyond the measured losses"
    apart = float(np.log(high["lower"] / low["upper"]))
    return [Finding(Severity.WARNING, "laws_disagree", message, apart, remedy)]


def _name(row: Mapping[str, Any]) -> str:
    """The law, with the curve of its minima where the row tells it."""
    curve = row.get("curve", "")
    return LAWS[row["law"]] + (f" ({curve})" if curve in CURVES else "")


def _upper(row: Mapping[str, Any]) -> float:
    return float(row["upper"])


def _lower(row: Mapping[str, Any]) -> float:
    return float(row["lower"])
