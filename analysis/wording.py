"""Numbers and lists as people read them: 3×10⁹, 1.03M, 15.2 [13.9, 16.8], a, b and 3 more."""

import math
from collections.abc import Collection, Iterable

from analysis.laws.names import LawName

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CONVENTIONS = {"smdm_6nd": "6ND without head", "with_head": "6ND with head", "exact": "exact FLOPs"}
CONVENTIONS["chinchilla"] = "Chinchilla's FLOPs"
HUGE, TINY = 1e6, 1e-4
"""A number from HUGE on, or below TINY, is written with a power of ten."""
FAMILIES = {"arm": "ARM", "mdm": "MDM"}
LIKELIHOODS = {"nelbo": "NELBO (a bound)", "left_to_right": "left to right", "confidence": "confidence order"}
"""What an MDM's loss can be: the bound, and the exact likelihoods."""
LAWS = {name.value: name.wording for name in LawName}
MODEL_ERRORS = {name.value: name.model_error for name in LawName}
"""The error of each law that its interval, which is statistical, does not include."""


def family_name(family: str) -> str:
    """The family's usual abbreviation; a stranger's name loses the signs that start mathematics in figures."""
    return FAMILIES.get(family, family.replace("$", "").replace("\\", ""))


def some(names: Iterable[str], most: int = 4) -> str:
    """The first names, and how many there are besides."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def plural(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {noun}{'s' * (number != 1)}"


def missing_runs(run_ids: Collection[str]) -> str:
    """The sentence after the name of a likelihood: 4 MDM runs without it: a, b, c, d."""
    return f"{plural(len(run_ids), 'MDM run')} without it: {some(run_ids)}"


def signed(nats: float) -> str:
    """A difference of losses: +0.0021, −0.0130."""
    return f"{nats:+.4f}".replace("-", "−")


def mantissa_exponent(value: float) -> tuple[str, int]:
    """Up to three significant digits, and the power of ten."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return mantissa.rstrip("0").rstrip("."), int(exponent)


def scientific(value: float) -> str:
    """FLOPs as 3×10⁹."""
    if not math.isfinite(value) or value <= 0:
        return "–"
    mantissa, exponent = mantissa_exponent(value)
    power = f"10{str(exponent).translate(SUPERSCRIPTS)}"
    return power if mantissa == "1" else f"{mantissa}×{power}"


def count(value: float) -> str:
    """Parameters or tokens as 33.2k, 1.03M, 20.4B."""
    if not math.isfinite(value):
        return "–"
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def significant(value: float, digits: int = 3) -> str:
    """Three significant digits: 15.2, 1,230; with a power of ten from a million up and below a ten-thousandth."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    if not TINY <= abs(rounded) < HUGE:
        return ("−" if value < 0 else "") + scientific(abs(rounded))
    return f"{rounded:,.{_places(rounded, digits)}f}".replace("-", "−")


def _places(value: float, digits: int) -> int:
    """Decimals that show so many significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def with_interval(value: float, lower: float, upper: float, digits: int = 3) -> str:
    """15.2 [13.9, 16.8]; the value alone where there is no interval.

    The ends have as many decimals as the value, but no more significant digits, and two where they are much smaller.
    """
    if math.isnan(value):
        return "–"
    if math.isnan(lower) or math.isnan(upper):
        return significant(value, digits)
    places = _places(float(f"{value:.{digits - 1}e}"), digits) if value else digits - 1
    ends = (_end(end, places, digits) for end in (lower, upper))
    return f"{significant(value, digits)} [{', '.join(ends)}]"


def _end(end: float, places: int, digits: int) -> str:
    """An interval's end, beside a value with so many decimals."""
    if not math.isfinite(end) or end == 0:
        return significant(end)
    rounded = float(f"{end:.{digits - 1}e}")
    if TINY <= abs(rounded) < HUGE and places < _places(rounded, digits) and abs(end) >= 10.0 ** (1 - places):
        return f"{end:,.{places}f}".replace("-", "−")
    return significant(end, digits if places >= _places(rounded, digits) else 2)


def floors_text(floors: tuple[float, float], undetermined: bool) -> str:
    """The floor of both families, or the ARM's and the MDM's, as 1.82 or 1.82, 2.05; – for a law without one."""
    if math.isnan(floors[0]):
        return "–"
    said = ", ".join(dict.fromkeys(significant(floor) for floor in floors))
    return f"{said} undet." if undetermined else said


def with_error(value: float, error: float) -> str:
    """2.4317 ± 0.0021, to the error's second digit."""
    if math.isnan(value):
        return "–"
    if math.isnan(error) or error <= 0:
        return significant(value, 5)
    places = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{places}f} ± {error:.{places}f}"
