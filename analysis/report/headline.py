"""The sentences that the page and the terminal share: the headline, and what the command line prints."""

import math

from analysis.checks.finding import Severity
from analysis.gap.curve import GapCurve
from analysis.laws.names import LawName
from analysis.report.summary import Summary
from analysis.runs.columns import ROLES
from analysis.wording import family_name, floors_text, significant, with_interval

COUNTED = {"smdm_6nd": "counted as 6ND (smdm_6nd)", "exact": "counted exactly (exact)"}


def ratio_text(gap: GapCurve, index: int = 0) -> str:
    """15.2 [13.9, 16.8], or – where the law gives no ratio."""
    ratio, lower, upper = (float(values[index]) for values in (gap.ratio, gap.lower, gap.upper))
    return with_interval(ratio, lower, upper) if math.isfinite(ratio) else "–"


def headline(summary: Summary) -> str:
    """One sentence, plain text: the gap, its interval, at which loss, and whether both families were measured there."""
    if summary.target is None:
        usable = [f"{len(summary.fit.minima_of(role))} of the {family_name(role)}" for role in ROLES]
        return f"No compute gap: it needs two usable budgets of each family, and this sweep has {', '.join(usable)}."
    loss = f"{summary.target:.3f} nats per token"
    gaps = [f"{ratio_text(gap)} times the ARM's compute {COUNTED[c]}" for c, gap in summary.headline.items()]
    if summary.overlap is None:
        return (
            f"The families were measured at no common loss, so no gap is measured. Extrapolated by two power laws to "
            f"{loss}, the MDM would need {', and '.join(gaps)}{_other_laws(summary)}."
        )
    bound = " (the MDM's is a bound)" if summary.losses.kinds["mdm"].startswith("NELBO") else ""
    return f"At a loss of {loss}{bound}, which both families reach, the MDM needs {', and '.join(gaps)}."


def _other_laws(summary: Summary) -> str:
    """The range of ratios under laws with a floor, for an extrapolated headline."""
    gaps = [gap for (_, law), gap in summary.gaps.items() if law != LawName.POWER_LAW and math.isfinite(gap.ratio[0])]
    if not gaps:
        return ""
    ratios = [float(gap.ratio[0]) for gap in gaps]
    floors = dict.fromkeys(floors_text(gap.floors, gap.floor_undetermined) for gap in gaps)
    return (
        f"; by laws with a floor {significant(min(ratios))} to {significant(max(ratios))} times "
        f"(floors: {'; '.join(floors)} nats)"
    )


def text_summary(summary: Summary) -> str:
    """What the command line prints: the gap under each convention, usable budgets, findings."""
    lines = [
        f"gap at loss {gap.loss[0]:.3f}: {ratio_text(gap)} under {convention}, {gap.support[0]}"
        for convention, gap in summary.headline.items()
    ]
    if not summary.overlap:
        lines.append(headline(summary))
    lines.append(f"budgets with a usable minimum: {summary.usable_budgets} of {len(summary.fit.cells)}")
    lines += summary.scatter_said
    grave = [finding for finding in summary.findings if finding.severity is not Severity.NOTE]
    return "\n".join([*lines, *(f"{finding.severity.value}: {finding.message}" for finding in grave)])
