"""Fit a sweep: `python -m analysis.fit RUNS --approach isoflop|parametric|envelope [--json]`."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

APPROACHES = ("isoflop", "parametric", "envelope")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m analysis.fit",
        description="Minima and laws of a sweep. Approaches: isoflop (a curve for each budget), parametric "
        "(L = E + A/N^alpha + B/D^beta through all runs), envelope (of the training curves).",
    )
    made.add_argument("runs", metavar="RUNS", help="a sweep's directory, or a run table (.csv, .tsv, .jsonl, .parquet)")
    made.add_argument("--approach", choices=APPROACHES, default="isoflop", help="default: %(default)s")
    add_recipe(made)
    made.add_argument(
        "--convention", default="smdm_6nd", help="FLOPs: smdm_6nd, with_head or exact (default: smdm_6nd)"
    )
    made.add_argument("--holdout", type=float, metavar="FLOPS", help="isoflop: fit up to this budget, predict above it")
    made.add_argument("--level", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="all numbers as JSON in place of tables")
    return made


def add_recipe(made: argparse.ArgumentParser) -> None:
    """Options that choose an IsoFLOP recipe, and the columns' mapping."""
    made.add_argument("--curve", choices=("quadratic", "cubic", "akima"), help="of loss in log x (default: quadratic)")
    made.add_argument("--x", choices=("params_non_embedding", "params", "tokens", "flops_per_token"), help="abscissa")
    made.add_argument("--log-loss", action="store_true", help="fit log loss in place of loss")
    made.add_argument("--window", type=float, metavar="FACTOR", help="only runs within this factor of the minimum")
    made.add_argument("--noise-sd", type=float, metavar="NATS", help="run-to-run sd of a loss, where it is known")
    made.add_argument("--preset", choices=("smdm",), help="a paper's own recipe, exactly")
    made.add_argument("--columns", metavar="OURS=THEIRS,…", help="map foreign columns: params_non_embedding=N,loss=val")


def recipe_of(given: argparse.Namespace) -> Any:
    """The `Recipe` that the options ask for.

    Raises:
        ValueError: a preset together with an option that would change it.
    """
    from analysis.cells import Recipe
    from analysis.presets import PRESETS

    asked: dict[str, Any] = {"x": given.x, "curve": given.curve, "window": given.window, "noise_sd": given.noise_sd}
    asked = {name: value for name, value in asked.items() if value is not None}
    if given.log_loss:
        asked["log_loss"] = True
    if given.preset and asked:
        raise ValueError(f"--preset {given.preset}: fixes the recipe, so leave out {', '.join(sorted(asked))}")
    return PRESETS[given.preset].recipe if given.preset else Recipe(**asked)


def fit_tree(given: argparse.Namespace) -> dict[str, Any]:
    """Everything the command line prints, as plain types; tables are lists of rows.

    Raises:
        ValueError: nothing to read or to fit, or options that contradict each other.
    """
    if not 0 < given.level < 1:
        raise ValueError(f"level = {given.level}: must be between 0 and 1")
    if given.holdout is not None and given.approach != "isoflop":
        raise ValueError("--holdout: goes with --approach isoflop")
    return {"isoflop": _isoflop, "parametric": _parametric, "envelope": _envelope}[given.approach](given)


def _isoflop(given: argparse.Namespace) -> dict[str, Any]:
    from analysis.bootstrap import fit_law
    from analysis.checks import check
    from analysis.holdout import holdout
    from analysis.isoflop_fit import fit_recipe
    from analysis.load import read_runs, records

    fit = fit_recipe(read_runs(given.runs, given.columns), recipe_of(given))
    laws = []
    for family in fit.families:
        for quantity in ("loss_opt", "n_opt", "d_opt"):
            law = fit_law(fit, family, quantity, given.convention)
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
    from analysis.load import read_runs, usable_runs
    from analysis.parametric import PARAMETERS, fit_parametric

    runs = read_runs(given.runs, given.columns)
    fits = []
    for family in sorted(set(usable_runs(runs)["family"])):
        fit = fit_parametric(runs, family=family)
        values = {name: getattr(fit, name) for name in PARAMETERS}
        how = {name: getattr(fit, name) for name in ("objective", "starts", "starts_agreeing", "converged", "reason")}
        fits.append({"family": family, "runs": len(fit.losses), **values, "n_exponent": fit.optimum.n_exponent, **how})
    return {"approach": "parametric", "fits": fits}


def _envelope(given: argparse.Namespace) -> dict[str, Any]:
    from analysis.envelope import fit_envelope
    from analysis.load import records
    from analysis.training_curves import read_curves

    envelope = fit_envelope(read_curves(given.runs), given.convention)
    laws = [{"family": f, "quantity": q, **_law(law, given.level)} for (f, q), law in envelope.laws.items()]
    for law in laws:  # neighbouring points share runs, so that the line's own scatter says too little
        law["lower"] = law["upper"] = float("nan")
    return {"approach": "envelope", "points": records(envelope.points), "laws": laws}


SHOWN = {
    "minima": ("family", "budget", "status", "n_sizes", "loss_opt", "loss_opt_se", "n_opt", "n_opt_se", "d_opt"),
    "points": ("family", "flops", "status", "loss", "n", "d", "run_id"),
    "holdout": ("family", "budget", "quantity", "law", "predicted", "observed", "error", "inside"),
    "findings": (),
}


def text(tree: dict[str, Any]) -> str:
    """Tables, and the findings as lines."""
    parts = []
    for name, rows in tree.items():
        if not isinstance(rows, list) or not rows:
            continue
        if name == "findings":
            parts.append("\n".join(f"{row['severity']}: {row['message']} — {row['remedy']}" for row in rows))
        else:
            parts.append(name + "\n" + aligned([{k: row[k] for k in SHOWN.get(name, row)} for row in rows]))
    return "\n\n".join(parts)


def aligned(rows: list[dict[str, Any]]) -> str:
    """Rows as a table of aligned columns."""
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if value != value else f"{value:.5g}"
    return str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 fitted, 1 nothing to fit (one line on stderr says why)."""
    given = parser().parse_args(arguments)
    try:
        tree = fit_tree(given)
        if given.json:
            from analysis.summary import plain

            print(json.dumps(plain(tree), indent=1, allow_nan=False))
        else:
            print(text(tree))
    except (ValueError, OSError) as error:
        print(f"analysis.fit: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
