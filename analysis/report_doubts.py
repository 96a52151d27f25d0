"""The report's sections on what no interval holds: model error, and the sensitivity to an analyst's choices."""

import math
from html import escape

from analysis.load import records
from analysis.report_style import pill, table
from analysis.summary import Summary
from analysis.wording import CONVENTIONS, LAWS, MODEL_ERRORS, significant, with_interval


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
            f"{CONVENTIONS[summary.conventions[0]]}: that spread, a factor {significant(high / low, 2)}, is model "
            "error. "
        )
    if summary.no_parametric:
        said += f"There is no parametric row: {summary.no_parametric}."
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
        "Akima goes through every run; its interval takes the noise that the parabolas' residuals tell."
    )
    return "<h3>Sensitivity to the analyst's choices</h3>" + table(head, body, text_columns=2, caption=caption)


def _cell(row: dict) -> str:
    if not math.isfinite(row["ratio"]):
        return "–"
    mark = f" {pill('extrap.', 'extrapolated')}" if row["support"] == "extrapolated" else ""
    return escape(with_interval(row["ratio"], row["lower"], row["upper"])) + mark
