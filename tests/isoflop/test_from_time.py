"""A plan from time: one factor for all budgets, the largest whose sweep fits into the hours."""

import re

import pytest
from command_line import one_line

from isoflop.cost import Machine, sweep_seconds
from isoflop.ladder import find_size
from isoflop.place.from_time import largest_scale, scaled
from isoflop.plan.__main__ import main, plan_config
from isoflop.planfile import read_plan
from isoflop.refine.rungs import non_embedding
from isoflop.sweep import CurveSpec, SweepSpec
from mdm_jax.config import load_config
from mdm_jax.spec import Family, RunSpec

EXPERIMENT = """
from experiments.quickstart import get_config as quickstart

def get_config():
    config = quickstart().unlock()
    curves = [curve for curve in config.sweep.curves if curve["budget"] in (1e10, 2e11)]
    config.sweep.curves = [{**curve, "sizes": curve["sizes"][::2]} for curve in curves]
    return config.lock()
"""


@pytest.fixture
def experiment(tmp_path) -> str:
    """The path of an experiment with two of the quickstart's curves, 7 runs."""
    path = tmp_path / "experiment.py"
    path.write_text(EXPERIMENT)
    return str(path)


def seconds_at(factor: float) -> float:
    """A sweep of 100 s of fixed time, in which no cell can spend budgets below a fifth."""
    if factor < 0.2:
        raise ValueError("too small for one step")
    if factor > 1000:
        raise ValueError("more than max_epochs")
    return 100 + 50 * factor


@pytest.mark.parametrize("limit", [111.0, 120.0, 149.0, 151.0, 1000.0, 40000.0])
def test_the_largest_factor_that_fits_is_found(limit: float) -> None:
    scale = largest_scale(seconds_at, limit)
    assert scale.seconds == seconds_at(scale.factor) <= limit
    assert scale.factor == pytest.approx((limit - 100) / 50, rel=0.04)
    assert not scale.refusal


def test_larger_budgets_that_cannot_be_planned_are_said() -> None:
    scale = largest_scale(seconds_at, 1e6)
    assert scale.factor == pytest.approx(1000, rel=0.04)
    assert scale.refusal == "more than max_epochs"


def test_hours_below_the_smallest_plan_are_refused_with_its_time() -> None:
    with pytest.raises(ValueError, match=r"--hours 0.029\d+: the smallest plan .*, takes 11. s .*: give more"):
        largest_scale(seconds_at, 105.0)

    def never(factor: float) -> float:
        raise ValueError("size 9: unknown")

    with pytest.raises(ValueError, match="size 9: unknown"):
        largest_scale(never, 100.0)


def test_a_planned_sweep_takes_the_hours(tmp_path, capsys, experiment: str) -> None:
    assert main(["--config", experiment, "--out", str(tmp_path), "--hours", "2", "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    found = re.match(r"--hours 2: budgets x(\S+) of those given", said)
    assert found
    runs, before = read_plan(tmp_path), plan_config(load_config(experiment)).runs
    assert 0.9 * 7200 < sweep_seconds(runs, Machine().seconds, 2) <= 7200
    for family in Family:
        now, given = (sorted({r.cell.budget or 0 for r in plan if r.family is family}) for plan in (runs, before))
        assert now == pytest.approx([float(found[1]) * budget for budget in given], rel=0.006)
    assert len(runs) == len(before)
    assert f"isoflop.run {tmp_path} --jobs 2\n" in said


def test_written_sizes_move_with_the_root_of_the_factor_and_stay_different() -> None:
    sizes = ("1x8", "1x12", "1x16", "1x24", "2x20", "2x28")
    sweep = SweepSpec(curves=(CurveSpec(Family.ARM, 1e10, sizes), CurveSpec(Family.MDM, 1e11, sizes[2:])))
    assert scaled(RunSpec(), sweep, 1.0) == sweep
    first, second = scaled(RunSpec(), sweep, 16.0).curves
    assert (first.budget, second.budget) == (1.6e11, 1.6e12)
    for size, moved in zip(sizes, first.sizes, strict=True):
        assert non_embedding(find_size(moved)) == pytest.approx(4 * non_embedding(find_size(size)), rel=0.2)
    assert len(set(first.sizes)) == len(sizes)
    assert second.sizes == first.sizes[2:]
    smaller = scaled(RunSpec(), sweep, 0.01).curves[0].sizes
    assert smaller[0] == "1x8"
    assert len(set(smaller)) == len(sizes)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--hours 0", "--hours = 0.0: must be above 0"),
        ("--hours nan", "--hours = nan: must be above 0"),
        ("--hours 0.002", "--hours 0.002: the smallest plan of this experiment, with budgets x"),
        ("--hours 1 --jobs 0", "--jobs = 0: must be at least 1"),
        ("--jobs 2", "--jobs = 2: must be left out without --hours"),
        ("--hours 1 --budgets 1e10 --sizes 1x8", "--sizes = '1x8': must be left out with --hours"),
    ],
)
def test_hours_that_cannot_be_are_one_line(tmp_path, capsys, experiment: str, flags: str, said: str) -> None:
    arguments = ["--config", experiment, "--out", str(tmp_path), *flags.split()]
    assert said in one_line(main, arguments, capsys)
    assert not (tmp_path / "plan.jsonl").exists()
