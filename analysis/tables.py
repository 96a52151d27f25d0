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
    significant,
    with_error,
    with_interval,
)

QUANTITIES = {
    "loss_opt": "loss", "n_opt": "N*", "d_opt": "D*", "loss": "loss", "n": "N*", "d": "D*", "run_loss": "runs' losses",
}  # fmt: skip
"""How tables name what a law predicts."""


def aligned(rows: list[dict[str, str]]) -> str:
    """Rows of text as a table of aligned columns."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def html_table(rows: list[dict[str, str]]) -> str:
    """Rows of text as an HTML table, which a notebook shows for an object that ends a cell."""
    return pd.DataFrame(rows).to_html(index=False, border=0)


def titled(title: str, rows: list[dict[str, str]]) -> str:
    """A table under its name."""
    return f"{title}\n{aligned(rows)}"


def minimum_row(row: dict[str, Any]) -> dict[str, str]:
    """One of `IsoFlopFit.minima`."""
    return {
        "family": family_name(row["family"]), "budget": scientific(row["budget"]),
        "status": row["status"].replace("_", " "), "sizes": str(row["n_sizes"]),
        "loss": with_error(row["loss_opt"], row["loss_opt_se"]), "N*": count(row["n_opt"]),
        "± %": significant(100 * row["n_opt_se"] / row["n_opt"], 2), "D*": count(row["d_opt"]),
    }  # fmt: skip


def drawn_minimum_row(row: dict[str, Any]) -> dict[str, str]:
    """A minimum with the intervals that a bootstrap's draws give it."""
    return {
        "family": family_name(row["family"]),
        "budget": scientific(row["budget"]),
        "loss": with_interval(*row["loss_opt"], digits=4),
        **{name: "{} [{}, {}]".format(*map(count, row[of])) for name, of in (("N*", "n_opt"), ("D*", "d_opt"))},
        "lost draws": f"{row['lost']:.1%}",
    }


def law_row(row: dict[str, Any]) -> dict[str, str]:
    """A power law, with its exponent's interval."""
    return {
        "family": family_name(row["family"]), "quantity": QUANTITIES[row["quantity"]],
        "coefficient": significant(row["coefficient"], 4),
        "exponent": with_interval(row["exponent"], row["lower"], row["upper"]), "dof": str(row["dof"]),
    }  # fmt: skip


def surface_row(row: dict[str, Any]) -> dict[str, str]:
    """A parametric fit."""
    return {
        "family": family_name(row["family"]), "runs": str(row["runs"]),
        **{name: significant(row[name], 4) for name in ("E", "A", "B", "alpha", "beta")},
        "N* exponent": significant(row["n_exponent"]), "starts agree": f"{row['starts_agreeing']} of {row['starts']}",
        "converged": "yes" if row["converged"] else f"no: {row['reason']}",
    }  # fmt: skip


def point_row(row: dict[str, Any]) -> dict[str, str]:
    """A point of the envelope."""
    return {
        "family": family_name(row["family"]), "FLOPs": scientific(row["flops"]), "status": row["status"],
        "loss": significant(row["loss"], 4), "N": count(row["n"]), "D": count(row["d"]), "run": str(row["run_id"]),
    }  # fmt: skip


def prediction_row(row: dict[str, Any]) -> dict[str, str]:
    """A held-out minimum and what a law said of it."""
    loss = row["quantity"] == "loss_opt"
    predicted, observed = (significant(row[k], 4) if loss else count(row[k]) for k in ("predicted", "observed"))
    inside = {None: "–", True: "yes", False: "no"}[row["inside"]]
    return {
        "family": family_name(row["family"]), "budget": scientific(row["budget"]),
        "quantity": QUANTITIES[row["quantity"]], "law": LAWS[row["law"]],
        "floor": floors_text((row["floor"], row["floor"]), row["floor_undetermined"]), "predicted": predicted,
        "observed": observed, "error %": significant(100 * row["error"], 2), "in interval": inside,
    }  # fmt: skip


def heldout_row(row: dict[str, Any]) -> dict[str, str]:
    """The held-out runs of a budget and what the surface said of them."""
    return {
        "family": family_name(row["family"]), "budget": scientific(row["budget"]), "runs": str(row["runs"]),
        "mean error, nats": f"{row['bias_nats']:+.4f}".replace("-", "−"), "rms error, nats": f"{row['rms_nats']:.4f}",
        "in interval": f"{row['inside']} of {row['runs']}",
    }  # fmt: skip


def gap_row(row: dict[str, Any]) -> dict[str, str]:
    """A row of `gap_sensitivity`."""
    return {
        "curve": row["curve"], "FLOPs": CONVENTIONS[row["convention"]], "law": LAWS[row["law"]],
        "floor": floors_text((row["floor_arm"], row["floor_mdm"]), row["floor_status"] == "undetermined"),
        "loss": significant(row["loss"], 4),
        "MDM / ARM": with_interval(row["ratio"], row["lower"], row["upper"]), "support": row["support"] or "none",
    }  # fmt: skip


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
