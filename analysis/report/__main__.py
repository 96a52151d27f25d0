"""One self-contained page about a sweep: `python -m analysis.report DIR`.

It writes `report.html`, `fits.json` (all numbers), `run_table.csv` (the run table) and `figures/`.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.options import add_bootstrap, add_recipe, answer, families_of, new_parser, recipe_of
from analysis.sampling import DRAWS, LEVEL, SEED, UNIT

if TYPE_CHECKING:
    import pandas as pd

    from analysis.minima.cells import Recipe
    from analysis.report.summary import Summary
    from mdm_jax.storage import Path

TABLE = "run_table.csv"
"""The run table beside a report; it names the source of a table that was loaded."""


def write_report(
    source: "str | os.PathLike[str] | pd.DataFrame",
    out: str | os.PathLike[str] | None = None,
    n: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
    unit: str = UNIT,
    columns: str | Mapping[str, str] | None = None,
    recipe: "Recipe | None" = None,
    where: Sequence[str] = (),
    families: Mapping[str, str] | None = None,
) -> "tuple[Summary, Path]":
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
    from analysis.report.page import render
    from analysis.report.summary import as_json, summarise
    from analysis.runs.columns import columns_text
    from analysis.runs.load import read_runs
    from mdm_jax.results import escaped
    from mdm_jax.storage import as_path, write_atomic

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


def recipe_arguments(recipe: "Recipe") -> str:
    """What the command line needs to choose this recipe; empty for the usual one."""
    from analysis.minima.cells import Recipe
    from analysis.minima.presets import PRESETS

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


def draw(summary: "Summary", folder: str | os.PathLike[str]) -> dict[str, str]:
    """Writes all figures as SVG and PNG; the SVG texts by name."""
    from analysis.figures.diagnostics import plot_clouds, plot_residuals
    from analysis.figures.plots import plot_allocation, plot_gap, plot_isoflop, plot_loss
    from analysis.figures.style import save

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


def text_summary(summary: "Summary") -> str:
    """What the command line prints: the gap under each convention, usable budgets, findings."""
    from analysis.minima.scatter import scatter_said
    from analysis.report.page import headline, ratio_text

    lines = []
    for convention, gap in summary.headline.items():
        lines.append(f"gap at loss {gap.loss[0]:.3f}: {ratio_text(gap)} under {convention}, {gap.support[0]}")
    if not summary.overlap:
        lines.append(headline(summary))
    lines.append(f"budgets with a usable minimum: {summary.usable_budgets} of {len(summary.fit.cells)}")
    lines += scatter_said(summary.fit, summary.draws.unit)
    for finding in summary.findings:
        if finding.severity.value != "note":
            lines.append(f"{finding.severity.value}: {finding.message}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = new_parser(
        "analysis.report",
        "One self-contained page about a sweep: report.html, fits.json, run_table.csv and figures/.",
        runs="DIR",
    )
    made.add_argument("--out", metavar="DIR", help="folder to write to (default: the sweep's own)")
    add_recipe(made)
    add_bootstrap(made)
    return made


def report(given: argparse.Namespace) -> "tuple[Summary, Path]":
    """`write_report` as the options ask for it."""
    return write_report(
        given.runs, given.out, n=given.bootstrap, seed=given.seed, level=given.level, unit=given.unit,
        columns=given.columns, recipe=recipe_of(given), where=given.where, families=families_of(given),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 1 nothing to report on (one line on stderr says why)."""
    return answer(parser(), arguments, report, lambda made: f"{text_summary(made[0])}\n{made[1]}")


if __name__ == "__main__":
    sys.exit(main())
