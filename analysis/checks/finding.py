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


def some(names: Iterable[str], most: int = 4) -> str:
    """The first names, and how many there are besides."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def plural(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {noun}{'s' * (number != 1)}"
