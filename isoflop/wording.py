"""Numbers for people, in tables and messages."""


def short_number(value: int | float, digits: int = 4) -> str:
    """`digits` digits and a magnitude: `169.9M`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1, "")):
        if value >= factor:
            return f"{float(f'{value / factor:.{digits}g}'):g}{unit}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Time for people: `14 s`, `3.2 min`, `5.1 h`, `12.0 d`, `3.1 y`."""
    for most, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h"), (4e7, 86400, "d")):
        if seconds < most:
            return f"{seconds / divisor:.{0 if divisor == 1 else 1}f} {unit}"
    return f"{seconds / (365.25 * 86400):,.1f} y"


def money(dollars: float) -> str:
    """`$12.40`, and from a thousand on `$1,240`."""
    return f"${dollars:,.2f}" if dollars < 1000 else f"${dollars:,.0f}"
