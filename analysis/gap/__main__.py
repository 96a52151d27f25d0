"""The compute gap of a sweep: `python -m analysis.gap RUNS`."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from analysis.fit import add_recipe, aligned, recipe_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m analysis.gap",
        description="How many times the ARM's compute the MDM needs for the same loss: under every law, with its "
        "interval, and whether both families were measured there.",
    )
    made.add_argument("runs", metavar="RUNS", help="a sweep's directory, or a run table (.csv, .tsv, .jsonl, .parquet)")
    made.add_argument("--at", choices=("loss", "flops"), default="loss", help="what --where holds; flops are the ARM's")
    made.add_argument("--where", type=float, metavar="X", help="nats per token, or FLOPs (default: where both were "
                      "measured, or the ARM's largest budget)")  # fmt: skip
    made.add_argument("--floor", type=float, action="append", default=[], help="also with this floor; may be repeated")
    made.add_argument("--convention", action="append", help="smdm_6nd, with_head or exact; may be repeated")
    made.add_argument("--sensitivity", action="store_true", help="every curve and convention, not only the chosen ones")
    add_recipe(made)
    made.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="draws (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    made.add_argument("--level", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="all numbers as JSON in place of a table")
    return made


def rows_of(given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a choice, see `gap_sensitivity`.

    Raises:
        ValueError: nothing to read or to fit, no gap, or an argument out of range.
    """
    from analysis.curves import CURVES
    from analysis.frontier import FLOP_COLUMNS, flop_column
    from analysis.gap.sensitivity import DEFAULT_LAWS, gap_sensitivity
    from analysis.isoflop_fit import fit_recipe
    from analysis.load import read_runs, records
    from analysis.presets import PRESETS

    fit = fit_recipe(read_runs(given.runs, given.columns), recipe_of(given))
    absent = [family for family in ("arm", "mdm") if not len(fit.minima_of(family))]
    if absent:
        raise ValueError(f"no usable minimum of {', '.join(absent)}, so there is no gap; see python -m analysis.fit")
    conventions = given.convention or (list(FLOP_COLUMNS) if given.sensitivity else ["smdm_6nd"])
    for convention in conventions:
        flop_column(convention)
    laws = (PRESETS[given.preset].law,) if given.preset else (*DEFAULT_LAWS, "own_floors")
    curves = CURVES if given.sensitivity else (fit.curve,)
    sampling = {"draws": given.bootstrap, "seed": given.seed, "level": given.level}
    table = gap_sensitivity(fit, given.at, given.where, laws, given.floor, conventions, curves, **sampling)
    return records(table)


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, and why some hold nothing."""
    from analysis.wording import LAWS, significant, with_interval

    lines = [
        {
            "curve": row["curve"], "FLOPs": row["convention"], "law": LAWS[row["law"]],
            "floor": significant(row["floor"]), "loss": significant(row["loss"], 4),
            "MDM / ARM": with_interval(row["ratio"], row["lower"], row["upper"]), "support": row["support"] or "none",
        }
        for row in rows
    ]  # fmt: skip
    reasons = sorted({f"{LAWS[row['law']]}: {row['reason']}" for row in rows if row["reason"]})
    held = "Intervals are statistical only: a law's own error is in none of them; the rows' spread shows its size."
    return "\n".join([aligned(lines), "", held, *reasons])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 printed, 1 no gap (one line on stderr says why)."""
    given = parser().parse_args(arguments)
    try:
        rows = rows_of(given)
        if given.json:
            from analysis.summary import plain

            print(json.dumps(plain(rows), indent=1, allow_nan=False))
        else:
            print(text(rows))
    except (ValueError, OSError) as error:
        print(f"analysis.gap: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
