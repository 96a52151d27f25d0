"""Tables for a terminal and for notebooks, with numbers as people read them."""

from typing import Any

import pandas as pd

from analysis.wording import (
    CONVENTIONS,
    LAWS,
    count,
    family_name,
    floors_text,
    scientific,
    signed,
    significant,
    with_error,
    with_interval,
)
from mdm_jax.command import aligned

QUANTITIES = {"loss_opt": "loss", "n_opt": "N*", "d_opt": "D*", "loss": "loss", "n": "N*", "d": "D*"}
QUANTITIES["run_loss"] = "runs' losses"
"""How tables name what a law predicts."""
Row = dict[str, Any]


def text_table(rows: list[dict[str, str]]) -> str:
    """Rows of text as a table of right-aligned columns."""
    return "\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)], left=()))


def html_table(rows: list[dict[str, str]]) -> str:
    """Rows of text as an HTML table, which a notebook shows for an object that ends a cell."""
    return pd.DataFrame(rows).to_html(index=False, border=0)


def _cell(row: Row) -> dict[str, str]:
    return {"family": family_name(row["family"]), "budget": scientific(row["budget"])}


def minimum_row(row: Row) -> dict[str, str]:
    """One of `IsoFlopFit.minima`."""
    loss, error = with_error(row["loss_opt"], row["loss_opt_se"]), significant(100 * row["n_opt_se"] / row["n_opt"], 2)
    state = {"status": row["status"].replace("_", " "), "sizes": str(row["n_sizes"])}
    return _cell(row) | state | {"loss": loss, "N*": count(row["n_opt"]), "± %": error, "D*": count(row["d_opt"])}


def drawn_minimum_row(row: Row) -> dict[str, str]:
    """A minimum with the intervals that a bootstrap's draws give it."""
    sizes = {name: "{} [{}, {}]".format(*map(count, row[of])) for name, of in (("N*", "n_opt"), ("D*", "d_opt"))}
    return _cell(row) | {"loss": with_interval(*row["loss_opt"], digits=4), **sizes, "lost draws": f"{row['lost']:.1%}"}


def law_row(row: Row) -> dict[str, str]:
    """A power law, with its exponent's interval."""
    law = {"family": family_name(row["family"]), "quantity": QUANTITIES[row["quantity"]]}
    exponent = with_interval(row["exponent"], row["lower"], row["upper"])
    return law | {"coefficient": significant(row["coefficient"], 4), "exponent": exponent, "dof": str(row["dof"])}


def surface_row(row: Row) -> dict[str, str]:
    """A parametric fit."""
    parameters = {name: significant(row[name], 4) for name in ("E", "A", "B", "alpha", "beta")}
    agree = f"{row['starts_agreeing']} of {row['starts']}"
    end = {"starts agree": agree, "converged": "yes" if row["converged"] else f"no: {row['reason']}"}
    exponent = {"N* exponent": significant(row["n_exponent"])}
    return {"family": family_name(row["family"]), "runs": str(row["runs"])} | parameters | exponent | end


def point_row(row: Row) -> dict[str, str]:
    """A point of the envelope."""
    point = {"family": family_name(row["family"]), "FLOPs": scientific(row["flops"]), "status": row["status"]}
    best = {"loss": significant(row["loss"], 4), "N": count(row["n"]), "D": count(row["d"]), "run": str(row["run_id"])}
    return point | best


def prediction_row(row: Row) -> dict[str, str]:
    """A held-out minimum and what a law said of it."""
    loss = row["quantity"] == "loss_opt"
    seen = {k: significant(row[k], 4) if loss else count(row[k]) for k in ("predicted", "observed")}
    floor = floors_text((row["floor"], row["floor"]), row["floor_undetermined"])
    law = {"quantity": QUANTITIES[row["quantity"]], "law": LAWS[row["law"]], "floor": floor}
    inside = {None: "–", True: "yes", False: "no"}[row["inside"]]
    return _cell(row) | law | seen | {"error %": significant(100 * row["error"], 2), "in interval": inside}


def heldout_row(row: Row) -> dict[str, str]:
    """The held-out runs of a budget and what the surface said of them."""
    errors = {"mean error, nats": signed(row["bias_nats"]), "rms error, nats": f"{row['rms_nats']:.4f}"}
    inside = f"{row['inside']} of {row['runs']}"
    return _cell(row) | {"runs": str(row["runs"])} | errors | {"in interval": inside}


def gap_row(row: Row) -> dict[str, str]:
    """A row of `gap_sensitivity`."""
    floor = floors_text((row["floor_arm"], row["floor_mdm"]), row["floor_status"] == "undetermined")
    choice = {"curve": row["curve"], "FLOPs": CONVENTIONS[row["convention"]], "law": LAWS[row["law"]], "floor": floor}
    ratio = with_interval(row["ratio"], row["lower"], row["upper"])
    return choice | {"loss": significant(row["loss"], 4), "MDM / ARM": ratio, "support": row["support"] or "none"}


ROWS = {
    "minima": minimum_row,
    "laws": law_row,
    "fits": surface_row,
    "points": point_row,
    "holdout": prediction_row,
    "heldout": heldout_row,
}
"""The row of each table that `python -m analysis.fit` prints."""


def gap_point_row(point: Any) -> dict[str, str]:
    """A `GapPoint`."""
    return {
        "law": LAWS[point.law],
        "FLOPs": CONVENTIONS[point.convention],
        "loss": significant(point.loss, 4),
        "C of the ARM": scientific(point.flops_arm),
        "C of the MDM": scientific(point.flops_mdm),
        "MDM / ARM": with_interval(point.ratio, point.lower, point.upper),
        "support": point.support,
    }


def finding_line(row: dict[str, Any]) -> str:
    """A finding and its remedy."""
    return f"{row['severity']}: {row['message']}. Remedy: {row['remedy']}."


def grave_lines(findings: list[dict[str, Any]]) -> list[str]:
    """Errors and warnings as lines, behind an empty one; none without them."""
    lines = [finding_line(row) for row in findings if row["severity"] != "note"]
    return ["", *lines] if lines else []
