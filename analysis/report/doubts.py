"""The report's sections on what no interval holds: model error, and the sensitivity to an analyst's choices."""

import math
from html import escape

from analysis.checks.holdout import summarise_runs
from analysis.gap.sensitivity import UNDETERMINED
from analysis.report.html import pill, table
from analysis.report.summary import Summary
from analysis.runs.load import records
from analysis.wording import (
    CONVENTIONS,
    LAWS,
    MODEL_ERRORS,
    family_name,
    floors_text,
    scientific,
    significant,
    with_interval,
)


def model_error(summary: Summary) -> str:
    """Plain text: how far the laws part, and that no interval holds it."""
    said = (
        "Every interval here is statistical only. A law's interval says where that law's own line lies, not whether "
        "the law is true. "
    )
    if summary.model_spread is not None:
        low, high = summary.model_spread
        said += (
            f"At ten times the ARM's largest budget the laws give {significant(low)} to {significant(high)} under "
            f"{CONVENTIONS[summary.conventions[0]]}: model error is at least that "
            f"spread, a factor {significant(high / low, 2)}; what all these laws have wrong alike is not in it. "
        )
    loose = dict.fromkeys(LAWS[law] for (_, law), gap in summary.gaps.items() if gap.floor_undetermined)
    if loose:
        said += f"The minima do not determine the floor of these laws: {', '.join(loose)}. "
    for reason in dict.fromkeys(summary.no_parametric.values()):
        where = [CONVENTIONS[name] for name, why in summary.no_parametric.items() if why == reason]
        said += f"There is no parametric row under {', '.join(where)}: {reason}. "
    return said.strip()


def left_out(summary: Summary) -> str:
    """A list of what each law's interval does not hold."""
    laws = dict.fromkeys(law for _, law in summary.gaps)
    items = "".join(f"<li>{escape(LAWS[law])}: {escape(MODEL_ERRORS[law])}</li>" for law in laws)
    return f'<p class="muted">What each interval leaves out:</p><ul class="muted">{items}</ul>'


def sensitivity(summary: Summary) -> str:
    """The table of the gap at the headline's loss under every curve, law and convention; empty without a gap."""
    rows = records(summary.sensitivity)
    if not rows:
        return ""
    conventions = list(dict.fromkeys(row["convention"] for row in rows))
    choices = list(dict.fromkeys((row["curve"], row["law"]) for row in rows))
    by_choice = {(row["curve"], row["law"], row["convention"]): row for row in rows}
    body = []
    for curve, law in choices:
        cells = [_cell(by_choice[curve, law, convention]) for convention in conventions]
        body.append([escape(curve), escape(LAWS[law]), *cells])
    head = ["curve", "law", *(CONVENTIONS[convention] for convention in conventions)]
    ratios = [row["ratio"] for row in rows if math.isfinite(row["ratio"])]
    spans = f" They span {significant(min(ratios))} to {significant(max(ratios))}." if ratios else ""
    caption = (
        f"The same gap, at a loss of {summary.target:.3f}, by every IsoFLOP curve, law and FLOP convention.{spans} "
        "Akima goes through every run; its interval takes each family's noise from the residuals of this report's "
        "curves, or from seed replicates where there are any. The surface goes through all runs at once and is "
        "minimised at equal FLOPs of each convention, with FLOPs per token interpolated over the sizes that ran; the "
        "curves' minima are those at equal planned FLOPs, counted again."
    )
    return "<h3>Sensitivity to the analyst's choices</h3>" + table(head, body, text_columns=2, caption=caption)


def heldout(summary: Summary) -> str:
    """The table of what the smaller budgets say of each family's largest; empty where there are too few."""
    rows = records(summary.heldout)
    if not rows:
        return ""
    body = [_prediction(row) for row in rows if row["quantity"] == "loss_opt"]
    body += [_predictions(row) for row in summarise_runs(rows)]
    body.sort(key=lambda cells: cells[0])
    head = ["family", "law", "held-out budget", "predicted", "measured", "error (nats)", "interval", "inside"]
    caption = (
        f"Each family's largest budget, predicted from its smaller ones. Intervals are {summary.level:.0%} prediction "
        "intervals and suppose that the law is true: a measured loss outside them says that it is not. The parametric "
        "surface predicts every run of the budget; its error is their mean ± their root mean square."
    )
    return "<h3>Hold-out</h3>" + table(head, body, text_columns=2, caption=caption)


def _prediction(row: dict) -> list[str]:
    inside = {None: "–", True: "yes", False: "no"}[row["inside"]]
    ends = "–" if math.isnan(row["lower"]) else f"{row['lower']:.4f} to {row['upper']:.4f}"
    law = LAWS[row["law"]]
    if not math.isnan(row["floor"]):
        law += f" of {floors_text((row['floor'], row['floor']), row['floor_undetermined'])}"
    return [
        escape(family_name(row["family"])), escape(law), scientific(row["budget"]),
        f"{row['predicted']:.4f}", f"{row['observed']:.4f}", _signed(row["error_nats"]), ends, inside,
    ]  # fmt: skip


def _predictions(row: dict) -> list[str]:
    """The runs of one budget by the surface."""
    error = f"{_signed(row['bias_nats'])} ± {row['rms_nats']:.4f}"
    name = f"{LAWS['parametric']}, {row['runs']} runs"
    return [escape(family_name(row["family"])), escape(name), scientific(row["budget"]), "–", "–", error, "–",
            f"{row['inside']} of {row['runs']}"]  # fmt: skip


def _signed(nats: float) -> str:
    return f"{nats:+.4f}".replace("-", "−")


def _cell(row: dict) -> str:
    if not math.isfinite(row["ratio"]):
        return "–"
    mark = f" {pill('extrap.', 'extrapolated')}" if row["support"] == "extrapolated" else ""
    floors = floors_text((row["floor_arm"], row["floor_mdm"]), row["floor_status"] == UNDETERMINED)
    below = "" if floors == "–" else f"<br><small>floor {escape(floors)}</small>"
    return escape(with_interval(row["ratio"], row["lower"], row["upper"])) + mark + below
