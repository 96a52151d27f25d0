"""The files of a report: `report.html`, `fits.json` (all numbers), `run_table.csv` (the run table) and `figures/`."""

import json
import os
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.minima.cells import Recipe
from analysis.report.command import report_command
from analysis.report.figures import draw
from analysis.report.fits_json import as_json
from analysis.report.page import render
from analysis.report.summary import Summary, summarise
from analysis.runs.load import read_runs
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT
from mdm_jax.files.results import escaped
from mdm_jax.files.storage import Path, as_path, write_atomic

TABLE = "run_table.csv"
"""The run table beside a report; it names the source of a table that was loaded."""


def write_report(
    source: str | os.PathLike[str] | pd.DataFrame,
    out: str | os.PathLike[str] | None = None,
    n: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
    unit: str = UNIT,
    columns: str | Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    where: Sequence[str] = (),
    families: Mapping[str, str] | None = None,
) -> tuple[Summary, Path]:
    """The report's numbers and the path of its `report.html`, which is written last, when all else is there.

    Args:
        source: a sweep's directory, a run table (CSV, TSV, JSONL, Parquet), or a table that is loaded, with `out`.
        out: folder to write to; by default the sweep's directory, or `<table>-report` beside a table.
        n: bootstrap draws.
        seed: of the bootstrap.
        level: of all intervals.
        unit: what the bootstrap perturbs, "run" or "budget".
        columns: mapping of foreign column names, see `read_runs`.
        recipe: of the IsoFLOP curves; None for the usual one.
        where: which runs to report on, see `read_runs`.
        families: what the table calls "arm" and "mdm", see `read_runs`.

    Raises:
        ValueError: nothing to read or to fit, or an argument out of range.
        OSError: the folder cannot be written.
    """
    on_disk = isinstance(source, str | os.PathLike)
    if not on_disk and out is None:
        raise ValueError("out: must name a folder, because a table that is loaded has no place of its own")
    root = as_path(source if on_disk else TABLE)
    folder = as_path(out) if out is not None else root if root.is_dir() else root.parent / f"{root.stem}-report"
    runs = read_runs(root if on_disk else source, columns, where, families)
    name = " ".join([root.name or str(root), *where])
    summary = summarise(runs, n=n, seed=seed, level=level, unit=unit, source=name, recipe=recipe)
    command = report_command(root.name, summary.draws, level, summary.fit.recipe, columns, families, where)
    table = summary.runs.map(escaped).to_csv(index=False, lineterminator="\n")
    fits = json.dumps(as_json(summary), indent=1, allow_nan=False) + "\n"
    figures = draw(summary)
    page = render(summary, {name: forms["svg"] for name, forms in figures.items()}, command)
    drawn = {f"figures/{name}.{form}": raw for name, forms in figures.items() for form, raw in forms.items()}
    for name, content in (drawn | {TABLE: table, "fits.json": fits, "report.html": page}).items():
        write_atomic(folder / name, content)
    return summary, folder / "report.html"
