"""The laws by which a loss depends on compute: their names in tables and files, and how a person reads them."""

from enum import StrEnum


class LawName(StrEnum):
    """A law's name, its wording in tables and figures, and the error that its statistical intervals leave out."""

    wording: str
    model_error: str

    def __new__(cls, name: str, wording: str, model_error: str) -> "LawName":
        """The member `name`, with its two texts."""
        member = str.__new__(cls, name)
        member._value_, member.wording, member.model_error = name, wording, model_error
        return member

    INTERPOLATED = "interpolated", "interpolated", "none of a law's form; only the shape of the curve between budgets"
    PIECEWISE_LINEAR = "piecewise_linear", "straight segments", "straight segments lie above a curve with a floor"
    POWER_LAW = "power_law", "power law", "assumes that losses have no floor"
    SHARED_FLOOR = "shared_floor", "shared floor", "assumes one floor for both families"
    OWN_FLOORS = "own_floors", "a floor each", "each floor is an extrapolation beyond every run"
    GIVEN_FLOOR = "given_floor", "given floor", "the floor is an assumption"
    SATURATING = "saturating", "its own floor", "the floor is an extrapolation beyond every run"
    PARAMETRIC = "parametric", "parametric", "assumes the surface's form, far beyond the runs"

    @property
    def interpolates(self) -> bool:
        """Whether the law goes through the minima, has no formula, and so is read only where both were measured."""
        return self in (LawName.INTERPOLATED, LawName.PIECEWISE_LINEAR)
