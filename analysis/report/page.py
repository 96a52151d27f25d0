"""The sections of `report.html`. Every string that comes from a run file is escaped."""

import base64
import math
from html import escape
from typing import Any

import numpy as np

from analysis.gap import EXTRAPOLATED, GapCurve
from analysis.minima.scatter import scatter_said
from analysis.report.doubts import heldout, left_out, model_error, sensitivity
from analysis.report.html import page, pill, table
from analysis.report.losses import loss_kind, losses_text
from analysis.report.summary import HEADLINE_CONVENTIONS, Summary, versions
from analysis.runs.load import records
from analysis.tables import QUANTITIES
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

RUN_COLUMNS = {
    "run_id": "run", "family": "family", "status": "status", "loss_kind": "kind of loss", "budget": "budget",
    "params_non_embedding": "N",
    "tokens": "D", "epochs": "epochs", "loss": "loss", "loss_se_mc": "± MC", "bits_per_byte": "bits/byte", "lr": "LR",
    "batch_size": "batch", "steps": "steps", "seed": "seed", "flops_exact": "exact FLOPs", "wall_seconds": "seconds",
    "device": "device", "git_sha": "commit", "excluded_reason": "left out because",
}  # fmt: skip

RESIDUALS_CAPTION = (
    "Residuals around the IsoFLOP curves; grey: two standard deviations. A shape that the budgets share is lack of "
    "fit, and moves the minima; scatter without one is noise, and is what the intervals include."
)
CLOUDS_CAPTION = (
    "Bootstrapped exponents of the power laws, with their 95% ellipse. p is of Welch's t-test that both families have "
    "one exponent, from the scatter of the minima around their lines. Straight lines through losses with a floor are "
    "steeper the higher the losses, so that families with equal laws differ where their losses do: the second p allows "
    "for a floor, the same for both."
)
CURVES_CAPTION = (
    "Loss against size, a curve for each budget. Diamonds are the minima with their {level} interval; hollow marks are "
    "runs left out; dashed curves have no usable minimum."
)
LOSS_CAPTION = (
    "Loss against compute. Solid: monotone cubic through the minima. Dashed: power law with its band. Dotted: both "
    "laws with one fitted floor. Bands and bars: {level}."
)
GAP_CAPTION = (
    "Gap against loss. Grey: losses that both families reach. Hatched: extrapolated. Laws with a fitted floor have "
    "their intervals in the table."
)
COUNTED = {"smdm_6nd": "counted as 6ND (smdm_6nd)", "exact": "counted exactly (exact)"}


def ratio_text(gap: GapCurve, index: int = 0) -> str:
    """15.2 [13.9, 16.8]."""
    return with_interval(float(gap.ratio[index]), float(gap.lower[index]), float(gap.upper[index]))


def headline(summary: Summary) -> str:
    """One sentence, plain text: the gap, its interval, at which loss, and whether both families were measured there."""
    if summary.target is None:
        return (
            "No compute gap: it needs two usable budgets of each family, and this sweep has " + _usable(summary) + "."
        )
    loss = f"{summary.target:.3f} nats per token"
    parts = [f"{ratio_text(g)} times the ARM's compute {COUNTED[c]}" for c, g in summary.headline.items()]
    if summary.overlap is None:
        return (
            f"The families were measured at no common loss, so no gap is measured. Extrapolated by two power laws to "
            f"{loss}, the MDM would need {', and '.join(parts)}{_others(summary)}."
        )
    bound = " (the MDM's is a bound)" if loss_kind(summary.runs, "mdm").startswith("NELBO") else ""
    return f"At a loss of {loss}{bound}, which both families reach, the MDM needs {', and '.join(parts)}."


def _others(summary: Summary) -> str:
    """What the other laws say of an extrapolated headline."""
    gaps = [gap for (_, law), gap in summary.gaps.items() if law != "power_law" and math.isfinite(gap.ratio[0])]
    if not gaps:
        return ""
    ratios = [float(gap.ratio[0]) for gap in gaps]
    floors = dict.fromkeys(floors_text(gap.floors, gap.floor_undetermined) for gap in gaps)
    return (
        f"; by laws with a floor {significant(min(ratios))} to {significant(max(ratios))} times "
        f"(floors: {'; '.join(floors)} nats)"
    )


def _usable(summary: Summary) -> str:
    return ", ".join(f"{len(summary.fit.minima_of(f))} of the {family_name(f)}" for f in ("arm", "mdm"))


def render(summary: Summary, figures: dict[str, str], command: str) -> str:
    """The whole report as one HTML document.

    Args:
        summary: the numbers.
        figures: SVG text by name.
        command: the command line that makes this report again.
    """
    level, wide = f"{100 * summary.level:g}%", len(summary.fit.families) > 1
    sections = [
        f"<h1>Compute gap report · {escape(summary.source)}</h1>",
        f'<p class="lead">{escape(headline(summary))}</p>',
        _cards(summary),
        _method(summary),
        "<h2>IsoFLOP curves</h2>",
        _figure(figures, "isoflop", CURVES_CAPTION.format(level=level), wide=wide),
        _minima(summary),
        _gaps(summary, figures),
        sensitivity(summary),
        heldout(summary),
        _findings(summary),
        _laws(summary, figures),
        _figure(figures, "residuals", RESIDUALS_CAPTION, wide=wide),
        _runs(summary),
        _reproduce(summary, command),
    ]
    return page(f"Compute gap: {summary.source}", "\n".join(part for part in sections if part))


def _cards(summary: Summary) -> str:
    cards = []
    for convention, gap in summary.headline.items():
        support = str(gap.support[0])
        value, _, interval = ratio_text(gap).partition(" ")
        interval = escape(interval.strip("[]").replace(", ", " to "))
        below = f"{interval}<br>MDM / ARM, {escape(CONVENTIONS[convention])}"
        cards.append((f"×{value}", f"{below}<br>{pill(support, support)}"))
    if summary.target is not None:
        shared = summary.overlap
        span = f"{shared[0]:.3f} – {shared[1]:.3f}" if shared else "none"
        cards.append((span, "losses that both families reach, nats per token"))
    cards.append((f"{summary.usable_budgets} of {len(summary.fit.cells)}", "budgets with a usable minimum"))
    cards.append((f"{summary.used_runs} of {len(summary.runs)}", "runs used"))
    doubts = [f.severity.value for f in summary.findings]
    kinds = [(doubts.count(kind), kind) for kind in ("error", "warning", "note")]
    said = [f"{number} {kind}{'s' * (number != 1)}" for number, kind in kinds if number]
    cards.append((str(len(doubts)), f'<a href="#findings">findings</a> {", ".join(said)}'))
    inner = [f'<div class="card"><b>{escape(big)}</b><span>{small}</span></div>' for big, small in cards]
    return f'<div class="cards">{"".join(inner)}</div>'


def _method(summary: Summary) -> str:
    draws = summary.draws
    what = {
        "run": "run errors: each run's loss is redrawn around its IsoFLOP curve and everything is fitted again",
        "budget": "budget errors: each minimum is redrawn around its family's power law",
    }[draws.unit]
    text = (
        f"Brackets are {summary.level:.0%} intervals from {draws.n} bootstrap draws of {what} (seed {draws.seed}). "
        "They are statistical only: what another recipe, tokenizer or corpus would change is not in them, and a law's "
        "interval does not contain the error of the law's form."
    )
    said = [losses_text(summary.runs), text, ". ".join([*scatter_said(summary.fit, summary.draws.unit), ""]).strip()]
    return "".join(f'<p class="muted">{escape(part)}</p>' for part in said if part)


def _findings(summary: Summary) -> str:
    if not summary.findings:
        return '<h2 id="findings">Findings</h2><p>None.</p>'
    items = "".join(
        f"<li>{pill(f.severity.value, f.severity.value)} {escape(f.message)}"
        f'<span class="remedy">{escape(f.remedy)}</span></li>\n'
        for f in summary.findings
    )
    return f'<h2 id="findings">Findings</h2><ul class="findings">{items}</ul>'


def _figure(figures: dict[str, str], name: str, caption: str, wide: bool = False) -> str:
    if name not in figures:
        return ""
    data = base64.b64encode(figures[name].encode()).decode()
    image = f'<img alt="{escape(caption, quote=True)}" src="data:image/svg+xml;base64,{data}">'
    kind = ' class="wide"' if wide else ""
    return f'<figure{kind}><div class="scroll">{image}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _minima(summary: Summary) -> str:
    head = ["family", "status", "kind", "budget", "sizes", "loss", "N*", "N* error", "D*", "D*/N*", "exact FLOPs",
            "noise sd"]  # fmt: skip
    rows: list[list[str] | str] = []
    for row in records(summary.fit.minima):
        status = str(row["status"])
        rows.append([
            escape(family_name(str(row["family"]))), pill(status.replace("_", " "), status),
            escape(loss_kind(summary.runs, str(row["family"]))), scientific(row["budget"]), str(row["n_sizes"]),
            with_error(row["loss_opt"], row["loss_opt_se"]),
            count(row["n_opt"]), _percent(row["n_opt_se"] / row["n_opt"]), count(row["d_opt"]),
            significant(row["d_opt"] / row["n_opt"]), scientific(row["flops_exact"]), significant(row["noise_sd"], 2),
        ])  # fmt: skip
        if row["reason"]:
            rows.append(escape(str(row["reason"])))
    unit = "log loss" if summary.fit.log_loss else "nats per token"
    caption = (
        "Minima of the fitted curves, ± one standard error; losses are nats per token (NELBO: a bound). Only those "
        "with status ok enter the laws and the gap. Noise sd is the scatter of the family's runs around their curves "
        f"beyond the evaluation's Monte Carlo error, in {unit}."
    )
    return table(head, rows, text_columns=3, caption=caption)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"±{significant(100 * share, 2)}%"


def _gaps(summary: Summary, figures: dict[str, str]) -> str:
    if summary.target is None:
        return ""
    parts = ["<h2>The compute gap</h2>", f"<p>{escape(_overlap_text(summary))}</p>"]
    parts.append(_pair(figures, "loss", LOSS_CAPTION.format(level=f"{100 * summary.level:g}%")))
    head = [
        "convention",
        "law",
        f"at loss {summary.target:.3f}",
        "at the ARM's largest budget",
        "at 10 × that",
        "floor",
    ]
    rows = []
    for (convention, law), gap in sorted(summary.gaps.items(), key=lambda item: summary.conventions.index(item[0][0])):
        beyond = summary.at_arm[convention, law]
        rows.append([escape(CONVENTIONS[convention]), escape(LAWS[law]), _supported(gap, 0), _supported(beyond, 0),
                     _supported(beyond, 1), _floor(gap)])  # fmt: skip
    caption = (
        "Compute ratio MDM / ARM at equal loss. Ratios without a mark lie where both families were measured; laws that "
        "agree there may part outside. Floors are nats per token, with 95% intervals from the scatter of the minima "
        "(of the surface: of its draws); undet.: the interval reaches 0 or the lowest loss, so that another floor "
        "would do as well, and the ratio beside it would be another."
    )
    parts.append(table(head, rows, text_columns=2, caption=caption))
    parts.append(f"<p>{escape(model_error(summary))}</p>" + left_out(summary))
    parts.append(_pair(figures, "gap", GAP_CAPTION))
    return "\n".join(parts)


def _pair(figures: dict[str, str], kind: str, caption: str) -> str:
    """The figures of one kind side by side, one for each FLOP convention drawn."""
    names = [f"{kind}_{convention}" for convention in HEADLINE_CONVENTIONS]
    drawn = [_figure(figures, name, caption) for name in names]
    return f'<div class="pair">{"".join(drawn)}</div>'


def _overlap_text(summary: Summary) -> str:
    arm, mdm = (summary.fit.frontier(family, summary.conventions[0]).loss_range for family in ("arm", "mdm"))
    text = f"The ARM's minima span losses {arm[0]:.3f} to {arm[1]:.3f}, the MDM's {mdm[0]:.3f} to {mdm[1]:.3f}. "
    if summary.overlap is None:
        return text + "They do not overlap: every ratio below is an extrapolation of at least one law."
    low, high = summary.overlap
    return text + f"Between {low:.3f} and {high:.3f} both were measured; only there is a ratio free of any law."


def _supported(gap: GapCurve, index: int) -> str:
    if not np.isfinite(gap.ratio[index]):
        return "–"
    mark = f" {pill('extrap.', EXTRAPOLATED)}" if gap.support[index] == EXTRAPOLATED else ""
    return escape(ratio_text(gap, index)) + mark


def _laws(summary: Summary, figures: dict[str, str]) -> str:
    if not summary.laws:
        return ""
    rows = []
    for law in summary.laws:
        rows.append([
            escape(CONVENTIONS[law.convention]), escape(family_name(law.family)), escape(QUANTITIES[law.quantity]),
            significant(law.coefficient, 4), significant(law.exponent), _interval(law.exponent_t), str(law.dof),
            _interval(law.exponent_bootstrap), _percent(law.residual_sd),
        ])  # fmt: skip
    head = ["convention", "family", "quantity", "coefficient", "exponent", "t interval", "dof", "bootstrap interval",
            "scatter"]  # fmt: skip
    caption = (
        "quantity = coefficient × C^exponent. The t interval takes the minima's scatter around the line (few degrees "
        "of freedom), the bootstrap the scatter of the runs."
    )
    drawn = _figure(figures, "allocation", "The best size and its training tokens against compute.", wide=True)
    drawn += _figure(figures, "clouds", CLOUDS_CAPTION, wide=True)
    return "<h2>Power laws</h2>" + drawn + table(head, rows, text_columns=3, caption=caption)


def _floor(gap: GapCurve) -> str:
    """The floor that a law was given or found, with its interval: one, or the ARM's and the MDM's."""
    if math.isnan(gap.floors[0]):
        return "–"
    both = zip(gap.floors, gap.floor_intervals, strict=True)
    known = [with_interval(floor, *interval) for floor, interval in both]
    return ", ".join(dict.fromkeys(known)) + (f" {pill('undet.', 'note')}" if gap.floor_undetermined else "")


def _interval(ends: tuple[float, float]) -> str:
    return "–" if math.isnan(ends[0]) else f"{significant(ends[0])} to {significant(ends[1])}"


def _runs(summary: Summary) -> str:
    rows = [[_run_cell(name, row) for name in RUN_COLUMNS] for row in records(summary.runs)]
    note = f"All {len(rows)} runs; run_table.csv has every column."
    return "<h2>Runs</h2>" + table(list(RUN_COLUMNS.values()), rows, text_columns=4, caption=note, tall=True)


def _run_cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if isinstance(value, str):
        if name == "status" and row["excluded_reason"]:
            return f'<span class="left-out">{escape(value)}</span>'
        return escape(value[:16] if name == "git_sha" else value[:200])
    if math.isnan(value):
        return "–"
    if name in ("budget", "flops_exact"):
        return scientific(value)
    if name in ("params_non_embedding", "tokens"):
        return count(value)
    if name in ("batch_size", "steps", "seed", "wall_seconds"):
        return f"{value:,.0f}"
    return significant(value, 4 if name in ("loss", "bits_per_byte") else 3)


def _reproduce(summary: Summary, command: str) -> str:
    lines = {name: sorted(set(summary.runs[name]) - {""}) for name in ("git_sha", "versions", "device", "data_hash")}
    said = [f"{name} of the runs: {', '.join(values[:6])}" for name, values in lines.items() if values]
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = "\n".join([command, "", f"# this report: {made}", *(f"# {line}" for line in said)])
    notes = (
        "fits.json beside this page holds all numbers, run_table.csv the runs, figures/ the pictures as SVG and PNG. "
        "Budgets are FLOPs as planned. The other conventions are read at the same minima: they say what the sizes that "
        "are best for the planned FLOPs cost when counted otherwise."
    )
    return f'<h2>How to reproduce this</h2><pre>{escape(text)}</pre><p class="muted">{escape(notes)}</p>'
