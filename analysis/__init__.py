"""Scaling-law analysis of IsoFLOP sweeps: fits, intervals and the compute gap between ARM and MDM.

    from analysis import bootstrap, compute_gap, fit_isoflop, read_runs

    fit = fit_isoflop(read_runs("sweep"))
    gap = compute_gap(fit.frontier("arm"), fit.frontier("mdm"), draws=bootstrap(fit))

| read | `read_runs` (a sweep's directory or anybody's table), `read_curves` (training curves) |
|---|---|
| fit | `fit_isoflop`, `fit_parametric`, `fit_envelope`: approaches 2, 3 and 1 of Hoffmann et al. 2022 |
| laws | `fit_power_law`, `fit_saturating_power_law`, `compare_slopes`, `compare_saturating_slopes` |
| how sure | `bootstrap`, `bootstrap_parametric`, `holdout`, `check` |
| the gap | `overlap`, `compute_gap`, `parametric_gap`, `gap_sensitivity` |
| another likelihood | `with_likelihood` (the MDM's loss by an exact one), `gap_by_likelihood`, `plot_likelihoods` |
| show | `plot_isoflop`, `plot_loss`, `plot_allocation`, `plot_gap`, `plot_residuals`, `plot_clouds`, `write_report` |

Compute is in FLOPs, losses in nats per token, N and D are parameters and training tokens. What a caller can do wrong is
a ValueError that names the value and what to do. docs/analysis.md says how the fits are made and what their intervals
mean. Importing this loads nothing else: each name is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.checks.finding import Finding, Severity
    from analysis.checks.holdout import holdout
    from analysis.checks.sweep import check
    from analysis.figures.allocation import plot_allocation
    from analysis.figures.clouds import plot_clouds
    from analysis.figures.gap import plot_gap
    from analysis.figures.isoflop import plot_isoflop
    from analysis.figures.likelihoods import plot_likelihoods
    from analysis.figures.loss import plot_loss
    from analysis.figures.residuals import plot_residuals
    from analysis.gap.curve import GapCurve, compute_gap, middle_of_overlap
    from analysis.gap.likelihoods import LikelihoodGaps, gap_by_likelihood
    from analysis.gap.sensitivity import gap_sensitivity
    from analysis.gap.surfaces import parametric_gap
    from analysis.laws.envelope import Envelope, fit_envelope
    from analysis.laws.frontier import Frontier, overlap
    from analysis.laws.power_law import PowerLaw, SlopeTest, compare_slopes, fit_power_law
    from analysis.laws.saturating import SaturatingPowerLaw, compare_saturating_slopes, fit_saturating_power_law
    from analysis.minima.bootstrap import Bootstrap, bootstrap
    from analysis.minima.fit import IsoFlopFit, fit_isoflop
    from analysis.report.write import write_report
    from analysis.runs.likelihoods import with_likelihood
    from analysis.runs.load import read_runs
    from analysis.runs.training_curves import read_curves
    from analysis.surface.bootstrap import ParametricDraws, bootstrap_parametric
    from analysis.surface.fit import ParametricFit, fit_parametric

MODULES = {
    "Bootstrap": "minima.bootstrap",
    "Envelope": "laws.envelope",
    "Finding": "checks.finding",
    "Frontier": "laws.frontier",
    "GapCurve": "gap.curve",
    "IsoFlopFit": "minima.fit",
    "LikelihoodGaps": "gap.likelihoods",
    "ParametricDraws": "surface.bootstrap",
    "ParametricFit": "surface.fit",
    "PowerLaw": "laws.power_law",
    "SaturatingPowerLaw": "laws.saturating",
    "Severity": "checks.finding",
    "SlopeTest": "laws.power_law",
    "bootstrap": "minima.bootstrap",
    "bootstrap_parametric": "surface.bootstrap",
    "check": "checks.sweep",
    "compare_saturating_slopes": "laws.saturating",
    "compare_slopes": "laws.power_law",
    "compute_gap": "gap.curve",
    "fit_envelope": "laws.envelope",
    "fit_isoflop": "minima.fit",
    "fit_parametric": "surface.fit",
    "fit_power_law": "laws.power_law",
    "fit_saturating_power_law": "laws.saturating",
    "gap_by_likelihood": "gap.likelihoods",
    "gap_sensitivity": "gap.sensitivity",
    "holdout": "checks.holdout",
    "middle_of_overlap": "gap.curve",
    "overlap": "laws.frontier",
    "parametric_gap": "gap.surfaces",
    "plot_allocation": "figures.allocation",
    "plot_clouds": "figures.clouds",
    "plot_gap": "figures.gap",
    "plot_isoflop": "figures.isoflop",
    "plot_likelihoods": "figures.likelihoods",
    "plot_loss": "figures.loss",
    "plot_residuals": "figures.residuals",
    "read_curves": "runs.training_curves",
    "read_runs": "runs.load",
    "with_likelihood": "runs.likelihoods",
    "write_report": "report.write",
}
"""The module of each public name, imported when the name is first used, so that commands answer --help at once."""
__all__ = list(MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"analysis.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
