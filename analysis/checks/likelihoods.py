"""The other likelihoods of the MDM: runs that lack one, likelihoods without a gap, and losses in another unit."""

import dataclasses

from analysis.checks.finding import Finding, Severity
from analysis.checks.loss_units import loss_unit_findings
from analysis.gap.likelihoods import LikelihoodGaps
from analysis.runs.likelihoods import NOT_EVALUATED
from analysis.wording import LIKELIHOODS, missing_runs
from mdm_jax.files.results import LIKELIHOOD_COLUMNS


def likelihood_findings(gaps: LikelihoodGaps | None) -> list[Finding]:
    """Findings about the likelihoods beside the NELBO; none if `gaps` is None."""
    if gaps is None:
        return []
    out, known = list[Finding](), loss_unit_findings(gaps.fits[0].fit.runs)
    for one in gaps.fits[1:]:
        if one.left_out:
            out.append(_partly(one.likelihood, one.left_out, "its gap is of other runs than the NELBO's"))
        for found in loss_unit_findings(one.fit.runs):
            if found not in known:
                message = f"{LIKELIHOODS[one.likelihood]}: {found.message}"
                out.append(dataclasses.replace(found, message=message))
    for name, refusal in gaps.refused.items():
        if refusal.left_out:
            out.append(_partly(name, refusal.left_out, f"it has no gap ({refusal.reason})"))
        else:
            message = f"{LIKELIHOODS[name]}: no gap, {refusal.reason}"
            remedy = "run sizes on both sides of its minima, or add budgets"
            out.append(Finding(Severity.WARNING, "no_likelihood_gap", message, 0.0, remedy))
    return out


def _partly(name: str, left_out: dict[str, str], effect: str) -> Finding:
    """A likelihood that some usable MDM runs do not have, and what follows."""
    missing = NOT_EVALUATED in left_out.values()
    evaluate = f"evaluate them: python -m mdm_jax.evaluate.likelihood DIR --likelihoods {name}"
    remedy = evaluate if missing else f"give nats per token in {LIKELIHOOD_COLUMNS[name][0]}"
    message = f"{LIKELIHOODS[name]}: {missing_runs(left_out)}; {effect}"
    return Finding(Severity.WARNING, "partly_evaluated", message, float(len(left_out)), remedy)
