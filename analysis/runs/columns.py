"""A stranger's table under our names: headers, the mapping of columns, the names of the families, numbers in text.

What cannot be read is never read as something else: a header that stands twice and a column that is mapped twice are
refused, and a cell that holds text where a number belongs is counted and named.
"""

import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mdm_jax.files.results import RunResult
from mdm_jax.spec import Family


def _is_number(kind: Any) -> bool:
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return any(part in (int, float) for part in parts)


KINDS = typing.get_type_hints(RunResult)
COLUMNS = RunResult.columns()
NUMERIC = tuple(name for name in COLUMNS if _is_number(KINDS[name]))
TEXT = tuple(name for name in COLUMNS if name not in NUMERIC)
DECISIVE = ("params_non_embedding", "tokens", "budget", "flops_6nd", "loss", "loss_se_mc")
"""Numbers that decide a fit: a run in which one of them cannot be read is left out."""
ROLES = (Family.ARM.value, Family.MDM.value)
"""The two sides of a gap, as tables call them: the family of the denominator first."""
MOST_INTEGER = 10**308
"""JSON holds integers of any length; those beyond float64 are read as infinite."""
UNREAD = "unread"
"""Key in a run table's `attrs`: by column, how many cells hold no number, of how many, and the first of them."""


def not_a_number(column: str) -> str:
    """Why a run is left out in which this column holds text."""
    return f"{column} is not a number"


def pairs_of(text: str) -> list[tuple[str, str]]:
    """(ours, theirs) of `"params_non_embedding=N,loss=val"`.

    Raises:
        ValueError: an item is no pair.
    """
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if any(not (ours.strip() and theirs.strip()) for ours, _, theirs in pairs):
        raise ValueError(f"columns = {text!r}: must be OURS=THEIRS pairs, such as params_non_embedding=N,loss=L")
    return [(ours.strip(), theirs.strip()) for ours, _, theirs in pairs]


def mapping_of(columns: str | Mapping[str, str] | None) -> dict[str, str]:
    """Ours to theirs.

    Raises:
        ValueError: an item is no pair, a name is no column of ours, or one of either side stands twice.
    """
    if columns is None:
        return {}
    pairs = pairs_of(columns) if isinstance(columns, str) else list(columns.items())
    for name, _ in pairs:
        if name not in COLUMNS:
            raise ValueError(f"columns: {name!r} is no column of the run table; known are {', '.join(COLUMNS)}")
        if [ours for ours, _ in pairs].count(name) > 1:
            raise ValueError(f"columns: {name} is mapped twice; keep one of the two")
    for _, name in pairs:
        ours = [ours for ours, theirs in pairs if theirs == name]
        if len(ours) > 1 and not name.startswith("="):
            raise ValueError(f"columns: {name!r} is mapped to {' and to '.join(ours)}, two quantities; keep one")
    return dict(pairs)


def columns_text(columns: str | Mapping[str, str] | None) -> str:
    """The mapping as a command line writes it; empty without one."""
    return ",".join(f"{ours}={theirs}" for ours, theirs in mapping_of(columns).items())


def renamed(table: pd.DataFrame, mapping: Mapping[str, str], source: str) -> pd.DataFrame:
    """The table under our names; columns that are not ours and not mapped are dropped.

    Raises:
        ValueError: a column that is needed lacks (named, with the mapping), or stands twice.
    """
    table.columns = [" ".join(str(name).split()) for name in table.columns]
    taken = {name: name for name in COLUMNS if name in table.columns} | dict(mapping)
    data: dict[str, Any] = {}
    for ours, theirs in taken.items():
        if theirs.startswith("="):
            data[ours] = [theirs[1:]] * len(table)
            continue
        found = list(table.columns).count(theirs)
        if not found:
            raise ValueError(f"{source}: columns maps {ours} to {theirs!r}, which it lacks; it has {_headers(table)}")
        if found > 1:
            raise ValueError(f"{source}: has {found} columns named {theirs!r}; rename all but the one that is meant")
        data[ours] = table[theirs].to_numpy()
    lacking = [name for name in ("family", "params_non_embedding", "loss") if name not in data]
    if not {"flops_6nd", "tokens", "budget"} & set(data):
        lacking.append("tokens")
    if lacking:
        pairs = ",".join(f"{name}=THEIRS" for name in lacking)
        raise ValueError(f"{source}: lacks {', '.join(lacking)}; it has {_headers(table)}. Map with columns='{pairs}'")
    return pd.DataFrame(data)


def _headers(table: pd.DataFrame) -> str:
    names = list(table.columns[:40])
    return ", ".join(names) + (", …" if len(table.columns) > len(names) else "")


def read_numbers(given: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """A column as float64, [n], and which of its cells hold something that is no number, [n]."""
    if given.dtype.kind in "iuf":
        return np.array(given, np.float64), np.zeros(len(given), bool)
    finite = given.map(lambda cell: np.inf if isinstance(cell, int) and abs(cell) > MOST_INTEGER else cell)
    values = np.array(pd.to_numeric(finite, errors="coerce"), np.float64)
    bad = np.isnan(values) & ~np.asarray(given.isna())
    bad[bad] = [str(cell).strip().lower() not in ("", "nan", "none") for cell in given[bad]]
    return values, bad


def printable(value: Any) -> str:
    """Text from a stranger's file without outer blanks and control characters, which would steer a terminal."""
    text = str(value)
    return (text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)).strip()


def check_read(unread: Mapping[str, tuple[int, int, str]], source: str) -> None:
    """Refuses a table in which a column that decides the fits holds no number at all.

    Raises:
        ValueError: one does; it is named with its first value.
    """
    for name in DECISIVE:
        count, known, first = unread.get(name, (0, 1, ""))
        if count == known:
            raise ValueError(
                f"{source}: {name}: none of its {known} values is a number, the first is {first!r};"
                f" write plain numbers such as 0.003, or map another column with columns='{name}=THEIRS'"
            )


def rename_families(family: pd.Series, families: Mapping[str, str] | None) -> pd.Series:
    """The family of each run, with the names that `families` gives for "arm" and "mdm" replaced by these.

    Args:
        family: as the table has it, in lower case.
        families: ours to theirs, such as {"arm": "AR", "mdm": "MDLM"}.

    Raises:
        ValueError: an unknown role, a name that no run has (those there are listed), or one that would pool two.
    """
    present = sorted(set(family) - {""})
    theirs = {role: name.strip().lower() for role, name in (families or {}).items()}
    for role, name in theirs.items():
        if role not in ROLES:
            raise ValueError(f"families: {role!r} is no family of ours; known are {', '.join(ROLES)}")
        if name not in present:
            listed = ", ".join(present) or "none"
            raise ValueError(f"families: {role} = {name!r}, but no run is of that family; those of the table: {listed}")
        if role != name and role in present and role not in theirs.values():
            raise ValueError(
                f"families: {role} = {name!r}, but the table has a family {role!r} too; rename one of them"
            )
    if len(set(theirs.values())) < len(theirs):
        raise ValueError(f"families: {' and '.join(theirs)} are both {next(iter(theirs.values()))!r}; name two")
    return family.replace({name: role for role, name in theirs.items()})
