"""What a finding is: one doubt about a sweep or a fit, with its number and its remedy."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How much a finding weighs: an error voids a number, a warning widens the doubt, a note explains."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One doubt about a sweep or a fit."""

    severity: Severity
    code: str
    message: str
    number: float
    remedy: str


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, the gravest first."""
    return sorted(dict.fromkeys(findings), key=lambda finding: list(Severity).index(finding.severity))
