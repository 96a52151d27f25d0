"""The run table as a DataFrame, from a sweep's directory or from anybody's CSV, JSONL or Parquet file.

No run vanishes: a run that diverged, failed, is still running or has no result yet keeps its row, and
`excluded_reason` says why no fit uses it. Every number is float64, because 6 N D overflows int64.
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.runs.columns import (
    COLUMNS,
    DECISIVE,
    NUMERIC,
    TEXT,
    UNREAD,
    check_read,
    mapping_of,
    not_a_number,
    printable,
    read_numbers,
    rename_families,
    renamed,
)
from analysis.runs.consistency import contradictions_within
from analysis.runs.groups import choose
from analysis.runs.learning_rates import CELL, best_lr_reasons
from analysis.runs.sweep_folder import sweep_rows
from mdm_jax.files.results import Status, unescaped
from mdm_jax.files.sealed_json import numbered_lines
from mdm_jax.files.storage import Path, as_path
from mdm_jax.spec.counting import chinchilla_forward_flops

LOSS_HEADER = "loss_header"
"""Key in a run table's `attrs`: what the table itself calls the loss."""
MAX_TABLE_BYTES = 1 << 30
OVERFLOWED = "FLOPs are not positive, as when 6 N D overflows 64-bit integers"
EVALUATED_AGAIN = "the same run evaluated again"
FINITE = ("budget", "flops_6nd", "flops_with_head", "flops_exact", "flops_chinchilla", "params", "loss_se_mc")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def select(table: pd.DataFrame, keep: Any) -> pd.DataFrame:
    """The rows where `keep` (a boolean Series) holds, in a table of their own."""
    return cast(pd.DataFrame, table[keep]).reset_index(drop=True)


def usable_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that nothing excludes."""
    return select(runs, runs["excluded_reason"] == "")


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64, [n]."""
    return np.asarray(table[column], np.float64)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings."""
    names = [str(name) for name in table.columns]
    return [dict(zip(names, values, strict=True)) for values in table.itertuples(index=False, name=None)]


def read_runs(
    path: str | os.PathLike[str] | pd.DataFrame,
    columns: str | Mapping[str, str] | None = None,
    where: str | Sequence[str] = (),
    families: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The run table, one row a run, with the columns of `RunResult`; numbers are float64, text is str.

    Args:
        path: a sweep's directory (`plan.jsonl` and `runs/<run_id>/result.json`), a directory of runs, or a `.csv`,
            `.tsv`, `.jsonl` or `.parquet` file; or a table that is already loaded.
        columns: ours = theirs, as a mapping or as `"params_non_embedding=N,loss=val_loss"`. `"family==arm"` sets one
            value for all rows.
        where: conditions `column=value` for the rows to read, such as `"group=exact"`, see `analysis.runs.groups`.
        families: what the table calls "arm" and "mdm", such as {"arm": "AR", "mdm": "MDLM"}.

    Raises:
        ValueError: nothing to read at `path`, an unreadable table, a column that is missing (named, with the mapping),
            stands twice or holds no numbers, a family that no run is of, or a condition that no run meets.
    """
    source = "the table" if isinstance(path, pd.DataFrame) else str(path)
    table = path.copy() if isinstance(path, pd.DataFrame) else _read(as_path(path))
    if table.empty:
        raise ValueError(f"{source}: holds no runs")
    mapping, known = mapping_of(columns), dict(table.attrs)  # what an earlier reading of the table found
    full = choose(_typed(renamed(table, mapping, source), source, families), where)
    full["excluded_reason"] = best_lr_reasons(full)
    header = mapping.get("loss", "loss")
    full.attrs[LOSS_HEADER] = known.get(LOSS_HEADER, header) if header == "loss" else header
    full.attrs[UNREAD] = known.get(UNREAD, {}) | full.attrs[UNREAD]
    return full


def as_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The table as `read_runs` gives it, and as it is where it already comes from there.

    Every function that takes runs calls this, so that a table of the needed columns (`family`, `params_non_embedding`,
    `loss` and one of `tokens`, `budget` and `flops_6nd`) is enough.

    Raises:
        ValueError: a needed column lacks (it is named), or a table that `read_runs` refuses.
    """
    known = all(name in table for name in COLUMNS)
    floats = known and all(table[name].dtype == np.float64 for name in NUMERIC)
    return table if floats and not table[list(TEXT)].isna().to_numpy().any() else read_runs(table)


def _read(where: Path) -> pd.DataFrame:
    if where.is_dir():
        return pd.DataFrame(sweep_rows(where))
    if not where.exists():
        raise ValueError(f"{where}: no such file or directory")
    return _read_table(where)


def _read_table(file: Path) -> pd.DataFrame:
    suffix = file.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{file}: ends in {suffix or 'nothing'}; readable are {', '.join(TABLE_SUFFIXES)}")
    if file.stat().length > MAX_TABLE_BYTES:
        raise ValueError(f"{file}: larger than {MAX_TABLE_BYTES >> 20} MiB, which is no run table")
    raw = file.read_bytes()
    try:
        if suffix == ".parquet":
            from analysis.runs.parquet_table import read_parquet

            return read_parquet(raw)
        text = raw.decode("utf-8-sig")
        if suffix == ".jsonl":
            return pd.DataFrame([_object(number, line) for number, line in numbered_lines(text)])
        rows = pd.read_csv(io.StringIO(text), sep="," if suffix == ".csv" else "\t", dtype=str, header=None)
        return _headed(rows).map(unescaped, na_action="ignore")
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file}: not a readable {suffix} table ({reason})") from None


def _object(number: int, line: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        ValueError: the line, whose number is named, is none.
    """
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of more than 4300 digits is a ValueError
        raise ValueError(f"line {number}: not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise ValueError(f"line {number}: not a JSON object")
    return tree


def _headed(rows: pd.DataFrame) -> pd.DataFrame:
    """A table whose first row is its header; read as a row, a header that stands twice keeps its name."""
    table = rows.iloc[1:].reset_index(drop=True)
    table.columns = ["" if pd.isna(name) else str(name) for name in rows.iloc[0]]
    return table


def _typed(table: pd.DataFrame, source: str, families: Mapping[str, str] | None) -> pd.DataFrame:
    """All columns of the run table with their types; what follows from others is filled in."""
    columns: dict[str, Any] = {}  # one table of them all is a few blocks; a table that grows is a block for each
    unread: dict[str, tuple[int, int, str]] = {}
    text_in: dict[str, np.ndarray] = {}
    for name in COLUMNS:
        if name not in table:
            columns[name] = np.full(len(table), np.nan) if name in NUMERIC else [""] * len(table)
            continue
        given = _column(table, name)
        if name in NUMERIC:
            values, bad = read_numbers(given)
            columns[name] = values
            if bad.any():
                known = int(bad.sum() + (~np.isnan(values)).sum())
                unread[name] = (int(bad.sum()), known, printable(given[int(bad.argmax())])[:40])
                text_in[name] = bad
        else:
            columns[name] = [printable(value) for value in given.astype(object).where(given.notna(), "")]
    full = pd.DataFrame(columns, index=pd.RangeIndex(len(table)))
    check_read(unread, source)
    full.attrs[UNREAD] = unread
    full["family"] = rename_families(full["family"].str.lower(), families)
    for name in DECISIVE:
        if name in text_in:
            full.loc[text_in[name] & (full["excluded_reason"] == ""), "excluded_reason"] = not_a_number(name)
    if "status" not in table:
        full["status"] = Status.OK.value
    if "run_id" not in table:
        full["run_id"] = [f"row{number}" for number in range(1, len(full) + 1)]
    n, six_nd = full["params_non_embedding"], full["flops_6nd"].fillna(full["budget"])
    full["tokens"] = full["tokens"].fillna(six_nd / (6 * n))
    full["flops_6nd"] = full["flops_6nd"].fillna(6 * n * full["tokens"])
    full["flops_chinchilla"] = full["flops_chinchilla"].fillna(pd.Series(_chinchilla(full), dtype=np.float64))
    full["excluded_reason"] = _excluded_reasons(full, "run_id" in table)
    return full


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column with its numbers as they are, or else with its cells as Python objects."""
    cells = table[name].to_numpy()
    return pd.Series(cells, dtype=cells.dtype if cells.dtype.kind in "iuf" else object)


def _chinchilla(full: pd.DataFrame) -> list[float]:
    """FLOPs under `chinchilla`, which follow from a row's shape and tokens; nan where the table lacks these."""
    shapes = full[["n_layers", "d_model", "n_heads", "ffn", "vocab_size", "seq_len"]].to_numpy(np.float64)
    found = []
    for shape, tokens in zip(shapes, numbers(full, "tokens"), strict=True):
        known = np.isfinite(shape).all() and shape[-1] > 0
        sequence = chinchilla_forward_flops(*(int(value) for value in shape)) if known else np.nan
        found.append(3 * sequence * float(tokens / shape[-1]) if known else np.nan)
    return found


def _excluded_reasons(full: pd.DataFrame, named: bool) -> pd.Series:
    """Why each run is left out of the fits; empty for those that are used. `named`: the table gave the run ids."""
    reason = cast(pd.Series, full["excluded_reason"])
    contradicts = pd.Series(contradictions_within(full), dtype=object)
    checks = [
        (full["status"] != Status.OK.value, "status " + full["status"].replace("", "unknown")),
        (full["family"] == "", "no family"),
        (~np.isfinite(full["loss"]), "loss is not a finite number"),
        (full["loss"] <= 0, "loss is not positive"),
        (~(full["params_non_embedding"] > 0) | ~np.isfinite(full["params_non_embedding"]), "params is not positive"),
        (~(full["tokens"] > 0) | ~np.isfinite(full["tokens"]), "tokens is not positive"),
        ((full["budget"] <= 0) | (full["flops_6nd"] <= 0), OVERFLOWED),
        *((np.isinf(full[name]), f"{name} is infinite") for name in FINITE),
        (full["loss_se_mc"] < 0, "loss_se_mc is negative"),
        (contradicts != "", contradicts),
        (full.duplicated("run_id"), "duplicate run_id"),
    ]
    for bad, why in checks:
        if bad.any():
            reason = cast(pd.Series, reason.where(~bad | (reason != ""), why))
    return _without_copies(full, reason, named)


def _without_copies(full: pd.DataFrame, reason: pd.Series, named: bool) -> pd.Series:
    """The reasons, with those of rows that repeat an earlier usable run.

    A run is known by its seed: with the same one it is the same run, written twice or evaluated twice. Runs without a
    known seed may be repetitions even where their losses agree, unless nothing names them apart.
    """
    seeded = np.isfinite(numbers(full, "seed"))
    science = ["family", "group", "params_non_embedding", "tokens", "loss", "seed", "lr", "objective_variant"]
    for which, key, why in (
        (seeded | (not named), science, "duplicate of another run"),
        (seeded, [*CELL, "lr", "seed", "spec_hash"], EVALUATED_AGAIN),
    ):
        rows = select(full, which & (reason == ""))
        at = np.flatnonzero(which & (reason == ""))
        reason = reason.copy()
        reason.iloc[at[np.asarray(rows.duplicated(key))]] = why
    return reason
