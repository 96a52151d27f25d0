"""`report.html`: the folder's templates, filled with a report's numbers. Every string is escaped."""

import base64
import math
import re
from functools import cache

import jinja2
from markupsafe import Markup, escape

from analysis import wording
from analysis.checks.finding import Severity
from analysis.checks.holdout import summarise_runs
from analysis.gap.curve import GapCurve
from analysis.report.fits_json import versions
from analysis.report.headline import headline, ratio_text
from analysis.report.summary import Summary
from analysis.runs.columns import ROLES
from analysis.runs.load import records
from analysis.tables import QUANTITIES

FLAG = re.compile(r"--[a-z][a-z-]*(?: (?:ignore|cubic|equal|[0-9.]+|[A-Z]+|\w+=\w+)\b)?")
"""An option of a command line, with its value."""


def render(summary: Summary, figures: dict[str, bytes], command: str) -> str:
    """The whole report as one HTML document, which loads nothing and runs nothing.

    Args:
        summary: the numbers.
        figures: SVG by name.
        command: the command line that makes this report again.
    """
    severities = [finding.severity for finding in summary.findings]
    rows = summary.heldout.to_dict("records")
    heldout = [row for row in rows if row["quantity"] == "loss_opt"] + summarise_runs(rows)
    sources = {name: sorted(set(summary.runs[name]) - {""}) for name in ("git_sha", "versions", "device", "data_hash")}
    template = _environment().get_template("report.html.j2")
    return template.render(
        report=summary,
        figures=figures,
        command=command,
        headline=headline(summary),
        level=f"{100 * summary.level:g}%",
        width="wide" if len(summary.fit.families) > 1 else "narrow",
        severities=[wording.plural(severities.count(kind), kind.value) for kind in Severity if kind in severities],
        heldout=sorted(heldout, key=lambda row: wording.family_name(row["family"])),
        versions=versions(),
        sources={name: values[:6] for name, values in sources.items() if values},
    )


@cache
def _environment() -> jinja2.Environment:
    """The templates with what they call: numbers as people read them, and names in place of codes."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"CONVENTIONS": wording.CONVENTIONS, "LAWS": wording.LAWS, "MODEL_ERRORS": wording.MODEL_ERRORS}
    made.globals |= {"QUANTITIES": QUANTITIES, "LIKELIHOODS": wording.LIKELIHOODS}
    made.filters |= {
        "base64": lambda raw: base64.b64encode(raw).decode(),
        "code": with_code,
        "convention": wording.CONVENTIONS.__getitem__,
        "count": wording.count,
        "ends": lambda gap: ratio_text(gap).partition(" ")[2].strip("[]").replace(", ", " to "),
        "family": wording.family_name,
        "floors": _floors,
        "law": wording.LAWS.__getitem__,
        "missing": wording.missing_runs,
        "percent": lambda share: "–" if math.isnan(share) else f"±{wording.significant(100 * share, 2)}%",
        "ratio": ratio_text,
        "records": records,
        "scientific": wording.scientific,
        "signed": wording.signed,
        "significant": wording.significant,
        "span": lambda ends: "–" if math.isnan(ends[0]) else " to ".join(map(wording.significant, ends)),
        "whole": lambda value: "–" if math.isnan(value) else f"{value:,.0f}",
        "with_error": wording.with_error,
        "with_interval": wording.with_interval,
    }
    made.tests |= {"finite": math.isfinite, "nan": math.isnan}
    return made


def with_code(text: str) -> Markup:
    """The escaped text, in which options of a command line are code, so that none breaks over two lines."""
    return Markup(FLAG.sub(r"<code>\g<0></code>", str(escape(text))))


def _floors(gap: GapCurve) -> list[str]:
    """The floors that a law was given or found, with their intervals: none, one, or the ARM's and the MDM's."""
    if math.isnan(gap.floors[0]):
        return []
    pairs = zip(gap.floors, gap.floor_intervals, strict=True)
    said = [wording.with_interval(floor, *interval) for floor, interval in pairs]
    if len(set(said)) == 1:
        return said[:1]
    return [f"{wording.family_name(role)} {floor}" for role, floor in zip(ROLES, said, strict=True)]
