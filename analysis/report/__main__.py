"""One self-contained page about a sweep: `python -m analysis.report DIR`.

It writes `report.html`, `fits.json` (all numbers), `run_table.csv` (the run table) and `figures/`.
"""

import argparse
import sys
from collections.abc import Sequence

from analysis.options import add_bootstrap, add_recipe, answer, families_of, new_parser, recipe_of


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


def report(given: argparse.Namespace) -> str:
    """Writes the report that the options ask for; its summary, and the path of its page in the last line."""
    from analysis.report.headline import text_summary
    from analysis.report.write import write_report

    asked = {"n": given.bootstrap, "seed": given.seed, "level": given.level, "unit": given.unit, "where": given.where}
    recipe, families = recipe_of(given), families_of(given)
    summary, page = write_report(
        given.runs, given.out, columns=given.columns, recipe=recipe, families=families, **asked
    )
    return f"{text_summary(summary)}\n{page}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 1 nothing to report on (one line on stderr says why), 130 stopped by Ctrl-C."""
    return answer(parser(), arguments, report, str)


if __name__ == "__main__":
    sys.exit(main())
