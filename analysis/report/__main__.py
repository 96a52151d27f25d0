"""One self-contained page about a sweep: `python -m analysis.report DIR`.

It writes `report.html`, `fits.json` (all numbers), `run_table.csv` (the run table) and `figures/`.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.options import add_bootstrap, add_recipe, answer, families_of, new_parser, recipe_of

if TYPE_CHECKING:
    from analysis.report.summary import Summary
    from mdm_jax.files.storage import Path


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
    from analysis.report.write import write_report

    return write_report(
        given.runs, given.out, n=given.bootstrap, seed=given.seed, level=given.level, unit=given.unit,
        columns=given.columns, recipe=recipe_of(given), where=given.where, families=families_of(given),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 1 nothing to report on (one line on stderr says why)."""
    return answer(parser(), arguments, report, lambda made: f"{text_summary(made[0])}\n{made[1]}")


if __name__ == "__main__":
    sys.exit(main())
