"""Likelihoods by which only some of the MDM's runs were evaluated: their gap is of other runs than the NELBO's."""

from analysis.checks.finding import Finding, Severity
from analysis.gap.likelihoods import LikelihoodGaps
from analysis.wording import LIKELIHOODS


def likelihood_findings(gaps: LikelihoodGaps | None) -> list[Finding]:
    """A warning for each likelihood that some usable MDM runs do not have; none if `gaps` is None."""
    if gaps is None:
        return []
    found = [(one.likelihood, one.left_out, "its gap is of other runs than the NELBO's") for one in gaps.fits]
    found += [(name, reason, "it has no gap") for name, reason in gaps.refused.items()]
    out = []
    for name, reason, effect in (row for row in found if row[1]):
        missing = gaps.fits[0].runs - sum(one.runs for one in gaps.fits if one.likelihood == name)
        remedy = f"evaluate them: python -m mdm_jax.evaluate.likelihood DIR --likelihoods {name}"
        message = f"{LIKELIHOODS[name]}: {reason}; {effect}"
        out.append(Finding(Severity.WARNING, "partly_evaluated", message, float(missing), remedy))
    return out
