"""Figures: axes around what is drawn, one colour for each family, and words that no mark lies under."""

import numpy as np
import pytest
import synthetic_sweeps as sweeps
from matplotlib.text import Annotation

from analysis import bootstrap, fit_isoflop, plot_clouds, plot_loss
from analysis.figures.gap import LAW_LINES
from analysis.figures.series import family_minima
from analysis.figures.style import FAMILY_COLOURS, Picture, budget_colours, budget_legend, log_axis, styled
from analysis.wording import scientific


def test_a_log_axis_is_around_what_is_drawn_and_stays_there() -> None:
    low, high = Picture().subplots(1, 2, sharey=True)
    low.plot([1.0, 100.0], [2.0, 20.0])
    high.plot([5.0], [200.0])
    log_axis(low, "x", "count", margin=0.1)
    log_axis(low, "y", "plain", margin=0.0, headroom=0.5)
    low.plot([1e-9, 1e9], [1e-9, 1e9])
    assert low.get_xlim() == pytest.approx((10**-0.2, 10**2.2))
    assert low.get_ylim() == high.get_ylim() == pytest.approx((2.0 * np.exp(-0.01), 2000.0 * np.exp(0.01)))


def test_no_law_has_a_familys_colour() -> None:
    assert not {colour for colour, _ in LAW_LINES.values()} & set(FAMILY_COLOURS.values())


@pytest.mark.parametrize(("width", "columns"), [(9.6, 6), (5.3, 4)])
def test_a_legend_of_budgets_reads_row_by_row_within_the_figure(width: float, columns: int) -> None:
    figure = Picture(figsize=(width, 4), layout="constrained")
    figure.subplots()
    budgets = 2.5 * 10.0 ** np.arange(9, 21)
    budget_legend(figure, budget_colours(budgets))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    places = {text.get_text(): text.get_window_extent() for text in legend.get_texts()}
    lefts = [places[scientific(budget)].x0 for budget in budgets]
    assert 0 < lefts[0] < lefts[columns - 1]
    assert lefts[:columns] == sorted(lefts[:columns]) == pytest.approx(lefts[columns : 2 * columns])
    assert legend.get_window_extent().width < figure.bbox.width


def test_a_figure_draws_the_fits_own_minima_laws_and_intervals() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.004, sizes=5)))
    draws = bootstrap(fit, n=200)
    for side in family_minima(fit, "n_opt", "smdm_6nd", draws, 0.9):
        rows = fit.minima_of(side.family)
        assert side.values == pytest.approx(rows["n_opt"])
        assert side.line is not None
        assert side.line.exponent_interval is not None
        low, high = side.line.exponent_interval
        assert low < side.line.law.exponent < high
        assert side.line.values == pytest.approx(side.line.law.predict(side.line.flops))
        assert side.line.band is not None
        assert (side.line.band[0] < side.line.values).all()
        assert (side.line.values < side.line.band[1]).all()
    with pytest.raises(ValueError, match=r"draws = 200: too few for a 0\.99 interval"):
        family_minima(fit, "loss_opt", "smdm_6nd", draws, 0.99)


def test_no_point_lies_under_words() -> None:
    fit = fit_isoflop(sweeps.table(sweeps.both(sd=0.004, sizes=5)))
    clouds, loss = plot_clouds(fit, bootstrap(fit, n=200)), plot_loss(fit)
    assert clouds is not None
    with styled():
        clouds.draw_without_rendering()
        loss.draw_without_rendering()
    for axes in clouds.axes:
        words = [child for child in axes.get_children() if isinstance(child, Annotation)]
        assert len(words) == 1
        assert words[0].get_window_extent().y0 > axes.bbox.y1
        assert words[0].get_window_extent().x1 < axes.bbox.x1
    assert loss.legends[0].get_window_extent().y1 < loss.axes[0].bbox.y0
