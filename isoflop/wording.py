"""Numbers, times, tables and lines as text, and numbers with few digits."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

from mdm_jax.command import aligned

LEFT_ALIGNED = ("group", "family", "size", "")
"""Columns of a table."""
COLUMNS = 100
"""Characters of a printed line."""
Row = tuple[str, ...]


def rounded(value: float, digits: int) -> float:
    """The number to `digits` significant digits, so that it is short to type."""
    return float(f"{value:.{digits}g}")


def short_number(value: int | float, digits: int = 4) -> str:
    """`digits` digits and a magnitude: `169.9M`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1, "")):
        if value >= factor:
            return f"{rounded(value / factor, digits):g}{unit}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """A time as text: `14 s`, `3.2 min`, `5.1 h`, `12.0 d`, `3.1 y`."""
    for most, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h"), (4e7, 86400, "d")):
        if seconds < most:
            return f"{seconds / divisor:.{0 if divisor == 1 else 1}f} {unit}"
    return f"{seconds / (365.25 * 86400):,.1f} y"


def money(dollars: float) -> str:
    """`$12.40`, and from a thousand on `$1,240`."""
    return f"${dollars:,.2f}" if dollars < 1000 else f"${dollars:,.0f}"


def plain(title: str, header: Row, rows: Sequence[Row]) -> str:
    """The table as aligned text. Columns that are empty in every row are left out."""
    shown = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = aligned([[row[i] for i in shown] for row in (header, *rows)], LEFT_ALIGNED)
    return "\n".join([title, *lines]) + "\n"


def columns() -> int:
    """Characters of a printed line: `COLUMNS`, or the width of a narrower terminal."""
    return min(COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else COLUMNS


def wrapped(text: str) -> str:
    """The text in lines of at most `columns()` characters. All but the first are indented."""
    return textwrap.fill(text, columns(), subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
