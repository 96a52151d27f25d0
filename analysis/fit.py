"""Fit a sweep: `python -m analysis.fit RUNS --approach isoflop|parametric|envelope [--json]`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from analysis.options import (
    add_json,
    add_level,
    add_recipe,
    answer,
    families_of,
    new_parser,
    recipe_of,
    refuse_recipe,
    runs_of,
)

APPROACHES = ("isoflop", "parametric", "envelope")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = new_parser(
        "analysis.fit",
        "Minima and laws of a sweep. Approaches: isoflop (a curve for each budget), parametric "
        "(L = E + A/N^alpha + B/D^beta through all runs), envelope (of the training curves).",
    )
    made.add_argument("--approach", choices=APPROACHES, default="isoflop", help="default: %(default)s")
    add_recipe(made)
    made.add_argument("--convention", default="smdm_6nd", help="FLOPs: smdm_6nd, with_head, … (default: %(default)s)")
    made.add_argument("--weighted", action="store_true", help="weigh the minima in the laws by their standard errors")
    made.add_argument("--holdout", type=float, metavar="FLOPS", help="fit up to this budget, predict above it")
    add_level(made)
    add_json(made)
    return made


def fit_tree(given: argparse.Namespace) -> dict[str, Any]:
    """Everything the command line prints, as plain types; tables are lists of rows.

    Raises:
        ValueError: nothing to read or to fit, or options that contradict each other.
    """
    if not 0 < given.level < 1:
        raise ValueError(f"level = {given.level}: must be between 0 and 1")
    if given.holdout is not None and given.approach == "envelope":
        raise ValueError("--holdout: an envelope has no budgets; use --approach isoflop or parametric")
    if given.approach != "isoflop":
        if given.weighted:
            raise ValueError("--weighted: weighs IsoFLOP minima; leave it out, or use --approach isoflop")
        refuse_recipe(given, given.approach)
    if given.approach == "envelope" and (given.columns or families_of(given)):
        raise ValueError("--columns, --arm, --mdm: an envelope reads a sweep's own directory; leave them out")
    return {"isoflop": _isoflop, "parametric": _parametric, "envelope": _envelope}[given.approach](given)


def _isoflop(given: argparse.Namespace) -> dict[str, Any]:
    from analysis.checks.holdout import holdout
    from analysis.checks.sweep import check
    from analysis.minima.bootstrap import fit_law
    from analysis.minima.cells import QUANTITIES
    from analysis.minima.fit import fit_recipe
    from analysis.runs.load import records

    fit = fit_recipe(runs_of(given), recipe_of(given))
    laws = []
    for family in fit.families:
        for quantity in QUANTITIES:
            law = fit_law(fit, family, quantity, given.convention, given.weighted)
            if law is not None:
                laws.append({"family": family, "quantity": quantity, **_law(law, given.level)})
    tree = {"approach": "isoflop", "recipe": vars(fit.recipe), "minima": records(fit.minima), "laws": laws}
    if given.holdout is not None:
        tree["holdout"] = records(holdout(fit, given.holdout, given.convention, given.level))
    return tree | {"findings": [vars(finding) for finding in check(fit.runs, fit)]}


def _law(law: Any, level: float) -> dict[str, Any]:
    low, high = law.intervals(level)["exponent"]
    return {"coefficient": law.coefficient, "exponent": law.exponent, "lower": low, "upper": high, "dof": law.dof}


def _parametric(given: argparse.Namespace) -> dict[str, Any]:
    from analysis.checks.holdout import holdout, summarise_runs
    from analysis.checks.sweep import check
    from analysis.runs.load import records, usable_runs
    from analysis.surface.fit import PARAMETERS, fit_parametric

    runs = runs_of(given)
    fits, told, doubts, refusals = [], [], {}, []
    for family in sorted(set(usable_runs(runs)["family"])):
        try:
            fit = fit_parametric(runs, family=family)
        except ValueError as weak:  # too few runs or sizes; the other family's surface stands
            doubts[family] = str(weak)
            continue
        values = {name: getattr(fit, name) for name in PARAMETERS}
        how = {name: getattr(fit, name) for name in ("objective", "starts", "starts_agreeing", "converged", "reason")}
        fits.append({"family": family, "runs": len(fit.runs), **values, "n_exponent": fit.optimum.n_exponent, **how})
        if given.holdout is not None:
            try:
                told += records(holdout(fit, given.holdout, level=given.level))
            except ValueError as refusal:  # the other family may have runs on both sides
                refusals.append(str(refusal))
    if not fits:
        reasons = "; ".join(f"{family}: {why}" for family, why in doubts.items())
        raise ValueError(f"no family has a surface: {reasons or 'no usable run'}")
    if refusals and not told:
        raise ValueError("; ".join(refusals))
    held = {"heldout_runs": told, "heldout": summarise_runs(told)} if told else {}
    findings = [vars(finding) for finding in check(runs) if finding.severity.value != "note"]
    return {"approach": "parametric", "fits": fits, "without_surface": doubts, **held, "findings": findings}


def _envelope(given: argparse.Namespace) -> dict[str, Any]:
    from analysis.laws.envelope import fit_envelope
    from analysis.runs.load import records
    from analysis.runs.training_curves import read_curves

    envelope = fit_envelope(read_curves(given.runs, given.where), given.convention)
    laws = [{"family": f, "quantity": q, **_law(law, given.level)} for (f, q), law in envelope.laws.items()]
    for law in laws:  # neighbouring points share runs, so that the line's own scatter says too little
        law["lower"] = law["upper"] = float("nan")
    return {"approach": "envelope", "points": records(envelope.points), "laws": laws}


def text(tree: dict[str, Any]) -> str:
    """Tables, and the findings as lines."""
    from analysis import tables

    filled = {name: row_of for name, row_of in tables.ROWS.items() if tree.get(name)}
    parts = [f"{name}\n{tables.text_table([row_of(row) for row in tree[name]])}" for name, row_of in filled.items()]
    parts += ["\n".join(f"{name}: no surface: {why}" for name, why in tree.get("without_surface", {}).items())]
    parts += ["\n".join(tables.finding_line(row) for row in tree.get("findings", []))]
    return "\n\n".join(part for part in parts if part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 fitted, 1 nothing to fit (one line on stderr says why)."""
    return answer(parser(), arguments, fit_tree, text)


if __name__ == "__main__":
    sys.exit(main())
