"""`fits.json`: all numbers of a report, for programs."""

import importlib.metadata
import platform
from typing import Any

import numpy as np

from analysis.gap.curve import GapCurve
from analysis.gap.likelihoods import LikelihoodGaps
from analysis.options import plain
from analysis.report.summary import Summary

SCHEMA_VERSION = 1
PACKAGES = ("mdm-jax", "numpy", "scipy", "pandas", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found


def as_json(summary: Summary) -> dict[str, Any]:
    """All numbers as plain JSON types; unknown ones are null, and an interval's open end is "inf" or "-inf"."""
    draws = summary.draws
    tree = {
        "schema_version": SCHEMA_VERSION,
        "source": summary.source,
        "versions": versions(),
        "bootstrap": {"unit": draws.unit, "draws": draws.n, "seed": draws.seed, "level": summary.level},
        "fit": vars(summary.fit.recipe),
        "conventions": list(summary.conventions),
        "overlap_loss": summary.overlap,
        "headline": {"loss": summary.target, "gap": {c: _point(g) for c, g in summary.headline.items()}},
        "gap_at_headline_loss": [_point(gap) for gap in summary.gaps.values()],
        "gap_at_arm_flops": [gap.as_dict() for gap in summary.at_arm.values()],
        "gap_curves": [gap.as_dict() for gap in summary.curves.values()],
        "model_spread_at_ten_times_the_arms_largest_budget": summary.model_spread,
        "no_parametric_gap_because": summary.no_parametric,
        "holdout": summary.heldout.to_dict("records"),
        "sensitivity": summary.sensitivity.to_dict("records"),
        "minima": summary.fit.minima.to_dict("records"),
        "coefficients": summary.fit.coefficients.to_dict("records"),
        "scatter": {family: vars(side) | {"p": side.p} for family, side in summary.scatter.items()},
        "likelihoods": _likelihoods(summary.likelihoods),
        "noise": {family: vars(noise) for family, noise in summary.fit.noise.items()},
        "laws": [vars(row) for row in summary.laws],
        "lost_draws": {f: {"lost": d.lost, "outside": d.outside} for f, d in draws.families.items()},
        "findings": [vars(finding) for finding in summary.findings],
        "runs": {"all": len(summary.runs), "used": summary.used_runs},
    }
    return plain(tree)


def _likelihoods(gaps: LikelihoodGaps | None) -> dict[str, Any] | None:
    """The gap under each likelihood; None if the runs have only their loss."""
    if gaps is None:
        return None
    return {
        "gap_at_own_loss": [{"likelihood": name} | _point(gap) for (_, name), gap in gaps.own.items()],
        "common_loss": gaps.common_loss,
        "gap_at_common_loss": [{"likelihood": name} | _point(gap) for (_, name), gap in gaps.common.items()],
        "share_of_nelbo_gap": [
            {"convention": c, "likelihood": name} | dict(zip(("share", "lower", "upper"), share, strict=True))
            for (c, name), share in gaps.shares.items()
        ],
        "difference_to_nelbo": gaps.differences.to_dict("records"),
        "minima": {one.likelihood: one.fit.minima.to_dict("records") for one in gaps.fits},
        "no_gap_because": {name: refusal.reason for name, refusal in gaps.refused.items()},
    }


def _point(gap: GapCurve) -> dict[str, Any]:
    return {key: value[0] if isinstance(value, np.ndarray) else value for key, value in gap.as_dict().items()}
