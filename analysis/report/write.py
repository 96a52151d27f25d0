"""The files of a report: `report.html`, `fits.json` (all numbers), `run_table.csv` (the run table) and `figures/`."""

import json
import os
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.figures.allocation import plot_allocation
from analysis.figures.clouds import plot_clouds
from analysis.figures.gap import plot_gap
from analysis.figures.isoflop import plot_isoflop
from analysis.figures.loss import plot_loss
from analysis.figures.residuals import plot_residuals
from analysis.figures.style import Picture, save
from analysis.minima.cells import Recipe
from analysis.report.command import report_command
from analysis.report.fits_json import as_json
from analysis.report.page import render
from analysis.report.summary import Summary, summarise
from analysis.runs.load import read_runs
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT
from mdm_jax.results import escaped
from mdm_jax.storage import Path, as_path, write_atomic

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
    """The report's numbers and the path of its `report.html`.

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
    figures = {name: save(figure, folder / "figures", name) for name, figure in draw(summary).items()}
    write_atomic(folder / "fits.json", json.dumps(as_json(summary), indent=1, allow_nan=False) + "\n")
    write_atomic(folder / TABLE, summary.runs.map(escaped).to_csv(index=False, lineterminator="\n"))
    write_atomic(folder / "report.html", render(summary, figures, command))
    return summary, folder / "report.html"


def draw(summary: Summary) -> dict[str, Picture]:
    """The report's figures by the names of their files."""
    fit, draws, level = summary.fit, summary.draws, summary.level
    drawn: dict[str, Picture | None] = {"isoflop": plot_isoflop(fit, level)}
    for convention in summary.headline:
        point = summary.gaps.get((convention, "interpolated"))
        drawn[f"loss_{convention}"] = plot_loss(fit, convention, draws, point, level)
        drawn[f"gap_{convention}"] = plot_gap([gap for (c, _), gap in summary.curves.items() if c == convention])
    if summary.laws:
        drawn["allocation"] = plot_allocation(fit, "smdm_6nd", draws, level)
    drawn |= {"residuals": plot_residuals(fit), "clouds": plot_clouds(fit, draws)}
    return {name: figure for name, figure in drawn.items() if figure is not None}
