"""The compute gap of a sweep: `python -m analysis.gap RUNS`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from analysis.options import add_bootstrap, add_json, add_recipe, answer, new_parser, recipe_of, runs_of
from analysis.wording import LIKELIHOODS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = new_parser(
        "analysis.gap",
        "How many times the ARM's compute the MDM needs for the same loss: under every law, with its interval, and "
        "whether both families were measured there.",
    )
    made.add_argument(
        "--at",
        type=_place,
        default=("loss", None),
        metavar="loss|flops[=X]",
        help="loss=2.84 (nats per token) or flops=1e19 (of the ARM); alone: the middle of what both "
        "families measured, or the ARM's largest budget (default: loss)",
    )
    made.add_argument("--floor", type=float, action="append", default=[], help="also with this floor; may be repeated")
    made.add_argument("--convention", action="append", help="smdm_6nd, with_head, …; may be repeated")
    made.add_argument(
        "--likelihood",
        choices=LIKELIHOODS,
        default="nelbo",
        help="what the MDM's loss is, if the runs were evaluated by it (default: %(default)s, a bound)",
    )
    made.add_argument("--sensitivity", action="store_true", help="every curve and convention, not only the chosen ones")
    add_recipe(made)
    add_bootstrap(made)
    add_json(made)
    return made


def _place(text: str) -> tuple[str, float | None]:
    """(quantity, value or None) of loss, flops, loss=2.84 or flops=1e19."""
    quantity, _, value = text.partition("=")
    if quantity not in ("loss", "flops"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be loss or flops, or such as loss=2.84 or flops=1e19")
    try:
        return quantity, float(value) if value else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a number") from None


def tree_of(given: argparse.Namespace) -> dict[str, Any]:
    """`likelihood`, the MDM's; `gaps`, a row for each choice, see `gap_sensitivity`; `scatter`; and `findings`.

    Raises:
        ValueError: nothing to read or to fit, no gap, or an argument out of range.
    """
    from analysis.checks.disagreement import disagreements
    from analysis.checks.finding import in_order
    from analysis.checks.floors import undetermined_floors
    from analysis.checks.sweep import check
    from analysis.gap.laws import check_floor
    from analysis.gap.sensitivity import DEFAULT_LAWS, check_place, gap_sensitivity
    from analysis.laws.names import LawName
    from analysis.minima.bootstrap import bootstrap, check_draws
    from analysis.minima.choices import CURVES
    from analysis.minima.fit import fit_recipe
    from analysis.minima.presets import PRESETS
    from analysis.minima.scatter import scatter_said
    from analysis.runs.likelihoods import with_likelihood
    from analysis.runs.load import records
    from mdm_jax.files.results import flop_column

    at, where = given.at
    conventions = given.convention or (None if given.sensitivity else ["smdm_6nd"])
    for convention in conventions or ():
        flop_column(convention)
    if given.bootstrap:
        check_draws(given.bootstrap, given.level)
    runs = with_likelihood(runs_of(given), given.likelihood)
    fit = fit_recipe(runs, recipe_of(given))
    absent = [family for family in ("arm", "mdm") if not len(fit.minima_of(family))]
    if absent:
        there = ", ".join(fit.families)
        raise ValueError(
            f"no usable minimum of {', '.join(absent)}, so there is no gap; families with runs: {there}. Name yours by "
            "--arm NAME and --mdm NAME; python -m analysis.fit shows the minima"
        )
    check_place(fit, at, where)
    for floor in given.floor:
        check_floor((fit.frontier("arm"), fit.frontier("mdm")), floor)
    laws = (PRESETS[given.preset].law.value,) if given.preset else (*DEFAULT_LAWS, LawName.OWN_FLOORS.value)
    curves = CURVES if given.sensitivity else (fit.curve,)
    drawn = bootstrap(fit, given.unit, given.bootstrap, given.seed) if given.bootstrap else None
    rows = records(
        gap_sensitivity(fit, at, where, laws, given.floor, conventions, curves, drawn or 0, level=given.level)
    )
    if not any(row["ratio"] > 0 for row in rows):
        reasons = "; ".join(dict.fromkeys(row["reason"] for row in rows if row["reason"])) or "it lies beyond every law"
        raise ValueError(f"--at {at}{'' if where is None else f'={where:g}'}: no law gives a gap there: {reasons}")
    said = scatter_said(fit, given.unit) if drawn else []
    findings = in_order([*check(fit.runs, fit, drawn), *undetermined_floors(rows), *disagreements(rows, at)])
    told = [vars(finding) for finding in findings]
    return {"likelihood": given.likelihood, "gaps": rows, "scatter": said, "findings": told}


def text(tree: dict[str, Any]) -> str:
    """The rows as a table, the reasons of rows without a gap, and the findings but for notes."""
    from analysis.tables import gap_row, grave_lines, text_table
    from analysis.wording import LAWS

    rows, likelihood = tree["gaps"], tree["likelihood"]
    exact = [] if likelihood == "nelbo" else [f"The MDM's loss is an exact likelihood: {LIKELIHOODS[likelihood]}."]
    reasons = sorted({f"{LAWS[row['law']]}: {row['reason']}" for row in rows if row["reason"]})
    held = "Intervals are statistical only: a law's own error is in none of them; the rows' spread shows its size."
    table = text_table([gap_row(row) for row in rows])
    return "\n".join([table, "", *exact, held, *tree["scatter"], *reasons, *grave_lines(tree["findings"])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 printed, 1 no gap (one line on stderr says why)."""
    return answer(parser(), arguments, tree_of, text)


if __name__ == "__main__":
    sys.exit(main())
