"""The files of a report: `report.html`, `fits.json` (all numbers), `run_table.csv` (the run table) and `figures/`."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.figures.diagnostics import plot_clouds, plot_residuals
from analysis.figures.plots import plot_allocation, plot_gap, plot_isoflop, plot_loss
from analysis.figures.style import save
from analysis.minima.cells import Recipe
from analysis.minima.presets import PRESETS
from analysis.report.page import render
from analysis.report.summary import Summary, as_json, summarise
from analysis.runs.columns import columns_text
from analysis.runs.load import read_runs
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT
from mdm_jax.files.storage import Path, as_path, write_atomic
from mdm_jax.results import escaped

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
    runs = read_runs(root if on_disk else source, columns, where, families)
    folder = as_path(out) if out is not None else root if root.is_dir() else root.parent / f"{root.stem}-report"
    name = " ".join([root.name or str(root), *where])
    summary = summarise(runs, n=n, seed=seed, level=level, unit=unit, source=name, recipe=recipe)
    figures = draw(summary, folder / "figures")
    write_atomic(folder / "fits.json", json.dumps(as_json(summary), indent=1, allow_nan=False) + "\n")
    table = summary.runs.map(escaped)
    write_atomic(folder / TABLE, table.to_csv(index=False, lineterminator="\n"))
    command = f"python -m analysis.report {shlex.quote(root.name)} --bootstrap {n} --seed {seed} --level {level:g}"
    command += f" --unit {unit}" if unit != UNIT else ""
    command += recipe_arguments(summary.fit.recipe)
    command += f" --columns {shlex.quote(columns_text(columns))}" if columns else ""
    command += "".join(f" --{role} {shlex.quote(name)}" for role, name in (families or {}).items())
    command += "".join(f" --where {shlex.quote(condition)}" for condition in where)
    write_atomic(folder / "report.html", render(summary, figures, command))
    return summary, folder / "report.html"


def recipe_arguments(recipe: Recipe) -> str:
    """What the command line needs to choose this recipe; empty for the usual one."""
    for name, preset in PRESETS.items():
        if recipe == preset.recipe:
            return f" --preset {name}"
    usual, said = Recipe(), ""
    for field in ("curve", "x", "window", "weights", "scatter"):
        value = getattr(recipe, field)
        said += f" --{field} {value}" if value != getattr(usual, field) else ""
    if isinstance(recipe.noise_sd, Mapping):
        said += " --noise-sd " + ",".join(f"{family}={sd}" for family, sd in recipe.noise_sd.items())
    elif recipe.noise_sd is not None:
        said += f" --noise-sd {recipe.noise_sd}"
    return said + (" --log-loss" if recipe.log_loss else "")


def draw(summary: Summary, folder: str | os.PathLike[str]) -> dict[str, str]:
    """Writes all figures as SVG and PNG; the SVG texts by name."""
    fit, draws, level = summary.fit, summary.draws, summary.level
    figures = {"isoflop": plot_isoflop(fit, level)}
    for convention in summary.headline:
        point = summary.gaps.get((convention, "interpolated"))
        figures[f"loss_{convention}"] = plot_loss(fit, convention, draws, point, level)
        figures[f"gap_{convention}"] = plot_gap([g for (c, _), g in summary.curves.items() if c == convention])
    if summary.laws:
        figures["allocation"] = plot_allocation(fit, "smdm_6nd", draws, level)
    doubts = {"residuals": plot_residuals(fit), "clouds": plot_clouds(fit, draws)}
    figures |= {name: figure for name, figure in doubts.items() if figure is not None}
    return {name: save(figure, folder, name) for name, figure in figures.items()}
