"""The figures of a report."""

from analysis.figures.allocation import plot_allocation
from analysis.figures.clouds import plot_clouds
from analysis.figures.gap import plot_gap
from analysis.figures.isoflop import plot_isoflop
from analysis.figures.likelihoods import plot_likelihoods
from analysis.figures.loss import plot_loss
from analysis.figures.residuals import plot_residuals
from analysis.figures.style import Picture, rendered
from analysis.report.summary import Summary


def draw(summary: Summary) -> dict[str, dict[str, bytes]]:
    """The report's figures by name, each as "svg" and as "png"."""
    fit, draws, level = summary.fit, summary.draws, summary.level
    drawn: dict[str, Picture | None] = {"isoflop": plot_isoflop(fit, level)}
    for convention in summary.headline:
        point = summary.gaps.get((convention, "interpolated"))
        drawn[f"loss_{convention}"] = plot_loss(fit, convention, draws, point, level)
        drawn[f"gap_{convention}"] = plot_gap([gap for (c, _), gap in summary.curves.items() if c == convention])
        if summary.likelihoods:
            drawn[f"likelihoods_{convention}"] = plot_likelihoods(summary.likelihoods, convention, level)
    if summary.laws:
        drawn["allocation"] = plot_allocation(fit, "smdm_6nd", draws, level)
    drawn |= {"residuals": plot_residuals(fit), "clouds": plot_clouds(fit, draws)}
    return {name: rendered(figure) for name, figure in drawn.items() if figure is not None}
