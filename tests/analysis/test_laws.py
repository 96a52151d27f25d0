"""Every law is one object, the gap is read from two of them at any loss, and notebooks show what comes of it."""

import numpy as np
import pytest
import synthetic_sweeps as sweeps

from analysis import IsoFlopFit, bootstrap, compute_gap, fit_isoflop
from analysis.gap.laws import GAP_LAWS
from analysis.laws.names import LawName
from analysis.tables import html_table
from analysis.wording import with_interval


@pytest.fixture(scope="module")
def noisy() -> IsoFlopFit:
    return fit_isoflop(sweeps.table(sweeps.both(sd=0.005)))


@pytest.mark.parametrize("name", GAP_LAWS)
def test_a_law_and_its_inverse_agree_for_every_draw(noisy: IsoFlopFit, name: str) -> None:
    draws = bootstrap(noisy, n=20)
    floor = 1.5 if GAP_LAWS[name].takes_floor else None
    for law in GAP_LAWS[name].fit([draws.frontier("arm"), draws.frontier("mdm")], floor):
        log_loss = np.log([2.5, 2.8, 3.1])
        log_flops = law.log_flops(log_loss)
        assert log_flops.shape == (20, 3)
        assert (np.diff(log_flops, axis=1) < 0).all()
        assert law.log_loss(log_flops) == pytest.approx(np.broadcast_to(log_loss, (20, 3)), rel=1e-9)


@pytest.mark.parametrize("name", GAP_LAWS)
def test_the_gap_at_a_loss_is_the_curves_whatever_its_grid(noisy: IsoFlopFit, name: str) -> None:
    draws, floor = bootstrap(noisy, n=200), 1.5 if GAP_LAWS[name].takes_floor else None
    arm, mdm = noisy.frontier("arm"), noisy.frontier("mdm")
    gap = compute_gap(arm, mdm, "flops", name, draws=draws, floor=floor)
    alone = compute_gap(arm, mdm, law=name, grid=np.array([2.9, 99.0]), draws=draws, floor=floor)
    point, nowhere = gap.at(2.9), gap.at(99.0)
    assert (point.ratio, point.lower, point.upper) == (alone.ratio[0], alone.lower[0], alone.upper[0])
    assert point.support == alone.support[0] == "interpolated"
    assert np.isnan(nowhere.ratio) == LawName(name).interpolates
    assert str(point).startswith(f"gap {point.ratio:.0f} [")
    assert str(point).endswith(f"at a loss of 2.900 nats per token ({LawName(name).wording}, both families measured)")
    assert str(nowhere).endswith("says nothing there" if LawName(name).interpolates else "extrapolated)")
    with pytest.raises(ValueError, match=r"loss = -1.0: must be"):
        gap.at(-1.0)


def test_a_fit_its_draws_and_its_gap_show_as_short_tables(noisy: IsoFlopFit) -> None:
    draws = bootstrap(noisy, n=200)
    gap = compute_gap(noisy.frontier("arm"), noisy.frontier("mdm"), draws=draws)
    for shown, rows in ((noisy, len(noisy.minima)), (draws, 10), (gap, 5), (gap.at(2.9), 1)):
        assert shown._repr_html_().count("<tr") == rows + 1
    point = gap.at(2.9)
    assert f"<td>{with_interval(point.ratio, point.lower, point.upper)}</td>" in point._repr_html_()
    assert "<script>" not in html_table([{"family": "<script>"}])
